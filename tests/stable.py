"""Small Stable Diffusion 1: pipelines of diffusers with CLIP's own text model, random weights and few words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.conditioning.byte_pairs import END, START
from pipelines import CROSS, drawn, first_stage, network, scheduler

diffusers = pytest.importorskip("diffusers", reason="compares with diffusers")
transformers = pytest.importorskip("transformers", reason="compares with transformers")
MERGES = (("a", "t</w>"), ("c", "at</w>"), ("t", "h"), ("th", "e</w>"), ("r", "e"), ("re", "d</w>"), ("'", "s</w>"))
PROMPTS = ["the red cat", "a  Cat's café, \n100 times!"]
NEGATIVE = "the ugly"


def letters() -> list[str]:
    """The 256 letters that stand for bytes, as GPT-2 chose them: printable ones for themselves, then the others."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(each) for each in own] + [chr(256 + place) for place in range(256 - len(own))]


def pieces() -> dict[str, int]:
    ends = [f"{letter}</w>" for letter in letters()]
    return {each: place for place, each in enumerate([*letters(), *ends, *map("".join, MERGES), START, END])}


def write_words(folder: Path) -> Path:
    """CLIP's vocab.json and merges.txt, of a few words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(pieces()), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def words(folder: Path) -> Any:
    return transformers.CLIPTokenizer.from_pretrained(write_words(folder), model_max_length=77)


def ids(tokenizer: Any, texts: list[str]) -> Tensor:
    return tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids


def clip(**options: Any) -> Any:
    """CLIP's text model."""
    torch.manual_seed(6)
    sizes = {"hidden_size": 24, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}
    marks = {"vocab_size": len(pieces()), "bos_token_id": len(pieces()) - 2, "eos_token_id": len(pieces()) - 1}
    return drawn(transformers.CLIPTextModel(transformers.CLIPTextConfig(**{**sizes, **marks, **options})))


def pipeline(folder: Path, **options: Any) -> Any:
    """A StableDiffusionPipeline whose words lie in `folder`."""
    made = diffusers.StableDiffusionPipeline(
        vae=first_stage("kl"),
        text_encoder=clip(),
        tokenizer=words(folder),
        unet=network(**CROSS, cross_attention_dim=24, attention_head_dim=4),
        scheduler=scheduler(**options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made

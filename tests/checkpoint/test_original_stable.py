"""Stable Diffusion 1 as original checkpoints: the same numbers as CLIP's own, there and back, names of every kind.

FrozenCLIPEmbedder is ViT-L/14, of 123 million parameters; but for `test_zoo`, a smaller one stands for it here.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import darkroom
from darkroom.checkpoint import specs, to_compvis
from darkroom.checkpoint.compvis import convert_original
from darkroom.checkpoint.inventory import PLACES_OF_TOKENS, describe_original
from darkroom.checkpoint.store import load_model, save_model
from darkroom.checkpoint.to_diffusers import save_folder
from darkroom.checkpoint.write_compvis import save_original
from darkroom.conditioning.text import SequenceEncoderSpec
from darkroom.core.errors import InputError, ModelFileError
from darkroom.tasks.find import read_whole
from originals import ENCODERS, KL, SPATIAL, checkpoint, config, described, state_of
from stable import PROMPTS, clip, ids, pieces, words, write_words

TEXT = "cond_stage_model.transformer."
MODEL = config(
    {"target": f"{ENCODERS}FrozenCLIPEmbedder"},
    unet=SPATIAL,
    conditioning_key="crossattn",
    cond_stage_key="txt",
    scale_factor=0.18215,
    use_ema=False,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"length": 77, "width": 24, "depth": 2, "heads": 3, "head_width": 8}
    encoder = SequenceEncoderSpec(vocabulary=len(pieces()), **sizes, family="clip")
    for module in (specs, to_compvis):
        monkeypatch.setattr(module, "VIT_L", encoder)


def of_clip(before: str = "text_model.") -> dict[str, Tensor]:
    """CLIP's own weights, as the original names them."""
    return {f"{TEXT}{before}{name}": tensor.clone() for name, tensor in clip().state_dict().items()}


def made(folder: Path, *, before: str = "text_model.") -> tuple[Path, Path]:
    """A checkpoint with CLIP's weights in it, and its YAML."""
    state = {name: tensor for name, tensor in state_of(described(folder, MODEL)).items() if not name.startswith(TEXT)}
    state.pop("lvlb_weights")
    places = {f"{TEXT}{before}embeddings.position_ids": torch.arange(77)[None]}
    return checkpoint(folder, {**state, **places, **of_clip(before)}), folder / "config.yaml"


@torch.no_grad()
def test_the_same_numbers_as_clip(tmp_path: Path) -> None:
    path, yaml = made(tmp_path)
    model = darkroom.load(path, config=yaml, device="cpu")
    assert (model.fields, model.spec.scale, model.odd) == (("caption",), 0.18215, ())
    tokenizer = words(tmp_path / "words")
    captions = [*PROMPTS, "", "cat " * 90]
    wanted = ids(tokenizer, captions)
    hidden = clip()(wanted).last_hidden_state
    torch.testing.assert_close(model.condition(caption_ids=wanted).tokens, hidden, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match=r"put its vocab.json and merges.txt beside the checkpoint"):
        model.condition(caption=captions)
    empty = model.null(model.condition(caption_ids=wanted)).tokens
    torch.testing.assert_close(empty, hidden[2:3].expand_as(empty), rtol=0, atol=1e-5)
    write_words(tmp_path)
    model = darkroom.load(path, config=yaml, device="cpu")
    torch.testing.assert_close(model.condition(caption=captions).tokens, hidden, rtol=0, atol=1e-5)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_there_and_back(tmp_path: Path, suffix: str) -> None:
    path, yaml = made(tmp_path)
    write_words(tmp_path)
    save_model(tmp_path / "ours.safetensors", read_whole(path, config=yaml))
    stored = load_model(tmp_path / "ours.safetensors")
    back = tmp_path / "back" / f"again{suffix}"
    assert save_original(back, stored) == ("its tokenizer (the original fetches CLIP's own)",)
    found = describe_original(back, back.with_suffix(".yaml"))
    assert (found.missing, found.misshapen, found.strays, found.left_out) == ((), (), (), ())
    assert found.described.spec == stored.spec
    before, after = (describe_original(each, yaml).checkpoint.state_dict for each in (path, back))
    assert set(before) == set(after)
    assert all(torch.equal(after.stored(name), before.stored(name)) for name in before)
    assert after.stored(PLACES_OF_TOKENS).dtype == torch.int64


def test_a_folder_of_diffusers_and_back(tmp_path: Path) -> None:
    path, yaml = made(tmp_path)
    write_words(tmp_path)
    stored = read_whole(path, config=yaml)
    assert save_folder(tmp_path / "folder", stored) == ("left out: its card (weights, steps)",)
    again = read_whole(tmp_path / "folder")
    assert again.state.keys() == stored.state.keys()
    assert all(torch.equal(again.state[name], stored.state[name]) for name in stored.state)
    assert again.tokenizer == stored.tokenizer


@pytest.mark.parametrize("before", ["", "text_model."])
def test_names_with_and_without_what_is_around_the_model(before: str, tmp_path: Path) -> None:
    found = describe_original(*made(tmp_path, before=before))
    assert (found.missing, found.strays, found.odd) == ((), (), ())
    stored = convert_original(*made(tmp_path, before=before)).stored
    own = clip().state_dict()["encoder.layers.1.self_attn.k_proj.bias"]
    assert torch.equal(
        stored.state["conditioning.by_field.caption.encoder.transformer.layers.1.attention.key.bias"], own
    )


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"version": "openai/clip-vit-base-patch32"}, "version"),
    "length": ({"max_length": 50}, "max_length"),
    "layer": ({"layer": "hidden", "layer_idx": 11}, "layer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_settings_are_refused(name: str, tmp_path: Path) -> None:
    params, message = REFUSED[name]
    values = {**MODEL["params"], "cond_stage_config": {"target": f"{ENCODERS}FrozenCLIPEmbedder", "params": params}}
    with pytest.raises(ModelFileError, match=message):
        described(tmp_path, {**MODEL, "params": values})


def test_a_text_model_of_other_sizes_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = convert_original(*made(tmp_path)).stored
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match="a CLIP text encoder of other sizes than those of ViT-L/14"):
        save_original(tmp_path / "back.ckpt", stored)


def test_a_first_stage_of_it_alone(tmp_path: Path) -> None:
    path, _ = made(tmp_path)
    described(tmp_path, KL)
    assert darkroom.load_autoencoder(path, config=tmp_path / "config.yaml", device="cpu").spec.latent_channels == 4

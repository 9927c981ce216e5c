"""Small pipelines of diffusers with random weights, and their folders."""

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

diffusers = pytest.importorskip("diffusers", reason="compares with diffusers")
pytest.importorskip("transformers", reason="diffusers takes its text encoders from there")
LATENT = "diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion"
LEVELS = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    "block_out_channels": (32, 64),
    "sample_size": 16,
}
ATTEND = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
NOISE_LEVELS = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195, "clip_sample": False}
STEPS = {"set_alpha_to_one": False, "steps_offset": 1}  # as the original's
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "circle", "##s", "##e", "squar", "é")
WIDTH = 24


@torch.no_grad()
def drawn(module: nn.Module, *, seed: int = 0) -> Any:
    """With weights of which none is zero or one."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return module.eval()


def first_stage(kind: str, **options: Any) -> Any:
    torch.manual_seed(3)
    if kind == "kl":
        return drawn(diffusers.AutoencoderKL(**LEVELS, latent_channels=3, scaling_factor=0.7, **options))
    return drawn(diffusers.VQModel(**LEVELS, latent_channels=3, num_vq_embeddings=16, **options))


def network(**options: Any) -> Any:
    torch.manual_seed(4)
    sizes = {"sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (32, 64)}
    kind = diffusers.UNet2DConditionModel if "cross_attention_dim" in options else diffusers.UNet2DModel
    return drawn(kind(**{**sizes, "layers_per_block": 1, **options}))


def scheduler(**options: Any) -> Any:
    return diffusers.DDIMScheduler(**{**NOISE_LEVELS, **STEPS, **options})


def unconditional(kind: str = "kl", **options: Any) -> Any:
    from diffusers.pipelines.deprecated.latent_diffusion_uncond import LDMPipeline

    unet = network(**ATTEND, attention_head_dim=16)
    return LDMPipeline(vqvae=first_stage(kind), unet=unet, scheduler=scheduler(**options))


def super_resolution(kind: str = "vq") -> Any:
    module = importlib.import_module(f"{LATENT}_superresolution")
    unet = network(**ATTEND, attention_head_dim=16, in_channels=6)
    stage = first_stage(kind, **({"scaling_factor": 1.0} if kind == "vq" else {}))
    return module.LDMSuperResolutionPipeline(vqvae=stage, unet=unet, scheduler=scheduler())


def latent_text() -> ModuleType:
    """diffusers' own LDMBertModel and LDMTextToImagePipeline."""
    return importlib.import_module(LATENT)


def bert(**options: Any) -> Any:
    module = latent_text()
    torch.manual_seed(5)
    sizes = {"vocab_size": 20, "encoder_layers": 2, "d_model": WIDTH, "encoder_ffn_dim": 4 * WIDTH}
    config = module.LDMBertConfig(**{**sizes, "encoder_attention_heads": 2, "head_dim": 8, **options})
    return drawn(module.LDMBertModel(config))


class Words:
    """The tokenizer of the pipeline, by the tokenizers package's own form of it."""

    def __init__(self, vocabulary: Path) -> None:
        from tokenizers import BertWordPieceTokenizer

        self.engine = BertWordPieceTokenizer(str(vocabulary), lowercase=True)

    def __call__(self, texts: list[str] | str, *, max_length: int, **_: Any) -> Any:
        self.engine.enable_truncation(max_length)
        self.engine.enable_padding(length=max_length)
        found = self.engine.encode_batch([texts] if isinstance(texts, str) else texts)
        return SimpleNamespace(input_ids=torch.tensor([each.ids for each in found]))


def text_parts() -> dict[str, Any]:
    unet = network(**CROSS, cross_attention_dim=WIDTH, attention_head_dim=4)
    return {"vqvae": first_stage("kl"), "bert": bert(), "unet": unet, "scheduler": scheduler()}


def save_text(folder: Path, parts: dict[str, Any], *, binary: bool = False) -> Path:
    """The folder of an LDMTextToImagePipeline, as transformers would have written its parts."""
    for name in ("vqvae", "unet", "scheduler"):
        parts[name].save_pretrained(folder / name)
    names = {name: ["diffusers", type(parts[name]).__name__] for name in ("vqvae", "unet", "scheduler")}
    names |= {"bert": ["latent_diffusion", "LDMBertModel"], "tokenizer": ["transformers", "BertTokenizer"]}
    write(
        folder / "model_index.json", {"_class_name": "LDMTextToImagePipeline", "_diffusers_version": "0.4.0", **names}
    )
    encoder = parts["bert"]
    (folder / "bert").mkdir()
    write(folder / "bert" / "config.json", {**encoder.config.to_dict(), "model_type": "ldmbert"})
    if binary:
        torch.save(encoder.state_dict(), folder / "bert" / "pytorch_model.bin")
    else:
        save_file(encoder.state_dict(), folder / "bert" / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    write(folder / "tokenizer" / "tokenizer_config.json", {"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    return folder


def write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def change(path: Path, **values: Any) -> None:
    """Other values in a JSON file; None takes a key away."""
    found = {**json.loads(path.read_text(encoding="utf-8")), **values}
    write(path, {name: value for name, value in found.items() if value is not None})


def same(one: Any, other: Any) -> bool:
    """Have two modules the same tensors, bit for bit?"""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def all_close(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)

"""Small original configurations, and checkpoints with random tensors in their layout."""

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from darkroom.checkpoint.config import read_config
from darkroom.checkpoint.keymap import averaged_names, first_stage_table, model_table
from darkroom.checkpoint.specs import OriginalSpec, original_spec
from darkroom.diffusion.model import ModelSpec
from darkroom.process.schedule import DiscreteSchedule, build_schedule, original_buffers

KL: dict[str, Any] = {
    "target": "ldm.models.autoencoder.AutoencoderKL",
    "params": {
        "embed_dim": 4,
        "monitor": "val/rec_loss",
        "ddconfig": {
            "double_z": True,
            "z_channels": 4,
            "resolution": 16,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 32,
            "ch_mult": [1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [],
        },
        "lossconfig": {"target": "torch.nn.Identity"},
    },
}
UNET: dict[str, Any] = {
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [1],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_heads": 4,
}
SPATIAL = {"use_spatial_transformer": True, "context_dim": 24}
ENCODERS = "ldm.modules.encoders.modules."
BERT: dict[str, Any] = {
    "target": f"{ENCODERS}BERTEmbedder",
    "params": {"n_embed": 24, "n_layer": 1, "vocab_size": 30, "max_seq_len": 6},
}
CLASSES: dict[str, Any] = {
    "target": f"{ENCODERS}ClassEmbedder",
    "params": {"n_classes": 10, "embed_dim": 24},
}
RESCALER: dict[str, Any] = {
    "target": f"{ENCODERS}SpatialRescaler",
    "params": {"n_stages": 1, "in_channels": 7, "out_channels": 2},
}
IDENTITY = {"target": "torch.nn.Identity"}


def config(
    conditioner: Any = "__is_unconditional__", *, unet: dict[str, Any] | None = None, first: Any = KL, **params: Any
) -> dict[str, Any]:
    values = {
        "timesteps": 50,
        "image_size": 8,
        "channels": 4,
        "linear_start": 0.0015,
        "linear_end": 0.0195,
        "first_stage_config": first,
        "cond_stage_config": conditioner,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": {**UNET, **(unet or {})},
        },
        **params,
    }
    return {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": values}


def written(folder: Path, model: dict[str, Any]) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"model": {"base_learning_rate": 1e-6, **model}}))
    return path


def described(folder: Path, model: dict[str, Any]) -> OriginalSpec:
    return original_spec(read_config(written(folder, model)), where="config.yaml")


def state_of(found: OriginalSpec) -> dict[str, Tensor]:
    """Random tensors in the original's layout."""
    torch.manual_seed(0)
    if isinstance(found.spec, ModelSpec):
        table = model_table(found.spec, fused_by_head=found.fused_by_head)
        schedule = build_schedule(found.spec.schedule)
        buffers = {name: values.float() for name, values in original_buffers(schedule).items()}
    else:
        table, buffers = first_stage_table(found.spec), {}
    return {**{entry.original: 0.1 * torch.randn(entry.shape) for entry in table.entries}, **buffers}


def averages(state: dict[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Moving averages beside these weights: 1 more than each."""
    return {average: state[name] + 1 for name, average in averaged_names(model_table(spec)).items()}


def checkpoint(folder: Path, state: dict[str, Tensor]) -> Path:
    path = folder / "model.ckpt"
    torch.save({"state_dict": state, "global_step": 5}, path)
    return path


def both(folder: Path, model: dict[str, Any], **extra: Tensor) -> tuple[Path, Path]:
    found = described(folder, model)
    return checkpoint(folder, {**state_of(found), **extra}), folder / "config.yaml"


HYBRID = config(BERT, unet={**SPATIAL, "in_channels": 7}, conditioning_key="hybrid", cond_stage_key="txt")
CONFIGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unconditional": (config(), []),
    "class": (config(CLASSES, unet=SPATIAL, conditioning_key="crossattn"), ["class"]),
    "by-mode": (config(CLASSES, unet=SPATIAL, concat_mode=False), ["class"]),
    "text": (config(BERT, unet=SPATIAL, concat_mode=False, cond_stage_key="caption"), ["text"]),
    "layout": (config(BERT, unet=SPATIAL, concat_mode=False, cond_stage_key="coordinates_bbox"), ["layout"]),
    "retrieval": (config(IDENTITY, unet=SPATIAL, conditioning_key="crossattn"), ["embedding"]),
    "map": (config(RESCALER, unet={"in_channels": 6}, concat_mode=True), ["map"]),
    "low-res": (config(IDENTITY, unet={"in_channels": 7}), ["low-res"]),
    "masked": (config("__is_first_stage__", unet={"in_channels": 9}, conditioning_key="concat"), ["masked"]),
    "hybrid": (HYBRID, ["text", "low-res"]),
    "vector": (config(IDENTITY, unet={"num_classes": 6}, conditioning_key="adm"), ["class"]),
}


def posterior(schedule: DiscreteSchedule, *, x0: Tensor, x_t: Tensor, t: Tensor) -> dict[str, Tensor]:
    """q(x_{t-1} | x_t, x0) by the buffers of original checkpoints: `mean`, and `var` and `logvar` of each sample."""
    buffers = original_buffers(schedule)

    def of(name: str) -> Tensor:
        return buffers[name][t].to(x_t).reshape(-1, 1, 1, 1)

    return {
        "mean": of("posterior_mean_coef1") * x0 + of("posterior_mean_coef2") * x_t,
        "var": of("posterior_variance"),
        "logvar": of("posterior_log_variance_clipped"),
    }

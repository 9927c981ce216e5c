"""Every way of building and steering an original model, beside formulas that know its tensors alone.

The cases computed by the original code do not cover these; the formulas are compared with those that there are.
Names and shapes come from rules of their own too, so that neither our modules nor our table are asked.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import darkroom
from darkroom.checkpoint.config import read_config
from darkroom.checkpoint.unpickle import read_checkpoint
from original_forward import beside, decoded, encoded, nearest_codes, rescaled, sequence, unet, within
from original_layout import BUFFERS, layout
from originals import BERT, CLASSES, IDENTITY, KL, RESCALER, SPATIAL, checkpoint, config, written

UNET, FIRST, STEERS = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
CODER = {**KL["params"]["ddconfig"], "ch_mult": [1, 2, 1], "resolution": 32}
QUANTISED = {"embed_dim": 3, "n_embed": 32, "ddconfig": {**CODER, "double_z": False, "z_channels": 5}}
STAGES: dict[str, dict[str, Any]] = {
    "kl": {**KL, "params": {**KL["params"], "ddconfig": {**CODER, "num_res_blocks": 2}}},
    "kl-attending": {**KL, "params": {**KL["params"], "ddconfig": {**CODER, "attn_resolutions": [16, 8]}}},
    "vq-attending": {
        "target": "ldm.models.autoencoder.VQModel",
        "params": {**QUANTISED, "ddconfig": {**QUANTISED["ddconfig"], "attn_resolutions": [16]}},
    },
    "vq-noattn": {
        "target": "ldm.models.autoencoder.VQModelInterface",
        "params": {**QUANTISED, "ddconfig": {**QUANTISED["ddconfig"], "attn_type": "none"}},
    },
}
HOLES = {**STAGES["vq-noattn"]}
DEEP = {**SPATIAL, "transformer_depth": 2, "channel_mult": [1, 2, 2], "attention_resolutions": [4, 2]}
BOXES = {**BERT, "params": {**BERT["params"], "use_tokenizer": False, "n_layer": 2}}
LEVELS = {"channel_mult": [1, 2, 2], "num_res_blocks": 2, "attention_resolutions": [2]}
CROSSED = {"conditioning_key": "crossattn"}
MODELS: dict[str, dict[str, Any]] = {
    "levels": config(unet={**LEVELS, "num_heads": -1, "num_head_channels": 16}),
    "resblock-updown": config(unet={**LEVELS, "resblock_updown": True, "use_scale_shift_norm": True}),
    "pooled": config(unet={**LEVELS, "conv_resample": False, "attention_resolutions": [1, 2, 4]}),
    "new-order": config(unet={"use_new_attention_order": True, "legacy": False}),
    "nothing-attends": config(unet={"attention_resolutions": [32, 16, 8], "num_heads": 8}),
    "class": config(CLASSES, unet=DEEP, **CROSSED),
    "text": config(BOXES, unet={**DEEP, "num_heads": -1, "num_head_channels": 8}, cond_stage_key="txt", **CROSSED),
    "layout": config(BOXES, unet=SPATIAL, cond_stage_key="coordinates_bbox", **CROSSED),
    "retrieval": config(IDENTITY, unet=SPATIAL, **CROSSED),
    "map": config(RESCALER, unet={"in_channels": 6}, concat_mode=True),
    "low-res": config(IDENTITY, unet={"in_channels": 7}, conditioning_key="concat"),
    "hybrid": config(BOXES, unet={**SPATIAL, "in_channels": 7}, conditioning_key="hybrid"),
    "vector": config(IDENTITY, unet={"num_classes": 6}, conditioning_key="adm"),
    **{
        f"masked-{scale}": config(
            "__is_first_stage__",
            unet={"in_channels": 7, "out_channels": 3, "resblock_updown": True},
            first=HOLES,
            channels=3,
            conditioning_key="concat",
            scale_factor=scale,
        )
        for scale in (1.0, 0.5)
    },
}


def drawn(model: dict[str, Any]) -> dict[str, Tensor]:
    """Random tensors for all names of a `model:`; none is zero, those of norms lie about 1."""
    draw = torch.Generator().manual_seed(5)
    made = {name: 0.2 * torch.randn(shape, generator=draw) for name, shape in layout(model).items()}
    small = {name: each / max(1, each[0].numel() / 16) ** 0.5 for name, each in made.items() if each.ndim > 1}
    return made | small | {name: 1 + each for name, each in made.items() if each.ndim == 1 and name.endswith("weight")}


def files(folder: Path, model: dict[str, Any]) -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint without noise levels, which its YAML says, and its tensors."""
    model = {**model, "params": {**model["params"], "use_ema": False}}
    written(folder, model)
    state = {name: tensor for name, tensor in drawn(model).items() if name not in BUFFERS}
    state |= {STEERS + name: each for name, each in within(state, FIRST).items() if STEERS + name in state}
    return checkpoint(folder, state), state


def steered(state: Mapping[str, Tensor], model: dict[str, Any], given: dict[str, Tensor]) -> dict[str, Any]:
    """What the formulas are given besides x and t."""
    params, s = model["params"], within(state, STEERS)
    made: dict[str, Any] = {"context": None, "label": None, "planes": []}
    for name, values in given.items():
        match name:
            case "label" if params.get("conditioning_key") == "adm":
                made["label"] = values
            case "label":
                made["context"] = s["embedding.weight"][values][:, None]
            case "caption_ids" | "layout_ids":
                made["context"] = sequence(s, values)
            case "embedding":
                made["context"] = values
            case "map":
                made["planes"] = [rescaled(s, params["cond_stage_config"]["params"], values)]
            case "low_res":
                made["planes"] = [values]
            case "image":
                coder = params["first_stage_config"]["params"]["ddconfig"]
                made["planes"] = [beside(s, coder, (values + 1) / 2, given["mask"])]
            case _:
                pass
    return made


FIELDS: dict[str, dict[str, Tensor]] = {
    "label": {"label": torch.tensor([1, 5])},
    "caption": {"caption_ids": torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])},
    "objects": {"layout_ids": torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])},
    "embedding": {"embedding": torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))},
    "map": {"map": torch.rand(2, 7, 16, 32, generator=torch.Generator().manual_seed(2))},
    "low_res": {"low_res": torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(3))},
    "masked": {
        "image": 2 * torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(4)) - 1,
        "mask": (torch.rand(2, 1, 32, 64, generator=torch.Generator().manual_seed(6)) > 0.7).float(),
    },
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_the_network_answers(tmp_path: Path, name: str) -> None:
    given = MODELS[name]
    path, state = files(tmp_path, given)
    model = darkroom.load(path, device="cpu")
    fields = {key: values for field in model.fields for key, values in FIELDS[field].items()}
    draw = torch.Generator().manual_seed(7)
    x, t = torch.randn(2, given["params"]["channels"], 8, 16, generator=draw), torch.tensor([49, 3])
    conditions = model.condition(**fields) if fields else darkroom.Conditions()
    ports = steered(within(state, ""), given, fields)
    p = given["params"]["unet_config"]["params"]
    planes = ports.pop("planes")
    theirs = unet(within(state, UNET), p, torch.cat([x, *planes], dim=1), t, **ports)
    assert theirs.std() > 0.05
    torch.testing.assert_close(model.network(x, t, conditions), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", STAGES)
@torch.no_grad()
def test_what_the_first_stage_answers(tmp_path: Path, name: str) -> None:
    params = STAGES[name]["params"]
    path, state = files(tmp_path, STAGES[name])
    model = darkroom.load_autoencoder(path, device="cpu")
    images = 2 * torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(8)) - 1
    theirs = encoded(state, params["ddconfig"], images)
    mean, log_variance = model.moments(images)
    ours = mean if log_variance is None else torch.cat([mean, log_variance], dim=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    latents = torch.randn(mean.shape, generator=torch.Generator().manual_seed(9))
    codes = latents if log_variance is not None else nearest_codes(state, latents)
    pictures = decoded(state, params["ddconfig"], codes)
    assert min(theirs.std(), pictures.std()) > 0.05
    torch.testing.assert_close(model.decode(latents), pictures, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", ["c_uncond", "c2_uncond_ema_T20", "d_class_cond", "e_text_cond"])
@torch.no_grad()
def test_the_formulas_of_the_network_are_the_originals(parity: Path, case: str) -> None:
    io, state = load_file(parity / case / "io.safetensors"), read_checkpoint(parity / case / "model.ckpt").state_dict
    params = read_config(parity / case / "config.yaml").params
    p, s = params["unet_config"]["params"], within(state, UNET)
    raw = "eps_raw" if "eps_raw.eps" in io else "eps"
    torch.testing.assert_close(unet(s, p, io["x"], io["t"], context=io.get("c")), io[f"{raw}.eps"], rtol=0, atol=1e-4)
    if case == "e_text_cond":
        torch.testing.assert_close(sequence(within(state, STEERS), io["tokens"]), io["cond.c"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("case", "latents"), [("a_kl_f4", "z"), ("b_vq_f4", "h")])
@torch.no_grad()
def test_the_formulas_of_first_stages_are_the_originals(parity: Path, case: str, latents: str) -> None:
    io, state = load_file(parity / case / "io.safetensors"), read_checkpoint(parity / case / "model.ckpt").state_dict
    p, s = read_config(parity / case / "config.yaml").params["ddconfig"], within(state, "")
    found = encoded(s, p, io["image"])
    mean = found.chunk(2, dim=1)[0] if latents == "z" else found
    torch.testing.assert_close(mean, io["encode.mean" if latents == "z" else "encode.h"], rtol=0, atol=1e-4)
    given = io[latents] if latents == "z" else nearest_codes(s, io[latents])
    torch.testing.assert_close(decoded(s, p, given), io["decode.image"], rtol=0, atol=1e-4)

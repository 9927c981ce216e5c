"""The table of names against diffusers itself: every tensor once, and the same numbers from the same weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.checkpoint.diffusers_keys import first_stage_table, unet_table
from darkroom.checkpoint.keymap import to_original, to_ours
from darkroom.core.conditions import Conditions
from darkroom.core.errors import ModelFileError
from darkroom.network.unet import UNet, UNetSpec

diffusers = pytest.importorskip("diffusers", reason="compares with diffusers")
ATTEND = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
SIZES: dict[str, Any] = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "in_channels": 3, "out_channels": 3}
UNETS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "plain": ({"attention": (2,), "head_channels": 16}, "UNet2DModel", {**ATTEND, "attention_head_dim": 16}),
    "residual": (
        {"attention": (2,), "head_channels": 16, "resample": "residual", "scale_shift": True},
        "UNet2DModel",
        {
            "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
            "attention_head_dim": 16,
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "resnet_time_scale_shift": "scale_shift",
            "attn_norm_num_groups": 32,
        },
    ),
    "cross": (
        {"attention": (1,), "heads": 4, "transformer_depth": 2, "context_width": 24},
        "UNet2DConditionModel",
        {**CROSS, "attention_head_dim": 4, "transformer_layers_per_block": 2, "cross_attention_dim": 24},
    ),
    "linear": (
        {"attention": (1,), "head_channels": 16, "transformer_depth": 1, "context_width": 24},
        "UNet2DConditionModel",
        {**CROSS, "attention_head_dim": (2, 4), "cross_attention_dim": 24, "use_linear_projection": True},
    ),
}
UNETS["residual"][0]["attention"] = (1, 2)


def drawn(module: nn.Module) -> dict[str, Tensor]:
    """Its weights, drawn anew so that nothing is left at zero."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.08)
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", UNETS)
def test_a_u_net_answers_as_that_of_diffusers(name: str) -> None:
    ours, kind, theirs = UNETS[name]
    spec = UNetSpec(**SIZES, **ours)
    sizes = {"in_channels": 3, "out_channels": 3, "block_out_channels": (32, 64), "layers_per_block": 1}
    other = getattr(diffusers, kind)(sample_size=8, **sizes, **theirs).eval()
    state = drawn(other)
    table = unet_table(spec, linear=name == "linear")
    assert {entry.original for entry in table.entries} == set(state)
    network = UNet(spec).eval()
    network.load_state_dict(to_ours(table, state), strict=True)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    tokens = torch.randn(2, 5, 24) if spec.context_width else None
    with torch.no_grad():
        mine = network(x, t, Conditions(tokens=tokens))
        wanted = other(x, t, *(() if tokens is None else (tokens,))).sample
    torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)
    back = to_original(table, network.state_dict())
    assert all(torch.equal(back[key], state[key]) for key in state)


STAGES: dict[str, tuple[AutoencoderSpec, str, dict[str, Any]]] = {}
for attended in (False, True):
    levels = (("DownEncoderBlock2D", "UpDecoderBlock2D"), ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"))
    first, last = levels[0], levels[int(attended)]
    blocks = {"down_block_types": (first[0], last[0]), "up_block_types": (last[1], first[1])}
    options = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (2,) if attended else ()}
    STAGES[f"kl {attended}"] = (
        AutoencoderSpec(**options, latent_channels=4, bottleneck=KLSpec()),
        "AutoencoderKL",
        {**blocks, "latent_channels": 4},
    )
    STAGES[f"vq {attended}"] = (
        AutoencoderSpec(
            **options, latent_channels=3, code_channels=5, bottleneck=VQSpec(codes=16), middle_attention=attended
        ),
        "VQModel",
        {
            **blocks,
            "latent_channels": 5,
            "vq_embed_dim": 3,
            "num_vq_embeddings": 16,
            "mid_block_add_attention": attended,
        },
    )


@pytest.mark.parametrize("name", STAGES)
def test_a_first_stage_codes_as_that_of_diffusers(name: str) -> None:
    spec, kind, theirs = STAGES[name]
    sizes = {"block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 16}
    other = getattr(diffusers, kind)(**sizes, **theirs).eval()
    state = drawn(other)
    table = first_stage_table(spec)
    assert {entry.original for entry in table.entries} == set(state)
    model = Autoencoder(spec).eval()
    model.load_state_dict(to_ours(table, state), strict=True)
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        mean, _ = model.moments(images)
        found = other.encode(images)
        wanted = found.latent_dist.mean if kind == "AutoencoderKL" else found.latents
        torch.testing.assert_close(mean, wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.decode(mean), other.decode(wanted).sample, rtol=1e-4, atol=1e-5)
    back = to_original(table, model.state_dict())
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_what_diffusers_has_not_is_refused() -> None:
    with pytest.raises(ModelFileError, match="halves by pooling alone"):
        unet_table(UNetSpec(**SIZES, heads=1, resample="pool"))
    with pytest.raises(ModelFileError, match="stem of squares"):
        first_stage_table(AutoencoderSpec(channels=32, stem="patch2"))

"""Configurations of diffusers: read, written, and understood by diffusers itself."""

from typing import Any

import pytest
import torch

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.diffusers_config import (
    first_stage_config,
    first_stage_spec,
    schedule_spec,
    scheduler_config,
    unet_config,
    unet_spec,
)
from darkroom.checkpoint.diffusers_keys import first_stage_table, unet_table
from darkroom.core.errors import ModelFileError
from darkroom.network.unet import UNetSpec
from darkroom.process.schedule import (
    CosineSpec,
    DiscreteSchedule,
    FlowSpec,
    LinearSpec,
    ScheduleSpec,
    TableSpec,
    TrueLinearSpec,
    build_schedule,
)
from darkroom.recipes.read import groups, recipe

diffusers = pytest.importorskip("diffusers", reason="compares with diffusers")
PAPER = [name for group, found in groups().items() if "latent models" in group for name in found]
STAGES = [name for group, found in groups().items() if "first stages" in group for name in found]
OTHER_WIDTHS = {"lsun_churches256", "inpainting_big"}  # eight heads at levels of different widths


def built(config: dict[str, Any]) -> torch.nn.Module:
    with torch.device("meta"):
        return getattr(diffusers, config["_class_name"]).from_config(config)


@pytest.mark.parametrize("name", PAPER)
def test_u_nets_of_the_paper(name: str) -> None:
    spec = recipe(name).denoiser.network
    if name in OTHER_WIDTHS:
        with pytest.raises(ModelFileError, match="8 heads at levels of different widths"):
            unet_config(spec, size=32)
        return
    config = unet_config(spec, size=32)
    shapes = {key: tuple(value.shape) for key, value in built(config).state_dict().items()}
    assert shapes == {entry.original: entry.shape for entry in unet_table(spec).entries}
    again = unet_spec(config, where="config.json")
    reached = [2**level for level in range(len(spec.multipliers)) if 2**level in spec.attention]
    levels = [-1, *(each.bit_length() - 1 for each in reached)]  # the middle has the width of the last
    attending = [spec.channels * spec.multipliers[level] for level in levels]
    assert all(again.heads_at(width) == spec.heads_at(width) for width in attending)
    same = {"heads": again.heads, "head_channels": again.head_channels, "attention": tuple(reached), "recompute": False}
    assert again == spec.model_copy(update=same)


@pytest.mark.parametrize("name", STAGES)
def test_first_stages_of_the_paper(name: str) -> None:
    spec = recipe(name).first_stage.model
    assert isinstance(spec, AutoencoderSpec)
    config = first_stage_config(spec, size=256, scale=0.5)
    shapes = {key: tuple(value.shape) for key, value in built(config).state_dict().items()}
    assert shapes == {entry.original: entry.shape for entry in first_stage_table(spec).entries}
    assert first_stage_spec(config, where="config.json") == (spec, 0.5)


SCHEDULES: list[ScheduleSpec] = [
    LinearSpec(steps=50),
    TrueLinearSpec(steps=50),
    CosineSpec(steps=50),
    LinearSpec(steps=50, zero_terminal_snr=True),
    CosineSpec(steps=50, s=0.02),
    TableSpec(powers=(0.9, 0.5, 0.1)),
]


@pytest.mark.parametrize("spec", SCHEDULES, ids=lambda spec: spec.kind)
def test_noise_levels(spec: ScheduleSpec) -> None:
    config = scheduler_config(spec, "v")
    theirs = diffusers.DDIMScheduler.from_config(config).alphas_cumprod
    ours = build_schedule(spec)
    assert isinstance(ours, DiscreteSchedule)
    torch.testing.assert_close(theirs.double(), ours.alphas_cumprod[:-1], rtol=2e-4, atol=1e-6)
    again, prediction = schedule_spec(config, where="scheduler_config.json")
    assert prediction == "v"
    same = build_schedule(again)
    assert isinstance(same, DiscreteSchedule)
    torch.testing.assert_close(same.alphas_cumprod, ours.alphas_cumprod, rtol=1e-9, atol=1e-12)


def test_flow_has_no_such_scheduler() -> None:
    with pytest.raises(ModelFileError, match="no DDIMScheduler for the schedule 'flow'"):
        scheduler_config(FlowSpec(), "v")
    with pytest.raises(ModelFileError, match="no DDIMScheduler for the prediction 'velocity'"):
        scheduler_config(LinearSpec(), "velocity")


UNET: dict[str, Any] = unet_config(UNetSpec(in_channels=3, out_channels=3, channels=32, multipliers=(1, 2)), size=8)
CROSS: dict[str, Any] = unet_config(
    UNetSpec(
        in_channels=3, out_channels=3, channels=32, multipliers=(1, 2), heads=4, transformer_depth=1, context_width=8
    ),
    size=8,
)
REFUSED = {
    "fourier": ({**UNET, "time_embedding_type": "fourier"}, "time_embedding_type 'fourier' is not supported"),
    "mirror": ({**UNET, "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}, "do not mirror each other"),
    "kind": ({**UNET, "down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "type 'SkipDownBlock2D'"),
    "count": ({**UNET, "down_block_types": ["DownBlock2D"]}, "must name 2 levels"),
    "widths": ({**UNET, "block_out_channels": [32, 48]}, "must be multiples of the first"),
    "later": ({**UNET, "something_new": 3}, "something_new '3' is not supported"),
    "depths": ({**CROSS, "transformer_layers_per_block": [1, 2]}, "differs between levels"),
    "heads": ({**CROSS, "attention_head_dim": [3, 4]}, "neither as many nor as wide"),
    "pooling": ({**UNET, "downsample_type": "resnet", "upsample_type": "conv"}, "in different ways"),
    "middle": ({**CROSS, "mid_block_type": "UNetMidBlock2D"}, "mid_block_type 'UNetMidBlock2D' is not supported"),
    "plain middle": ({**UNET, "resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups 'None'"),
    "plain in cross": (
        {
            **CROSS,
            "down_block_types": ["AttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "AttnUpBlock2D"],
        },
        "type 'AttnDownBlock2D' is not supported",
    ),
    "way": ({**UNET, "downsample_type": "k", "upsample_type": "k"}, "downsample_type 'k' is not supported"),
    "shift": ({**UNET, "resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift 'spatial' is not supported"),
    "classes": ({**UNET, "num_class_embeds": 5}, "num_class_embeds '5' is not supported"),
    "added": ({**CROSS, "addition_embed_type": "text_time"}, "addition_embed_type 'text_time'"),
}


def test_other_groups_of_norms_come_back() -> None:
    sizes = {"in_channels": 3, "out_channels": 3, "channels": 32, "multipliers": (1, 2), "heads": 1}
    spec = UNetSpec(**sizes, norm_groups=8, scale_shift=True)
    assert unet_spec(unet_config(spec, size=8), where="config.json") == spec


@pytest.mark.parametrize("name", REFUSED)
def test_what_we_do_not_have_is_refused_by_name(name: str) -> None:
    config, message = REFUSED[name]
    with pytest.raises(ModelFileError, match=f"config.json: .*{message}"):
        unet_spec(config, where="config.json")

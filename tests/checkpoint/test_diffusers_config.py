"""Configurations of diffusers: read, written, and understood by diffusers itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.autoencoder.bottleneck import VQSpec
from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.diffusers_config import (
    first_stage_config,
    first_stage_spec,
    unet_config,
    unet_spec,
)
from darkroom.checkpoint.diffusers_files import read_object
from darkroom.checkpoint.diffusers_keys import first_stage_table, unet_table
from darkroom.checkpoint.diffusers_schedule import SCHEDULERS, read_scheduler, schedule_spec, scheduler_config
from darkroom.checkpoint.diffusers_text import bert_config, bert_spec
from darkroom.conditioning.text import SequenceEncoderSpec
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
from darkroom.process.times import trailing
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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_noise_levels_of_every_scheduler(name: str) -> None:
    """With all that it says, and with what it leaves to its defaults."""
    made = getattr(diffusers, name)()
    config = {"_class_name": name, **{key: value for key, value in made.config.items() if key[0] != "_"}}
    for said in (config, {"_class_name": name}):
        ours = build_schedule(read_scheduler(said, where="scheduler_config.json")[0])
        assert isinstance(ours, DiscreteSchedule)
        torch.testing.assert_close(made.alphas_cumprod.double(), ours.alphas_cumprod[:-1], rtol=2e-4, atol=1e-6)


def test_trailing_times_are_theirs() -> None:
    """At every count; of some theirs has one time more at the end, below the first of all."""
    theirs, ours = diffusers.DDIMScheduler(timestep_spacing="trailing"), build_schedule(LinearSpec())
    for steps in range(1, 1001):
        theirs.set_timesteps(steps)
        assert theirs.timesteps[:steps].tolist() == trailing(ours, steps).visited.tolist()
        assert theirs.timesteps[steps:].tolist() in ([], [-1])


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
    "classes": ({**UNET, "class_embed_type": "timestep"}, "class_embed_type 'timestep' is not supported"),
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


STAGE: dict[str, Any] = first_stage_config(AutoencoderSpec(channels=32, multipliers=(1, 2)), size=16, scale=0.5)
VQ: dict[str, Any] = {**STAGE, "_class_name": "VQModel", "num_vq_embeddings": 8, "vq_embed_dim": 3}
STEPS: dict[str, Any] = scheduler_config(LinearSpec(steps=20), "eps") | {"trained_betas": None, "thresholding": False}
BERT: dict[str, Any] = bert_config(SequenceEncoderSpec(vocabulary=9, length=77, width=8, depth=1))
READERS: dict[str, tuple[dict[str, Any], Callable[..., object]]] = {
    "unet": (UNET, unet_spec),
    "cross": (CROSS, unet_spec),
    "kl": (STAGE, first_stage_spec),
    "vq": (VQ, first_stage_spec),
    "scheduler": (STEPS, read_scheduler),
    "bert": (BERT, bert_spec),
}
WRONG: list[Any] = [
    None,
    True,
    -1,
    0,
    2**70,
    1.5,
    float("nan"),
    float("inf"),
    "x" * 2000,
    "",
    [],
    [[]],
    {},
    {"a": 1},
    [1] * 50,
    [None, "x"],
]


@pytest.mark.parametrize("name", READERS)
def test_any_value_is_read_or_refused_in_a_sentence(name: str) -> None:
    config, reader = READERS[name]
    reader(config, where="config.json")
    sentences: list[str] = []
    for key in config:
        for value in WRONG:
            try:
                reader({**config, key: value}, where="config.json")
            except ModelFileError as error:
                sentences.append(str(error))
    assert len(sentences) > 20
    assert all(each.startswith("config.json: ") and "\n" not in each and len(each) < 600 for each in sentences)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_configurations_that_diffusers_itself_writes(tmp_path: Path) -> None:
    small = {"block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 8}
    crossed = {name: CROSS[name] for name in ("down_block_types", "up_block_types", "cross_attention_dim")}
    made = {
        "plain": diffusers.UNet2DModel(
            **small, down_block_types=UNET["down_block_types"], up_block_types=UNET["up_block_types"]
        ),
        "cross": diffusers.UNet2DConditionModel(**small, **crossed, attention_head_dim=4),
        "kl": diffusers.AutoencoderKL(),
        "vq": diffusers.VQModel(),
    }
    sizes = {"channels": 32, "multipliers": (1, 2), "blocks": 1}
    meant: dict[str, Any] = {
        "plain": UNetSpec(in_channels=3, out_channels=3, head_channels=8, **sizes),
        "cross": UNetSpec(in_channels=4, out_channels=4, heads=4, transformer_depth=1, context_width=8, **sizes),
        "kl": (AutoencoderSpec(channels=64, multipliers=(1,), blocks=1, latent_channels=4), 0.18215),
        "vq": (
            AutoencoderSpec(channels=64, multipliers=(1,), blocks=1, latent_channels=3, bottleneck=VQSpec(codes=256)),
            0.18215,
        ),
    }
    for name, model in made.items():
        model.save_config(tmp_path / name)
        config = read_object(tmp_path / name / "config.json")
        reader = unet_spec if name in ("plain", "cross") else first_stage_spec
        assert reader(config, where=name) == meant[name]
    for name in SCHEDULERS:
        getattr(diffusers, name)().save_config(tmp_path / name)
        found, prediction, _ = read_scheduler(read_object(tmp_path / name / "scheduler_config.json"), where=name)
        assert (found, prediction) == (TrueLinearSpec(start=1e-4, end=2e-2), "eps")

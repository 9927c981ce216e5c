"""Our specs as original configurations: read again they mean the same, and what has no words is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.autoencoder.model import AutoencoderSpec, PixelsSpec
from darkroom.checkpoint.ramp import nearest_ramp
from darkroom.checkpoint.to_compvis import original_config
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import ModelSpec
from darkroom.process.objective import NoisiestTimeSpec, ObjectiveSpec
from darkroom.process.schedule import (
    CosineSpec,
    DiscreteSchedule,
    FlowSpec,
    LinearSpec,
    ScheduleSpec,
    SqrtSpec,
    TableSpec,
    TrueLinearSpec,
    build_schedule,
)
from darkroom.recipes.read import groups, recipe
from originals import CONFIGS, HYBRID, described

CASES = {**{name: each[0] for name, each in CONFIGS.items()}, "hybrid": HYBRID}


@pytest.mark.parametrize("name", CASES)
def test_what_was_read_is_written_and_read_again(name: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    first = described(tmp_path / "one", CASES[name])
    made = original_config(first.spec, bert=first.bert, fused_by_head=first.fused_by_head)
    again = described(tmp_path / "other", made)
    assert again.spec == first.spec
    assert again.fused_by_head == first.fused_by_head
    assert again.bert == (first.bert and "caption" in getattr(first.spec, "fields", ()))  # a layout has no words


PAPER = [name for group, found in groups().items() if "paper" in group or "ladder" in group for name in found]


@pytest.mark.parametrize("name", PAPER)
def test_recipes_of_the_paper_in_the_words_of_the_original(name: str, tmp_path: Path) -> None:
    made = recipe(name)
    spec = made.model_spec() or made.first_stage.model
    again = described(tmp_path, original_config(spec, bert=True)).spec
    if isinstance(spec, AutoencoderSpec):
        assert again == spec
        return
    assert isinstance(again, ModelSpec)
    # what only trains is the recipe's own, and what a file cannot say of its conditioners is guessed
    network = spec.network.model_copy(update={"attention": tuple(sorted(spec.network.attention, reverse=True))})
    assert again.network == network
    for part in ("image_size", "first_stage", "schedule", "prediction", "scale"):
        assert getattr(again, part) == getattr(spec, part), part
    assert again.fields == spec.fields


def spec_of(**changes: Any) -> ModelSpec:
    made = recipe("celeba256").model_spec()
    assert made is not None
    return made.model_copy(update=changes)


def network_of(**changes: Any) -> ModelSpec:
    return spec_of(network=spec_of().network.model_copy(update=changes))


def stage_of(**changes: Any) -> ModelSpec:
    return spec_of(first_stage=spec_of().first_stage.model_copy(update=changes))


RAMPS = [LinearSpec(start=a, end=b) for a, b in ((0.0015, 0.0195), (0.0015, 0.0205), (0.00085, 0.012), (1e-4, 2e-2))]
RAMPS += [TrueLinearSpec(start=0.0015, end=0.0155), SqrtSpec(start=1e-6, end=1e-4), LinearSpec(steps=50)]


def table(schedule: ScheduleSpec, dtype: torch.dtype) -> TableSpec:
    built = build_schedule(schedule)
    assert isinstance(built, DiscreteSchedule)
    return TableSpec(powers=tuple(built.alphas_cumprod[:-1].float().to(dtype).tolist()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_rounded_table_is_the_ramp_that_it_was(dtype: torch.dtype) -> None:
    for ramp in RAMPS:
        assert nearest_ramp(table(ramp, dtype)) == (ramp, 0.0)


def test_a_table_that_is_no_ramp_has_a_nearest_one() -> None:
    """How far off is measured on the powers themselves: no other ramp that was tried is nearer."""
    own = table(CosineSpec(steps=40), torch.float64)
    ramp, off = nearest_ramp(own)
    near = torch.tensor(table(ramp, torch.float32).powers)
    assert (near - torch.tensor(own.powers)).abs().max().item() == pytest.approx(off, abs=1e-6)
    assert 0.01 < off < 0.3
    bent = table(LinearSpec(steps=40), torch.float32).plain()
    bent["powers"][20] *= 1 - 1e-4
    ramp, off = nearest_ramp(TableSpec(**bent))
    assert (ramp.start, ramp.end) == (pytest.approx(0.0015, rel=1e-2), pytest.approx(0.0195, rel=1e-2))
    assert off == pytest.approx(1e-4 * bent["powers"][20], rel=0.1)


REFUSED = {
    "flow": (spec_of(schedule=FlowSpec()), "the schedule 'flow'"),
    "terminal": (spec_of(schedule=LinearSpec(zero_terminal_snr=True)), "zero terminal SNR"),
    "terminal table": (spec_of(schedule=TableSpec(powers=(0.5, 0.0))), "zero terminal SNR"),
    "regression": (spec_of(objective=ObjectiveSpec(times=NoisiestTimeSpec())), "a regression"),
    "velocity": (spec_of(prediction="velocity"), "prediction 'velocity'"),
    "waves": (network_of(places="waves"), "waves"),
    "groups": (network_of(norm_groups=16), "norms of 16 groups"),
    "time": (network_of(time_scale=1000.0), "a factor on times"),
    "no tokens": (network_of(transformer_depth=1), "spatial transformers without tokens"),
    "stem": (stage_of(stem="patch2"), "the stem 'patch2'"),
    "shortcut": (stage_of(shortcut="linear"), "a shortcut"),
    "middle": (stage_of(attention=(4,), middle_attention=False), "attention in levels but not in the middle"),
    "squares": (spec_of(first_stage=PixelsSpec(patch=2)), "squares of pixels"),
    "patched map": (spec_of(conditioners=(MapSpec(classes=3, channels=2, halvings=0, patch=4),)), "its map enters"),
    "guess": (spec_of(conditioners=(LowResSpec(guesses=3),)), "its low_res enters"),
    "smooth": (spec_of(conditioners=(MaskedSpec(channels=4, fill="smooth"),)), "its masked enters"),
    "null vector": (spec_of(conditioners=(ClassSpec(classes=3, width=8, null=3, port="vector"),)), "its label enters"),
    "two planes": (
        spec_of(conditioners=(LowResSpec(), MapSpec(classes=3, channels=2, halvings=2))),
        "a model steered by low_res and map together",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_words_is_refused(name: str) -> None:
    spec, message = REFUSED[name]
    with pytest.raises(ModelFileError, match=f"no words for .*{message}"):
        original_config(spec)

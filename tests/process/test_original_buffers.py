"""Schedules against the numbers that the original code computed (the twelve buffers and lvlb_weights)."""

import json

import pytest
import torch
from safetensors.torch import load_file

from darkroom.core.spec import parse
from darkroom.process.schedule import (
    CosineSpec,
    DiscreteSchedule,
    LinearSpec,
    SqrtSpec,
    TrueLinearSpec,
    build_schedule,
    original_buffers,
)

NAMES = [
    "linear_default",
    "linear_ldm",
    "linear_sd",
    "cosine",
    "cosine_T50_s02",
    "sqrt_linear",
    "sqrt",
    "linear_v03",
    "linear_x0",
]
KINDS = {"linear": LinearSpec, "cosine": CosineSpec, "sqrt_linear": TrueLinearSpec, "sqrt": SqrtSpec}


def schedule_of(settings: dict) -> DiscreteSchedule:
    kind = KINDS[settings["beta_schedule"]]
    data = {"steps": settings["timesteps"]}
    if kind is CosineSpec:
        data["s"] = settings.get("cosine_s", 8e-3)
    else:
        data |= {"start": settings.get("linear_start", 1e-4), "end": settings.get("linear_end", 2e-2)}
    schedule = build_schedule(parse(kind, data, where="test"))
    assert isinstance(schedule, DiscreteSchedule)
    return schedule


@pytest.mark.parametrize("name", NAMES)
def test_buffers_are_the_originals(parity, name):
    folder = parity / "s_schedules"
    settings = json.loads((folder / "meta.json").read_text())["schedules"][name]
    stored = {
        key.removeprefix(f"{name}."): value
        for key, value in load_file(folder / "io.safetensors").items()
        if key.startswith(f"{name}.") and "ddim" not in key
    }
    assert len(stored) == 13
    ours = original_buffers(
        schedule_of(settings),
        v_posterior=settings["v_posterior"],
        parameterization=settings["parameterization"],
    )
    assert ours.keys() == stored.keys()
    for key, value in stored.items():
        relative = 1e-4 if key == "lvlb_weights" else 2e-6
        torch.testing.assert_close(
            ours[key], value.double(), rtol=relative, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}"
        )

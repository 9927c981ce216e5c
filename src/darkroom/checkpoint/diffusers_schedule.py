"""Schedulers of diffusers (scheduler_config.json) <-> our schedules and predictions."""

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from darkroom.checkpoint.diffusers_config import Plain, read_options
from darkroom.checkpoint.read_spec import parsed
from darkroom.core.errors import ModelFileError
from darkroom.core.spec import Spec
from darkroom.process.prediction import PredictionName
from darkroom.process.schedule import (
    CosineSpec,
    DiscreteSchedule,
    LinearSpec,
    ScheduleSpec,
    TableSpec,
    TrueLinearSpec,
    build_schedule,
)

SCHEDULERS: Final = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
)
PREDICTIONS: Final[dict[str, PredictionName]] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


class SchedulerConfig(Spec):
    """What is read of a scheduler: noise levels and prediction, and whether it bounds x0, which is not done here."""

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    beta_schedule: str = "linear"
    trained_betas: Annotated[tuple[float, ...], Field(max_length=1_000_000)] | None = None
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool = False
    clip_sample: bool | None = None
    thresholding: bool = False


def read_scheduler(config: Mapping[str, Any], *, where: str) -> tuple[ScheduleSpec, PredictionName, tuple[str, ...]]:
    """Noise levels and prediction, and sentences about what its steps would do beyond those.

    `ModelFileError` for another class than `SCHEDULERS`, and for what is not one of our schedules.
    """
    family = config.get("_class_name")
    if family not in SCHEDULERS:
        raise ModelFileError(f"{where}: a scheduler {str(family)[:60]!r} is not read; {', '.join(SCHEDULERS)} are")
    schedule, prediction = schedule_spec(config, where=where)
    found = read_options(SchedulerConfig, config, where=where)
    clips = family in ("DDIMScheduler", "DDPMScheduler") if found.clip_sample is None else found.clip_sample
    odd = {
        "its scheduler clips x0 to [-1, 1] at every step, which is not done here": clips,
        "its scheduler bounds x0 by a threshold at every step, which is not done here": found.thresholding,
    }
    return schedule, prediction, tuple(sentence for sentence, so in odd.items() if so)


def schedule_spec(config: Mapping[str, Any], *, where: str) -> tuple[ScheduleSpec, PredictionName]:
    """Noise levels and prediction of a scheduler's configuration; how it steps is not in them."""
    found = read_options(SchedulerConfig, config, where=where)
    said = found.prediction_type
    if said not in PREDICTIONS:
        raise ModelFileError(f"{where}: prediction_type {said[:40]!r} is unknown; {', '.join(PREDICTIONS)} fit")
    steps = {"steps": found.num_train_timesteps, "zero_terminal_snr": found.rescale_betas_zero_snr}
    ramp = {"start": found.beta_start, "end": found.beta_end, **steps}
    if found.trained_betas is not None:
        powers = itertools.accumulate(found.trained_betas, lambda power, beta: power * (1 - beta), initial=1.0)
        return parsed(TableSpec, {"powers": tuple(powers)[1:]}, where=where), PREDICTIONS[said]
    match found.beta_schedule:
        case "scaled_linear":
            made = parsed(LinearSpec, ramp, where=where)
        case "linear":
            made = parsed(TrueLinearSpec, ramp, where=where)
        case "squaredcos_cap_v2":
            made = parsed(CosineSpec, steps, where=where)
        case _:
            raise ModelFileError(f"{where}: beta_schedule {found.beta_schedule[:40]!r} is not supported")
    return made, PREDICTIONS[said]


def scheduler_config(schedule: ScheduleSpec, prediction: PredictionName) -> Plain:
    """scheduler_config.json of a DDIMScheduler with these noise levels, stepping as the original does."""
    words = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if prediction not in words:
        raise ModelFileError(f"diffusers has no DDIMScheduler for the prediction {prediction!r}")
    config: Plain = {
        "_class_name": "DDIMScheduler",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "prediction_type": words[prediction],
    }
    built = build_schedule(schedule)
    if not isinstance(built, DiscreteSchedule):
        raise ModelFileError(f"diffusers has no DDIMScheduler for the schedule {schedule.kind!r}")
    config["num_train_timesteps"] = built.steps
    match schedule:
        case LinearSpec() | TrueLinearSpec():
            kind = "scaled_linear" if isinstance(schedule, LinearSpec) else "linear"
            ramp = {"beta_schedule": kind, "beta_start": schedule.start, "beta_end": schedule.end}
            return config | ramp | {"rescale_betas_zero_snr": schedule.zero_terminal_snr}
        case CosineSpec() if math.isclose(schedule.s, 0.008):
            return config | {"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": schedule.zero_terminal_snr}
        case _:
            return config | {"trained_betas": built.betas.tolist()}

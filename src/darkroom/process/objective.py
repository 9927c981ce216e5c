"""What training minimises: the error, its weight over time, log-variance and variational term."""

from typing import Annotated, Literal, TypeAlias, final

import torch
from einops import rearrange
from pydantic import Field

from darkroom.core.errors import SpecError
from darkroom.core.shapes import Latent, PerSample, Time
from darkroom.core.spec import Spec
from darkroom.process.prediction import Prediction
from darkroom.process.schedule import DiscreteSchedule, Schedule, original_buffers


@final
class UniformSpec(Spec):
    """Every time counts alike, in the units of the prediction."""

    kind: Literal["uniform"] = "uniform"


@final
class MinSnrSpec(Spec):
    """min(SNR, gamma) on the squared error of x0, whatever is predicted (Hang et al. 2023)."""

    kind: Literal["min-snr"] = "min-snr"
    gamma: float = Field(default=5.0, gt=0)


WeightingSpec: TypeAlias = Annotated[UniformSpec | MinSnrSpec, Field(discriminator="kind")]


@final
class ObjectiveSpec(Spec):
    """The diffusion loss: (w error / exp(s_t) + s_t) simple_weight + variational_weight lvlb_t error.

    error: mean of |difference| (l1) or of its square (l2) over c, h, w · s_t: log-variance of a time, learnt
    when `learn_log_variance`, else `log_variance_init` · lvlb_t: the original's variational weights.
    """

    loss: Literal["l1", "l2"] = "l2"
    weighting: WeightingSpec = UniformSpec()
    learn_log_variance: bool = False
    log_variance_init: float = 0.0
    simple_weight: float = Field(default=1.0, ge=0)
    variational_weight: float = Field(default=0.0, ge=0)


def check_objective(objective: ObjectiveSpec, *, schedule: Schedule, prediction: Prediction) -> None:
    """`SpecError` when the objective asks for what the schedule or prediction does not have."""
    discrete = isinstance(schedule, DiscreteSchedule)
    if objective.learn_log_variance and not discrete:
        raise SpecError("learn_log_variance keeps one number per time and so needs a discrete schedule")
    if objective.variational_weight > 0 and not (discrete and prediction.name in ("eps", "x0")):
        raise SpecError(
            "variational_weight is defined for a discrete schedule with prediction 'eps' or 'x0', "
            f"not for {prediction.name!r} here; set it to 0"
        )


def error(output: Latent, target: Latent, *, loss: Literal["l1", "l2"]) -> PerSample:
    """The mean over c, h, w of the absolute (l1) or squared (l2) difference, in float32 at least."""
    wide = torch.promote_types(output.dtype, torch.float32)
    difference = output.to(wide) - target.to(wide)
    match loss:
        case "l1":
            values = difference.abs()
        case "l2":
            values = difference.square()
    return values.mean(dim=(1, 2, 3))


def weight(
    weighting: UniformSpec | MinSnrSpec, *, schedule: Schedule, prediction: Prediction, t: Time, like: Latent
) -> PerSample:
    """The factor of each sample's error.

    min-SNR: min(snr, gamma) |d x0 / d output|^2, which is min(snr, gamma) / snr for eps, min(snr, gamma)
    for x0 and min(snr, gamma) / (snr + 1) for v.
    """
    alpha, sigma = rearrange(schedule.alpha(t), "b -> b 1 1 1"), rearrange(schedule.sigma(t), "b -> b 1 1 1")
    match weighting:
        case UniformSpec():
            factor = torch.ones_like(alpha)
        case MinSnrSpec():
            snr = (alpha / sigma) ** 2
            factor = snr.clamp(max=weighting.gamma) * prediction.sensitivity(alpha=alpha, sigma=sigma) ** 2
    wide = torch.promote_types(like.dtype, torch.float32)
    return rearrange(factor, "b 1 1 1 -> b").to(like.device, wide)


def variational_weight(schedule: DiscreteSchedule, prediction: Prediction, *, t: Time) -> PerSample:
    """The original's lvlb weight of each sample's time, float64 on the CPU; `SpecError` unless eps or x0."""
    match prediction.name:
        case "eps" | "x0":
            table = original_buffers(schedule, parameterization=prediction.name)["lvlb_weights"]
            return table[t.cpu().long()]
        case "v" | "velocity":
            raise SpecError(f"variational weights are not defined for prediction {prediction.name!r}")

"""What training minimises: the error, the times it is drawn at, its weight there, log-variance and variational term."""

from typing import Annotated, ClassVar, Literal, TypeAlias, final

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

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


@final
class UniformTimesSpec(Spec):
    """Every time is drawn alike."""

    kind: Literal["uniform"] = "uniform"


@final
class ShiftedTimesSpec(Spec):
    """Noisy times are drawn more often: factor u / (1 + (factor - 1) u) of the way to noise for uniform u.

    Half of the draws lie beyond factor / (1 + factor) of the way. Source: Esser et al. 2024, eq. 23.
    """

    kind: Literal["shifted"] = "shifted"
    factor: float = Field(default=3.0, gt=0)


@final
class LogitNormalTimesSpec(Spec):
    """Times around a middle are drawn more often: the logit of the way to noise is normal.

    Half of the draws lie beyond 1 / (1 + exp(-mean)) of the way; 0 and 1 of a uniform draw are both ends. Source: Esser
    et al. 2024, eq. 19.
    """

    kind: Literal["logit-normal"] = "logit-normal"
    mean: float = Field(default=0.0, ge=-10, le=10)
    deviation: float = Field(default=1.0, gt=0, le=10)


@final
class NoisiestTimeSpec(Spec):
    """Always the time of pure noise: a regression, the paper's baseline for super-resolution (section 4.4, Tab. 5).

    There x_t says nothing of x0, so the mean picture of a condition is learnt. x_t is set to zero, for noise would only
    be in the way; one step draws a picture, and every seed the same.
    """

    kind: Literal["noisiest"] = "noisiest"


WeightingSpec: TypeAlias = Annotated[UniformSpec | MinSnrSpec, Field(discriminator="kind")]
TimesSpec: TypeAlias = Annotated[
    UniformTimesSpec | ShiftedTimesSpec | LogitNormalTimesSpec | NoisiestTimeSpec, Field(discriminator="kind")
]


@final
class ObjectiveSpec(Spec):
    """The diffusion loss: (w error / exp(s_t) + s_t) simple_weight + variational_weight lvlb_t error.

    error: mean of |difference| (l1) or of its square (l2) over c, h, w · s_t: log-variance of a time, learnt
    when `learn_log_variance`, else `log_variance_init` · lvlb_t: the original's variational weights ·
    times: how t is drawn in training.
    """

    written_where_used: ClassVar = frozenset({"times"})

    loss: Literal["l1", "l2"] = "l2"
    weighting: WeightingSpec = UniformSpec()
    times: TimesSpec = UniformTimesSpec()
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


def way_to_noise(times: TimesSpec, share: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """How far each training time lies on the way from clean data (0) to noise (1), for uniform draws in [0, 1]."""
    match times:
        case UniformTimesSpec():
            return share
        case ShiftedTimesSpec(factor=factor):
            return factor * share / (1 + (factor - 1) * share)
        case LogitNormalTimesSpec(mean=mean, deviation=deviation):
            return torch.sigmoid(mean + deviation * torch.special.ndtri(share))
        case NoisiestTimeSpec():
            return torch.ones_like(share)


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
    wide = torch.promote_types(like.dtype, torch.float32)
    match weighting:
        case UniformSpec():
            return like.new_ones(len(like), dtype=wide)
        case MinSnrSpec(gamma=gamma):
            alpha, sigma = (rearrange(each(t), "b -> b 1 1 1") for each in (schedule.alpha, schedule.sigma))
            factor = ((alpha / sigma) ** 2).clamp(max=gamma) * prediction.sensitivity(alpha=alpha, sigma=sigma) ** 2
            return rearrange(factor, "b 1 1 1 -> b").to(like.device, wide)


def variational_weight(schedule: DiscreteSchedule, prediction: Prediction, *, t: Time) -> PerSample:
    """The original's lvlb weight of each sample's time, float64 on the CPU; `SpecError` unless eps or x0."""
    match prediction.name:
        case "eps" | "x0":
            table = original_buffers(schedule, parameterization=prediction.name)["lvlb_weights"]
            return table[t.cpu().long()]
        case "v" | "velocity":
            raise SpecError(f"variational weights are not defined for prediction {prediction.name!r}")

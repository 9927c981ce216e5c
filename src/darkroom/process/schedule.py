"""Noise schedules: x_t = alpha(t) x0 + sigma(t) eps, by discrete tables or by continuous curves.

A discrete schedule has times 0 .. T-1 and one more, `clean` = -1, where alpha = 1 and sigma = 0. A continuous
one has times 0 (clean) to 1. Every answer is float64 on the CPU, also under another
default device (models are built on meta): a few numbers, rounded once, by the user.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, TypeAlias, final, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, Float64, Int
from pydantic import Field, model_validator
from torch import Tensor

from darkroom.core.errors import InputError, SpecError
from darkroom.core.shapes import Latent, Time
from darkroom.core.spec import Spec

AnyTime: TypeAlias = Float[Tensor, "*shape"] | Int[Tensor, "*shape"]
Level: TypeAlias = Float64[Tensor, "*shape"]
Table: TypeAlias = Float64[Tensor, " t"]
Coefficient: TypeAlias = Float[Tensor, "b 1 1 1"]


@runtime_checkable
class Schedule(Protocol):
    """How much picture and how much noise there is at a time."""

    @property
    def steps(self) -> int | None:
        """The number of times T, or None when time is continuous."""
        ...

    @property
    def clean(self) -> int | float:
        """The time at which alpha = 1 and sigma = 0; never visited by a network."""
        ...

    @property
    def noisiest(self) -> int | float:
        """The latest time, where sampling starts."""
        ...

    def alpha(self, t: AnyTime) -> Level:
        """The amplitude of the picture, float64 on the CPU, of the shape of t."""
        ...

    def sigma(self, t: AnyTime) -> Level:
        """The amplitude of the noise, float64 on the CPU, of the shape of t."""
        ...


@final
@dataclass(frozen=True, eq=False)
class DiscreteSchedule:
    """A variance-preserving table over t = 0 .. T-1 built from its betas (Ho et al. 2020, eq. 2-4)."""

    betas: Table

    @property
    def steps(self) -> int:
        return len(self.betas)

    @property
    def clean(self) -> int:
        return -1

    @property
    def noisiest(self) -> int:
        return len(self.betas) - 1

    @functools.cached_property
    def alphas_cumprod(self) -> Table:
        """The signal power for t = 0 .. T-1, and 1 at index T, which is index -1: the clean time."""
        power = torch.cumprod(1 - self.betas, dim=0)
        return torch.cat([power, torch.ones(1, dtype=torch.float64, device="cpu")])

    def alpha(self, t: AnyTime) -> Level:
        return self._power(t).sqrt()

    def sigma(self, t: AnyTime) -> Level:
        return (1 - self._power(t)).sqrt()

    def _power(self, t: AnyTime) -> Level:
        """The signal power; `InputError` for a time that is none, for T would read as clean and -2 as pure noise."""
        places = t.cpu().long()
        if places.numel() and not self.clean <= int(places.min()) <= int(places.max()) <= self.noisiest:
            wrong = int(places.min()) if int(places.min()) < self.clean else int(places.max())
            raise InputError(f"time {wrong} lies outside {self.clean} (clean) to {self.noisiest} (noisiest)")
        return self.alphas_cumprod[places]


@final
@dataclass(frozen=True)
class FlowSchedule:
    """The straight path of rectified flow: alpha = 1 - t, sigma = t (Liu et al. 2022, eq. 1)."""

    @property
    def steps(self) -> None:
        return None

    @property
    def clean(self) -> float:
        return 0.0

    @property
    def noisiest(self) -> float:
        return 1.0

    def alpha(self, t: AnyTime) -> Level:
        return 1 - t.to("cpu", torch.float64)

    def sigma(self, t: AnyTime) -> Level:
        return t.to("cpu", torch.float64, copy=True)


@final
@dataclass(frozen=True)
class CosineFlowSchedule:
    """A quarter turn: alpha = cos(pi t / 2), sigma = sin(pi t / 2), exactly 0 and 1 at both ends."""

    @property
    def steps(self) -> None:
        return None

    @property
    def clean(self) -> float:
        return 0.0

    @property
    def noisiest(self) -> float:
        return 1.0

    def alpha(self, t: AnyTime) -> Level:
        return torch.sin((1 - t.to("cpu", torch.float64)) * (math.pi / 2))  # cos would leave 6e-17 at t = 1

    def sigma(self, t: AnyTime) -> Level:
        return torch.sin(t.to("cpu", torch.float64) * (math.pi / 2))


class _DiscreteSpec(Spec):
    steps: int = Field(default=1000, ge=1, le=1_000_000)
    zero_terminal_snr: bool = False


class _RampSpec(_DiscreteSpec):
    start: float = Field(default=0.0015, gt=0, lt=1)
    end: float = Field(default=0.0195, gt=0, lt=1)

    @model_validator(mode="after")
    def _rises(self) -> "_RampSpec":
        if self.start > self.end:
            raise ValueError(f"start {self.start} is above end {self.end}; noise must not shrink with time")
        return self


@final
class LinearSpec(_RampSpec):
    """The original's "linear": betas are squares of evenly spaced numbers from sqrt(start) to sqrt(end)."""

    kind: Literal["linear"] = "linear"


@final
class TrueLinearSpec(_RampSpec):
    """Evenly spaced betas (the original calls it sqrt_linear)."""

    kind: Literal["true-linear"] = "true-linear"


@final
class SqrtSpec(_RampSpec):
    """Betas are square roots of evenly spaced numbers from start to end."""

    kind: Literal["sqrt"] = "sqrt"


@final
class CosineSpec(_DiscreteSpec):
    """The squared cosine of Nichol & Dhariwal 2021 (eq. 17), betas at most 0.999."""

    kind: Literal["cosine"] = "cosine"
    s: float = Field(default=8e-3, ge=0)


@final
class TableSpec(Spec):
    """Signal powers (alphas_cumprod) for t = 0 .. T-1, one by one, as a loaded checkpoint holds them."""

    kind: Literal["table"] = "table"
    powers: tuple[float, ...] = Field(min_length=1, max_length=1_000_000)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.powers)

    @model_validator(mode="after")
    def _falls(self) -> "TableSpec":
        path = (1.0, *self.powers)
        if not all(0 <= later <= earlier for earlier, later in itertools.pairwise(path)):
            raise ValueError("signal powers must fall from at most 1 to at least 0")
        if 0.0 in self.powers[:-1]:
            raise ValueError("only the last signal power may be 0")
        return self


@final
class FlowSpec(Spec):
    """Rectified flow, continuous time."""

    kind: Literal["flow"] = "flow"


@final
class CosineFlowSpec(Spec):
    """Variance-preserving quarter turn, continuous time."""

    kind: Literal["cosine-flow"] = "cosine-flow"


ScheduleSpec: TypeAlias = Annotated[
    LinearSpec | CosineSpec | TrueLinearSpec | SqrtSpec | TableSpec | FlowSpec | CosineFlowSpec,
    Field(discriminator="kind"),
]


def build_schedule(spec: ScheduleSpec) -> Schedule:
    """The schedule that a spec describes; `SpecError` for one whose first time is clean, where no step begins."""
    match spec:
        case FlowSpec():
            return FlowSchedule()
        case CosineFlowSpec():
            return CosineFlowSchedule()
        case _:
            betas = _betas(spec)
    if not 1 - betas[0] < 1:  # as float64 has it
        raise SpecError(
            f"the schedule has no noise at its first time (beta {float(betas[0]):g}), so that nothing can be learnt or "
            "sampled there; let it begin with more"
        )
    return DiscreteSchedule(betas)


def _betas(spec: LinearSpec | CosineSpec | TrueLinearSpec | SqrtSpec | TableSpec) -> Table:
    match spec:
        case TableSpec():
            path = torch.tensor([1.0, *spec.powers], dtype=torch.float64, device="cpu")
            return 1 - path[1:] / path[:-1]
        case LinearSpec():
            betas = _ramp(math.sqrt(spec.start), math.sqrt(spec.end), steps=spec.steps) ** 2
        case TrueLinearSpec():
            betas = _ramp(spec.start, spec.end, steps=spec.steps)
        case SqrtSpec():
            betas = _ramp(spec.start, spec.end, steps=spec.steps).sqrt()
        case CosineSpec():
            betas = _cosine_betas(spec.steps, s=spec.s)
    return zero_terminal(betas) if spec.zero_terminal_snr else betas


def zero_terminal(betas: Table) -> Table:
    """Betas changed so that the last time is pure noise; `SpecError` for fewer than two times.

    sqrt(alphas_cumprod) is shifted to end at 0 and stretched to begin where it began (Lin et al. 2023,
    algorithm 1).
    """
    if len(betas) < 2:
        raise SpecError("zero_terminal_snr needs at least 2 steps; 1 came")
    amplitude = torch.cumprod(1 - betas, dim=0).sqrt()
    first, last = amplitude[0], amplitude[-1]
    power = ((amplitude - last) * (first / (first - last))) ** 2
    return 1 - torch.cat([power[:1], power[1:] / power[:-1]])


def coefficients(schedule: Schedule, t: Time, *, like: Latent) -> tuple[Coefficient, Coefficient]:
    """alpha and sigma of each sample as (b, 1, 1, 1), in the precision and on the device of `like`."""
    alpha, sigma = schedule.alpha(t).to(like), schedule.sigma(t).to(like)
    return rearrange(alpha, "b -> b 1 1 1"), rearrange(sigma, "b -> b 1 1 1")


def add_noise(schedule: Schedule, x0: Latent, *, noise: Latent, t: Time) -> Latent:
    """x_t = alpha(t) x0 + sigma(t) noise, with a time for each sample."""
    alpha, sigma = coefficients(schedule, t, like=x0)
    return alpha * x0 + sigma * noise


def original_buffers(
    schedule: DiscreteSchedule, *, v_posterior: float = 0.0, parameterization: Literal["eps", "x0"] = "eps"
) -> dict[str, Table]:
    """The twelve buffers of original checkpoints, by their original names, and `lvlb_weights`; float64.

    `lvlb_weights` for x0 are 0.5 sqrt(a) / (2 - a): the original's operator precedence gives this instead of
    the intended 0.5 sqrt(a) / (2 (1 - a)), and models were trained with it.
    """
    betas = schedule.betas
    power, before = schedule.alphas_cumprod[:-1], schedule.alphas_cumprod.roll(1)[:-1]
    variance = (1 - v_posterior) * betas * (1 - before) / (1 - power) + v_posterior * betas
    return {
        "betas": betas,
        "alphas_cumprod": power,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": power.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - power).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - power).log(),
        "sqrt_recip_alphas_cumprod": (1 / power).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / power - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - power),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - power),
        "lvlb_weights": _lvlb_weights(betas, power, variance=variance, parameterization=parameterization),
    }


def _lvlb_weights(betas: Table, power: Table, *, variance: Table, parameterization: Literal["eps", "x0"]) -> Table:
    match parameterization:
        case "eps":  # in float32, as the original: near t = 0 its 1 - alphas_cumprod differs by 2e-4
            b, v, a = betas.float(), variance.float(), power.float()
            weights = (b**2 / (2 * v * (1 - betas).float() * (1 - a))).double()
        case "x0":
            weights = 0.5 * power.sqrt() / (2 - power)
    return torch.cat([weights[1:2], weights[1:]]) if len(weights) > 1 else weights


def _ramp(start: float, end: float, *, steps: int) -> Table:
    return torch.linspace(start, end, steps, dtype=torch.float64, device="cpu")


def _cosine_betas(steps: int, *, s: float) -> Table:
    grid = torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps
    angle = (grid + s) / (1 + s) * (math.pi / 2)
    power = torch.cos(angle) ** 2
    return (1 - power[1:] / power[:-1]).clamp(0, 0.999)

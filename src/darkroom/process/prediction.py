"""What a network is asked to answer: eps, x0, v or velocity, each an invertible view of (x0, eps)."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, final, runtime_checkable

import torch

from darkroom.core.errors import SpecError, did_you_mean
from darkroom.core.shapes import Latent
from darkroom.process.schedule import Coefficient, FlowSchedule, Schedule

PredictionName: TypeAlias = Literal["eps", "x0", "v", "velocity"]


@runtime_checkable
class Prediction(Protocol):
    """Between the network's output and x0, at known alpha and sigma with x_t = alpha x0 + sigma eps."""

    @property
    def name(self) -> PredictionName:
        """The word that stands in specs."""
        ...

    def target(self, x0: Latent, eps: Latent, *, alpha: Coefficient, sigma: Coefficient) -> Latent:
        """What the network should answer."""
        ...

    def x0(self, output: Latent, x_t: Latent, *, alpha: Coefficient, sigma: Coefficient) -> Latent:
        """The picture that an output means."""
        ...

    def sensitivity(self, *, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        """|d x0 / d output|: how far an error of the output moves x0."""
        ...


@final
@dataclass(frozen=True)
class Eps:
    """The noise (Ho et al. 2020); undefined where alpha = 0."""

    name: Literal["eps"] = "eps"

    def target(self, x0: Latent, eps: Latent, *, alpha: Coefficient, sigma: Coefficient) -> Latent:
        return eps

    def x0(self, output: Latent, x_t: Latent, *, alpha: Coefficient, sigma: Coefficient) -> Latent:
        return (x_t - sigma * output) / alpha

    def sensitivity(self, *, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma / alpha


@final
@dataclass(frozen=True)
class X0:
    """The picture itself."""

    name: Literal["x0"] = "x0"

    def target(self, x0: Latent, eps: Latent, *, alpha: Coefficient, sigma: Coefficient) -> Latent:
        return x0

    def x0(self, output: Latent, x_t: Latent, *, alpha: Coefficient, sigma: Coefficient) -> Latent:
        return output

    def sensitivity(self, *, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return torch.ones_like(alpha)


@final
@dataclass(frozen=True)
class V:
    """v = alpha eps - sigma x0 (Salimans & Ho 2022); the inverse holds for any alpha, sigma, not both 0."""

    name: Literal["v"] = "v"

    def target(self, x0: Latent, eps: Latent, *, alpha: Coefficient, sigma: Coefficient) -> Latent:
        return alpha * eps - sigma * x0

    def x0(self, output: Latent, x_t: Latent, *, alpha: Coefficient, sigma: Coefficient) -> Latent:
        return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)

    def sensitivity(self, *, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma / (alpha**2 + sigma**2)


@final
@dataclass(frozen=True)
class Velocity:
    """d x_t / dt = eps - x0 along the straight path of rectified flow (Liu et al. 2022)."""

    name: Literal["velocity"] = "velocity"

    def target(self, x0: Latent, eps: Latent, *, alpha: Coefficient, sigma: Coefficient) -> Latent:
        return eps - x0

    def x0(self, output: Latent, x_t: Latent, *, alpha: Coefficient, sigma: Coefficient) -> Latent:
        return (x_t - sigma * output) / (alpha + sigma)

    def sensitivity(self, *, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma / (alpha + sigma)


def build_prediction(name: str) -> Prediction:
    """The prediction of that name; `SpecError` when there is none."""
    match name:
        case "eps":
            return Eps()
        case "x0":
            return X0()
        case "v":
            return V()
        case "velocity":
            return Velocity()
        case _:
            raise SpecError(f"unknown prediction {name!r}{did_you_mean(name, ('eps', 'x0', 'v', 'velocity'))}")


def check_prediction(schedule: Schedule, prediction: Prediction) -> None:
    """`SpecError` when the two do not fit: eps where some alpha is 0, velocity off the straight path."""
    pure_noise = float(schedule.alpha(torch.tensor(schedule.noisiest, device="cpu"))) == 0
    if isinstance(prediction, Eps) and pure_noise:
        raise SpecError(
            f"prediction 'eps' cannot go with a schedule whose last time ({schedule.noisiest}) is pure "
            "noise: x0 cannot be had from it; take 'v' or 'x0', or a schedule without zero terminal SNR"
        )
    if isinstance(prediction, Velocity) and not isinstance(schedule, FlowSchedule):
        raise SpecError("prediction 'velocity' belongs to the schedule 'flow'; take 'v' with this schedule")

"""A network becomes a denoiser when joined to a schedule and a prediction: it then answers x0."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, final, runtime_checkable

from darkroom.core.conditions import Conditions
from darkroom.core.shapes import Latent, Time
from darkroom.process.prediction import Prediction
from darkroom.process.schedule import Schedule, coefficients

Network: TypeAlias = Callable[[Latent, Time, Conditions], Latent]  # answers eps, x0, v or velocity
Denoise: TypeAlias = Callable[[Latent, Time, Conditions], Latent]  # answers x0


@runtime_checkable
class Diffusion(Protocol):
    """What sampling needs of a model."""

    @property
    def network(self) -> Network:
        """(x_t, t, conditions) to the raw output, in the trained parameterisation."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The noise levels it was trained on."""
        ...

    @property
    def prediction(self) -> Prediction:
        """What the raw output means."""
        ...


# From Python 3.12 on, isinstance with a protocol does not see the submodules of a torch module, so the run-time
# check of signatures, where there is one, lets any object pass.
if TYPE_CHECKING:
    AnyDiffusion: TypeAlias = Diffusion
else:
    AnyDiffusion = object


@final
@dataclass(frozen=True)
class Denoiser:
    """x0 from x_t by one evaluation of the network, in the precision of x_t.

    t: (b,), int64 for a discrete schedule; for a continuous one floating, given to the network in x_t's type.
    """

    network: Network
    schedule: Schedule
    prediction: Prediction

    def __call__(self, x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        alpha, sigma = coefficients(self.schedule, t, like=x_t)
        output = self.network(x_t, network_time(self.schedule, t, like=x_t), conditions).to(x_t.dtype)
        return self.prediction.x0(output, x_t, alpha=alpha, sigma=sigma)


def network_time(schedule: Schedule, t: Time, *, like: Latent) -> Time:
    """The time as a network takes it: int64 for a discrete schedule, else in the type of `like`."""
    return t.to(like.device).long() if schedule.steps is not None else t.to(like)

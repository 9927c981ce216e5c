"""What every solver has in common: points on the path, evaluations, and one step.

A solver sees x, x0 and the two levels alpha and sigma, never what the network predicts. The walk owns the
loop, the time, the noise and the network; a solver is a frozen value that turns a `Moment` into an `Advance`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, final, runtime_checkable

from darkroom.core.shapes import Latent

NEARLY_NOISE: Final = (
    1000.0  # sigma / alpha, by which an error of eps is multiplied in x0; no published schedule has it
)


@final
@dataclass(frozen=True)
class Point:
    """A time of the walk with its levels, as float64 numbers: x_t = alpha x0 + sigma eps."""

    t: int | float
    alpha: float
    sigma: float

    @property
    def noise_level(self) -> float:
        """sigma / alpha; infinite where there is no picture."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf

    @property
    def log_ratio(self) -> float:
        """lambda = log(alpha / sigma), half the log signal-to-noise ratio; infinite at both ends."""
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha > 0 else -math.inf


@final
@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the denoiser answered at a point."""

    point: Point
    x: Latent
    x0: Latent

    @property
    def eps(self) -> Latent:
        """The noise that x and x0 imply."""
        return (self.x - self.point.alpha * self.x0) / self.point.sigma


Evaluate: TypeAlias = Callable[[Latent, Point], Evaluation]


@final
@dataclass(frozen=True, eq=False)
class Moment:
    """All that a solver may look at in one step.

    x: at `now`, constraint applied · final: `following` is the end of the walk, where nothing is evaluated ·
    history: what earlier steps kept, newest last · noise: standard normal, None for deterministic solvers ·
    constrain: the walk's constraint at `now`, for a solver that changes x before it steps on.
    """

    x: Latent
    now: Point
    following: Point
    final: bool
    history: tuple[Evaluation, ...]
    noise: Latent | None
    evaluate: Evaluate
    constrain: Callable[[Latent], Latent]

    def drawn(self) -> Latent:
        """The step's noise, which the walk gives to every stochastic solver."""
        if self.noise is None:
            raise ValueError("a stochastic solver was given no noise")
        return self.noise


@final
@dataclass(frozen=True, eq=False)
class Advance:
    """x at the following point, the x0 predicted in this step, and what to keep for later steps."""

    x: Latent
    x0: Latent
    kept: Evaluation


@runtime_checkable
class Solver(Protocol):
    """One step of a way to walk from noise to data."""

    @property
    def stochastic(self) -> bool:
        """Whether a step uses noise."""
        ...

    def step(self, moment: Moment) -> Advance:
        """From `moment.now` to `moment.following`."""
        ...


def transfer(found: Evaluation, following: Point) -> Latent:
    """x' = alpha' x0 + sigma' eps with x0 and eps held: the exact path if the denoiser answered a constant.

    Written as (sigma'/sigma) x + (alpha' - alpha sigma'/sigma) x0, so that alpha = 0 is no special case.
    """
    shrink = following.sigma / found.point.sigma
    return shrink * found.x + (following.alpha - found.point.alpha * shrink) * found.x0


def added_variance(now: Point, following: Point) -> float:
    """Variance of q(x_t | x_s) from s = `following` up to t = `now`.

    sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2; on the full discrete grid this is beta_t.
    """
    return max(now.sigma**2 - (now.alpha / following.alpha) ** 2 * following.sigma**2, 0.0)


def posterior_variance(now: Point, following: Point) -> float:
    """Variance of q(x_s | x_t, x0), s = `following`, t = `now`; 0 when s is clean (Ho et al. 2020, eq. 7)."""
    return added_variance(now, following) * (following.sigma / now.sigma) ** 2

"""DDIM, deterministic or stochastic (Song, Meng & Ermon 2021)."""

import math
from dataclasses import dataclass
from typing import final

from darkroom.core.errors import InputError
from darkroom.diffusion.solvers.solver import (
    Advance,
    Moment,
    Point,
    added_variance,
    posterior_variance,
    transfer,
)


@final
@dataclass(frozen=True)
class Ddim:
    """x' = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s noise temperature, s = eta sqrt(posterior variance).

    eta 0 is deterministic, eta 1 is ancestral sampling on the visited times. Source: eq. 12 and 16.
    """

    eta: float = 0.0
    temperature: float = 1.0

    @property
    def stochastic(self) -> bool:
        return self.eta != 0

    def step(self, moment: Moment) -> Advance:
        found = moment.evaluate(moment.x, moment.now)
        if not self.stochastic:
            return Advance(transfer(found, moment.following), found.x0, kept=found)
        spread = noise_amplitude(moment.now, moment.following, eta=self.eta)
        held = math.sqrt(max(moment.following.sigma**2 - spread**2, 0.0))
        x = moment.following.alpha * found.x0 + held * found.eps
        return Advance(x + spread * self.temperature * moment.drawn(), found.x0, kept=found)


def noise_amplitude(now: Point, following: Point, *, eta: float) -> float:
    """The standard deviation s of the noise a step adds; `InputError` when eta asks for more than fits.

    s = eta sqrt((1 - a') / (1 - a) (1 - a / a')) in the original's letters.
    """
    spread = eta * math.sqrt(posterior_variance(now, following))
    if spread > following.sigma * (1 + 1e-9):
        most = now.sigma / math.sqrt(added_variance(now, following))
        raise InputError(f"eta={eta:g} adds more noise than time {following.t} holds; at most {most:.3g} fits")
    return spread

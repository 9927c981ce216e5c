"""Euler's method on the probability-flow equation (Karras et al. 2022)."""

from dataclasses import dataclass
from typing import final

from darkroom.diffusion.solvers.solver import Advance, Moment, transfer


@final
@dataclass(frozen=True)
class Euler:
    """One Euler step of dy/ds = eps in y = x / alpha, s = sigma / alpha (eq. 4 with unit scale).

    alpha' (y + (s' - s) eps) is alpha' x0 + sigma' eps: in these variables Euler and
    deterministic DDIM are one.
    """

    @property
    def stochastic(self) -> bool:
        return False

    def step(self, moment: Moment) -> Advance:
        found = moment.evaluate(moment.x, moment.now)
        return Advance(transfer(found, moment.following), found.x0, kept=found)

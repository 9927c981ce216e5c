"""Multistep consistency sampling: to clean data at once, then back to less noise (Song et al. 2023)."""

from dataclasses import dataclass
from typing import final

from darkroom.diffusion.solvers.solver import Advance, Moment


@final
@dataclass(frozen=True)
class Lcm:
    """x' = alpha' x0 + sigma' noise temperature: nothing of the noise before is kept, and the last step ends at x0.

    For models whose x0 is the end of a path, a whole picture at every noise level (`darkroom train --distill`); of
    other models it is the mean of many pictures, and few steps draw that. Source: algorithm 1; Luo et al. 2023,
    algorithm 3, by whose models this solver is called.
    """

    temperature: float = 1.0

    @property
    def stochastic(self) -> bool:
        return True

    def step(self, moment: Moment) -> Advance:
        found = moment.evaluate(moment.x, moment.now)
        spread = moment.following.sigma * self.temperature
        return Advance(moment.following.alpha * found.x0 + spread * moment.drawn(), found.x0, kept=found)

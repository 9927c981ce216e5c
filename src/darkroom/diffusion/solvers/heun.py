"""Heun's method on the probability-flow equation (Karras et al. 2022, algorithm 1)."""

from dataclasses import dataclass
from typing import final

from darkroom.diffusion.solvers.solver import NEARLY_NOISE, Advance, Moment, transfer


@final
@dataclass(frozen=True)
class Heun:
    """Euler's step in y = x / alpha, s = sigma / alpha, then again with the mean of the slopes at both ends.

    x' = x'_euler + alpha' (s' - s) (eps' - eps) / 2: second order, two evaluations. A step to clean data stays
    Euler's, for there is no second slope to take, and so does one from nearly pure noise (s above 1000, where Karras et
    al. begin at 80), whose slopes differ by less than what the width makes of their errors.
    """

    @property
    def stochastic(self) -> bool:
        return False

    def step(self, moment: Moment) -> Advance:
        now, following = moment.now, moment.following
        found = moment.evaluate(moment.x, now)
        x = transfer(found, following)
        if following.sigma > 0 and now.noise_level <= NEARLY_NOISE:
            ahead = moment.evaluate(x, following)
            width = following.noise_level - now.noise_level
            x = x + following.alpha * width / 2 * (ahead.eps - found.eps)
        return Advance(x, found.x0, kept=found)

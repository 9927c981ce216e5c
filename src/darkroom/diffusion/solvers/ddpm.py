"""Ancestral sampling (Ho, Jain & Abbeel 2020), between any two times."""

import math
from dataclasses import dataclass
from typing import Literal, final

from darkroom.diffusion.solvers.solver import Advance, Moment, added_variance, posterior_variance


@final
@dataclass(frozen=True)
class Ddpm:
    """A draw from q(x_s | x_t, x0), s = following and t = now, with the predicted x0 (eq. 6-7).

    variance "small" is that of the posterior, "large" that of q(x_t | x_s) (beta_t on the full grid);
    the step to clean data adds no noise.
    """

    variance: Literal["small", "large"] = "small"
    temperature: float = 1.0

    @property
    def stochastic(self) -> bool:
        return True

    def step(self, moment: Moment) -> Advance:
        now, following = moment.now, moment.following
        found = moment.evaluate(moment.x, now)
        added = added_variance(now, following)
        of_x0 = following.alpha * added / now.sigma**2
        of_x = (now.alpha / following.alpha) * (following.sigma / now.sigma) ** 2
        spread = math.sqrt(added if self.variance == "large" else posterior_variance(now, following))
        if following.sigma == 0:
            spread = 0.0
        x = of_x0 * found.x0 + of_x * moment.x + spread * self.temperature * moment.drawn()
        return Advance(x, found.x0, kept=found)

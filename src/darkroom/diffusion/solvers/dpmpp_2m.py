"""DPM-Solver++ 2M: second-order multistep with data prediction, deterministic or stochastic (Lu et al. 2022b)."""

import math
from dataclasses import dataclass
from typing import final

from darkroom.diffusion.solvers.ddim import noise_amplitude
from darkroom.diffusion.solvers.solver import Advance, Moment


@final
@dataclass(frozen=True)
class DpmPlusPlus2M:
    """x' = (k/sigma) x + (alpha' - alpha k/sigma) d + s noise temperature, d = x0 + (x0 - x0_before) / (2 r).

    s = eta sqrt(posterior variance) as in `Ddim`, k = sqrt(sigma'^2 - s^2); r is the ratio of the step before to this
    one in lambda = log(alpha / sigma). The first step, and the last when it ends at clean data (an infinite step in
    lambda), are of first order: d = x0, which is DDIM with this eta. Source: eta 0 is their algorithm 2, eta 1 their
    SDE-DPM-Solver++ 2M.
    """

    eta: float = 0.0
    temperature: float = 1.0

    @property
    def stochastic(self) -> bool:
        return self.eta != 0

    def step(self, moment: Moment) -> Advance:
        now, following = moment.now, moment.following
        found = moment.evaluate(moment.x, now)
        h = following.log_ratio - now.log_ratio
        data = found.x0
        if moment.history and math.isfinite(h):
            before = moment.history[-1]
            ratio = (now.log_ratio - before.point.log_ratio) / h
            data = data + (data - before.x0) / (2 * ratio)
        spread = noise_amplitude(now, following, eta=self.eta) if self.stochastic else 0.0
        shrink = math.sqrt(max(following.sigma**2 - spread**2, 0.0)) / now.sigma
        x = shrink * moment.x + (following.alpha - now.alpha * shrink) * data
        if self.stochastic:
            x = x + spread * self.temperature * moment.drawn()
        return Advance(x, found.x0, kept=found)

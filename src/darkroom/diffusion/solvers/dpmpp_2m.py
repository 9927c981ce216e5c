"""DPM-Solver++ 2M: second-order multistep with data prediction (Lu et al. 2022b)."""

import math
from dataclasses import dataclass
from typing import final

from darkroom.diffusion.solvers.solver import Advance, Moment


@final
@dataclass(frozen=True)
class DpmPlusPlus2M:
    """x' = (sigma'/sigma) x + alpha' (1 - e^-h) d, d = x0 + (x0 - x0_before) / (2 r) (algorithm 2).

    h is the step in lambda = log(alpha / sigma), r the ratio of the step before to this one. The first step,
    and the last when it ends at clean data (h infinite), are of first order: d = x0.
    """

    @property
    def stochastic(self) -> bool:
        return False

    def step(self, moment: Moment) -> Advance:
        now, following = moment.now, moment.following
        found = moment.evaluate(moment.x, now)
        h = following.log_ratio - now.log_ratio
        data = found.x0
        if moment.history and math.isfinite(h):
            before = moment.history[-1]
            ratio = (now.log_ratio - before.point.log_ratio) / h
            data = data + (data - before.x0) / (2 * ratio)
        x = (following.sigma / now.sigma) * moment.x - following.alpha * math.expm1(-h) * data
        return Advance(x, found.x0, kept=found)

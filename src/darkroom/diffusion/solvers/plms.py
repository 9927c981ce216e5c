"""Pseudo linear multistep sampling, as the original does it (Liu et al. 2022, PNDM)."""

from dataclasses import dataclass
from typing import final

from darkroom.core.shapes import Latent
from darkroom.diffusion.solvers.solver import NEARLY_NOISE, Advance, Evaluation, Moment, transfer


@final
@dataclass(frozen=True)
class Plms:
    """DDIM steps along an eps extrapolated from the last three (Adams-Bashforth, order rising to 4).

    The first step evaluates twice (pseudo improved Euler): at (x, t) and at the provisional next x and the
    next visited time, or the same time again when it is the only one; S steps make S + 1 evaluations.
    From nearly pure noise, with which none of the published linear schedules begins, the step is plain DDIM and is left
    out of the history: hardly an x0 follows from an eps there, and none where alpha = 0.
    """

    @property
    def stochastic(self) -> bool:
        return False

    def step(self, moment: Moment) -> Advance:
        found = moment.evaluate(moment.x, moment.now)
        if moment.now.noise_level > NEARLY_NOISE:
            return Advance(transfer(found, moment.following), found.x0, kept=found)
        eps = self._combined(found, moment)
        x0 = (moment.x - moment.now.sigma * eps) / moment.now.alpha
        x = moment.following.alpha * x0 + moment.following.sigma * eps
        return Advance(x, x0, kept=found)

    def _combined(self, found: Evaluation, moment: Moment) -> Latent:
        known = [past for past in moment.history[-3:] if past.point.noise_level <= NEARLY_NOISE]
        e = [found.eps, *(past.eps for past in reversed(known))]
        match len(e):
            case 1:
                there = moment.now if moment.final else moment.following
                again = moment.evaluate(transfer(found, moment.following), there)
                return (e[0] + again.eps) / 2
            case 2:
                return (3 * e[0] - e[1]) / 2
            case 3:
                return (23 * e[0] - 16 * e[1] + 5 * e[2]) / 12
            case _:
                return (55 * e[0] - 59 * e[1] + 37 * e[2] - 9 * e[3]) / 24

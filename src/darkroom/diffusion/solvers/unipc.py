"""UniPC of order 2: a unified predictor and corrector with data prediction (Zhao et al. 2023)."""

import math
from dataclasses import dataclass
from typing import final

from darkroom.core.shapes import Latent
from darkroom.diffusion.solvers.solver import Advance, Evaluation, Moment, Point


@final
@dataclass(frozen=True)
class UniPc:
    """Predict x at the next time; once x0 is known there, correct that x with it, at no further evaluation.

    Both integrate x' = (sigma'/sigma) x + alpha' (1 - e^-h) x0 + alpha' B (differences of x0), with
    B(h) = 1 - e^-h (the variant B2), h the step in lambda = log(alpha / sigma). The order is 1 in the first
    step and in a last one to clean data, where h is infinite. A constraint is applied again to the corrected
    x, so that what it fixes stays fixed. Source: UniP-2 and UniC-2.
    """

    @property
    def stochastic(self) -> bool:
        return False

    def step(self, moment: Moment) -> Advance:
        found = moment.evaluate(moment.x, moment.now)
        base = found
        if moment.history:
            corrected = _correct(found, moment.history)
            base = Evaluation(moment.now, moment.constrain(corrected), found.x0)
        x = _predict(base, moment.history, following=moment.following)
        return Advance(x, found.x0, kept=base)


def _predict(base: Evaluation, history: tuple[Evaluation, ...], *, following: Point) -> Latent:
    h = following.log_ratio - base.point.log_ratio
    x = _first_order(base, following)
    if not history or not math.isfinite(h):
        return x
    return x - following.alpha * math.expm1(-h) * 0.5 * _slope(base, history[-1], h=h)


def _correct(found: Evaluation, history: tuple[Evaluation, ...]) -> Latent:
    """x at `found.point` again, from the kept evaluation before it and the x0 now known at its end."""
    base, there = history[-1], found.point
    h = there.log_ratio - base.point.log_ratio
    scale = -there.alpha * math.expm1(-h)
    x = _first_order(base, there)
    rise = found.x0 - base.x0
    if len(history) < 2 or not math.isfinite(h):
        return x + scale * 0.5 * rise
    past = (history[-2].point.log_ratio - base.point.log_ratio) / h
    weight_past, weight_rise = _corrector_weights(h, past)
    return x + scale * (weight_past * _slope(base, history[-2], h=h) + weight_rise * rise)


def _first_order(base: Evaluation, following: Point) -> Latent:
    h = following.log_ratio - base.point.log_ratio
    shrink = following.sigma / base.point.sigma
    return shrink * base.x - following.alpha * math.expm1(-h) * base.x0


def _slope(base: Evaluation, before: Evaluation, *, h: float) -> Latent:
    """The change of x0 per step h, by the difference to an earlier point; 0 when that was pure noise."""
    return (before.x0 - base.x0) / ((before.point.log_ratio - base.point.log_ratio) / h)


def _corrector_weights(h: float, past: float) -> tuple[float, float]:
    """Weights of the past and the new difference that make the corrector exact for x0 quadratic in lambda.

    They solve w_past + w_new = b1 and past w_past + w_new = b2, b_k = k! phi_{k+1}(-h) (-h) / (e^-h - 1),
    phi_1(z) = (e^z - 1) / z and phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z.
    """
    z, b = -h, math.expm1(-h)
    first = b / z - 1  # z phi_2(z)
    second = first / z - 0.5  # z phi_3(z)
    b1, b2 = first / b, 2 * second / b
    weight_past = (b1 - b2) / (1 - past)
    return weight_past, b1 - weight_past

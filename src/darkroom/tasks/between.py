"""Between two pictures: noise on the sphere from one to the other, conditions on the straight line."""

from dataclasses import fields

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError
from darkroom.core.shapes import Latent, PerSample
from darkroom.diffusion.walk import StepNoise


def slerp(first: Latent, last: Latent, *, at: PerSample) -> Latent:
    """(sin((1 - s) theta) first + sin(s theta) last) / sin(theta), s = `at`, theta the angle between the two.

    Each sample has its own s and theta. Two normal noises of many numbers are about as long as each other and at a
    right angle; what lies between is then as long as they are, so the variance stays 1, where a straight line would
    fall to 1/2. s = 0 and s = 1 answer the ends themselves, bit for bit; noises in one direction are joined by a line.
    Source: Shoemake 1985; for starting noises Song, Meng & Ermon 2021 (DDIM), section 5.3 and appendix D.5.
    """
    one, other = (rearrange(each, "b c h w -> b (c h w)").double() for each in (first, last))
    theta = F.cosine_similarity(one, other, dim=1).clamp(-1, 1).acos()
    s = at.to(theta)
    whole = theta.sin()
    flat = whole < 1e-6  # the angle says nothing there
    weights = (torch.where(flat, line, arc.sin() / whole) for line, arc in ((1 - s, (1 - s) * theta), (s, s * theta)))
    from_first, from_last = (rearrange(weight, "b -> b 1 1 1").to(first) for weight in weights)
    return from_first * first + from_last * last


def noise_between(first: StepNoise, last: StepNoise, *, at: PerSample) -> StepNoise:
    """Noise of a step between those of two seeds, of variance 1 as they are."""

    def draw(index: int) -> Latent:
        return slerp(first(index), last(index), at=at)

    return draw


def mix(first: Conditions, last: Conditions, *, at: PerSample) -> Conditions:
    """(1 - s) first + s last in every port, s = `at` of each sample; s = 0 and s = 1 answer the ends bit for bit.

    `InputError` unless both fill the same ports with equal shapes: a token has nothing to be mixed with where the
    other end has none.
    """

    def port(name: str) -> Tensor | None:
        one, other = getattr(first, name), getattr(last, name)
        if one is None and other is None:
            return None
        if one is None or other is None or one.shape != other.shape:
            shapes = " and ".join("nothing" if each is None else str(tuple(each.shape)) for each in (one, other))
            raise InputError(f"there is nothing between {shapes}: both ends need {name} of equal shape")
        s = rearrange(at.to(one), f"b -> b{' 1' * (one.ndim - 1)}")
        return (1 - s) * one + s * other

    return Conditions(*(port(each.name) for each in fields(Conditions)))

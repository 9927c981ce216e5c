"""Guidance: a denoiser wrapped into another with the same call.

All of it happens in x0. At one x_t, eps and v are affine in x0 with the same coefficients for every
condition, so u + s (c - u) gives the same picture whether u and c are read as x0, eps or v; only what is not
linear (`RescaledGuidance`) has to say where it works.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias, final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from darkroom.core.conditions import Conditions, Joined
from darkroom.core.shapes import Latent, PerSample, Time
from darkroom.diffusion.denoiser import Denoise
from darkroom.process.schedule import Schedule, coefficients

Score: TypeAlias = Callable[[Latent, Time], PerSample]
Residual: TypeAlias = Callable[[Latent], Float[Tensor, "b ..."]]
_TINY: Final = 1e-12
_FAINT: Final = 1e-2  # least alpha that the pull is divided by
_FAR: Final = 1.0  # longest step (root mean square): further away the slope says little
_PROBE: Final = 0.05  # the small step that measures how the residual changes (root mean square)


@final
@dataclass(frozen=True)
class Guided:
    """Classifier-free guidance x0 = u + scale (c - u), in one doubled batch [null, conditions].

    null: conditions of the same shapes that say nothing · scale 1 evaluates the conditions alone.
    Source: Ho & Salimans 2022, eq. 6 (there 1 + w is our scale).
    """

    denoise: Denoise
    null: Conditions = field(kw_only=True)
    scale: float = field(default=3.0, kw_only=True)
    _join: Joined = field(default_factory=Joined, init=False, repr=False, compare=False)

    def __call__(self, x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        if self.scale == 1:
            return self.denoise(x_t, t, conditions)
        nothing, asked = _both(self.denoise, x_t, t=t, conditions=self._join([self.null, conditions]))
        return nothing + self.scale * (asked - nothing)


@final
@dataclass(frozen=True)
class RescaledGuidance:
    """Guidance whose contrast is brought back towards that of the conditional answer.

    g = u + scale (c - u); r = g std(c) / std(g), std over c, h, w of a sample;
    x0 = amount r + (1 - amount) g.
    Source: Lin et al. 2023, eq. 14-16, which apply it to the network's output. Here it works on x0: too much
    contrast is a fault of the picture, and so the result does not depend on what the network predicts.
    """

    denoise: Denoise
    null: Conditions = field(kw_only=True)
    scale: float = field(default=3.0, kw_only=True)
    amount: float = field(default=0.7, kw_only=True)
    _join: Joined = field(default_factory=Joined, init=False, repr=False, compare=False)

    def __call__(self, x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        nothing, asked = _both(self.denoise, x_t, t=t, conditions=self._join([self.null, conditions]))
        guided = nothing + self.scale * (asked - nothing)
        wanted, found = (each.std(dim=(1, 2, 3), correction=0, keepdim=True) for each in (asked, guided))
        contrast = torch.where(found > 0, wanted / found, 1.0)  # what has no contrast is left as it is
        return guided * (self.amount * contrast + (1 - self.amount))


@final
@dataclass(frozen=True)
class LimitedGuidance:
    """`guided` where low < noise level <= high; elsewhere `plain`, one evaluation on the conditions alone.

    The noise level is sigma / alpha, the unit of the source: Kynkäänniemi et al. 2024.
    """

    plain: Denoise
    guided: Denoise = field(kw_only=True)
    schedule: Schedule = field(kw_only=True)
    low: float = field(default=0.0, kw_only=True)
    high: float = field(default=float("inf"), kw_only=True)

    def __call__(self, x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        level = self.schedule.sigma(t) / self.schedule.alpha(t)
        inside = (level > self.low) & (level <= self.high)
        if not inside.any():
            return self.plain(x_t, t, conditions)
        if inside.all():
            return self.guided(x_t, t, conditions)
        chosen = rearrange(inside.to(x_t.device), "b -> b 1 1 1")
        return torch.where(chosen, self.guided(x_t, t, conditions), self.plain(x_t, t, conditions))


@final
@dataclass(frozen=True)
class GuidedByEach:
    """Guidance with a scale for each of several conditions, in one batch of all of them.

    steps: conditions that say more and more, the first of them nothing. With d_i the answers to them, and to the full
    conditions as the last, x0 = d_0 + sum_i scales_i (d_{i+1} - d_i); scales of 1 give the full conditions' answer.
    Source: Brooks et al. 2023, eq. 3, for any number of conditions.
    """

    denoise: Denoise
    steps: tuple[Conditions, ...] = field(kw_only=True)
    scales: tuple[float, ...] = field(kw_only=True)
    _join: Joined = field(default_factory=Joined, init=False, repr=False, compare=False)

    def __call__(self, x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        said = [*self.steps, conditions]
        many = len(said)
        x0 = self.denoise(torch.cat([x_t] * many), torch.cat([t] * many), self._join(said))
        answers = rearrange(x0, "(n b) c h w -> n b c h w", n=many)
        made = answers[0]
        for scale, less, more in zip(self.scales, answers[:-1], answers[1:], strict=True):
            made = made + scale * (more - less)
        return made


@final
@dataclass(frozen=True)
class GuidedByScore:
    """x0 moved to where a score of it is higher: x0 + scale (sigma^2 / alpha) grad_{x_t} score(x0(x_t)).

    By Tweedie's formula, x0 = (x_t + sigma^2 grad log p(x_t)) / alpha, a further log-probability log p(y | x_t) =
    score adds its gradient in just this way (the paper, appendix C, eq. 15: the same in eps; Dhariwal & Nichol 2021).
    denoise: must carry gradient · score: x0 (b, c, h, w) and t to one number a sample · scale: of the score.
    """

    denoise: Denoise
    score: Score = field(kw_only=True)
    schedule: Schedule = field(kw_only=True)
    scale: float = field(default=1.0, kw_only=True)

    def __call__(self, x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            x0 = self.denoise(leaf, t, conditions)
            (pull,) = torch.autograd.grad(self.score(x0, t).sum(), leaf)
        alpha, sigma = coefficients(self.schedule, t, like=x_t)
        return (x0 + self.scale * sigma**2 / alpha.clamp(min=_FAINT) * pull).detach()


@final
@dataclass(frozen=True)
class GuidedByMatch:
    """x0 moved down the gradient of |residual(x0)|^2, `weight` of the way to where the residual is least.

    How far that is follows from the residual itself, measured by a small step: exact where it is linear, and at most
    one deviation (root mean square). So no step size has to be tuned, and the step does not overshoot as a likelihood
    of guessed variance does. No gradient goes through the network. residual: x0 (b, c, h, w) to what shall become zero,
    (b, ...), carrying gradient · weight: up to 1. Source: He et al. 2024 (MPGD), alg. 3, where the step is a constant.
    """

    denoise: Denoise
    residual: Residual = field(kw_only=True)
    weight: float = field(default=1.0, kw_only=True)

    def __call__(self, x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        answer = self.denoise(x_t, t, conditions).detach()
        x0 = answer.to(torch.promote_types(answer.dtype, torch.float32))
        with torch.enable_grad():
            leaf = x0.clone().requires_grad_()
            residual = self.residual(leaf)
            (slope,) = torch.autograd.grad(residual.square().sum(), leaf)
        with torch.no_grad():
            down = -slope / slope.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=_TINY)
            change = (self.residual(x0 + _PROBE * down) - residual).flatten(1) / _PROBE
            reach = -(change * residual.flatten(1)).sum(1) / change.square().sum(1).clamp(min=_TINY)
            reach = self.weight * reach.clamp(0, _FAR)  # where the probe met a rise, the slope says nothing
            return (x0 + rearrange(reach, "b -> b 1 1 1").to(x0) * down).to(answer)


def _both(denoise: Denoise, x_t: Latent, *, t: Time, conditions: Conditions) -> tuple[Latent, Latent]:
    """The answers without and with conditions, from null and conditions joined along the batch."""
    x0 = denoise(torch.cat([x_t, x_t]), torch.cat([t, t]), conditions)
    nothing, asked = rearrange(x0, "(two b) c h w -> two b c h w", two=2)
    return nothing, asked

"""Formulas of consistency distillation: a student learns where its teacher's path from a noisy latent ends.

A consistency function answers the same at every time of a path of the probability-flow equation: its clean end (Song
et al. 2023). Here the function is the x0 that a denoiser answers, so a student is an ordinary model. The boundary
condition, x itself at the clean time, needs no c_skip: no network is asked at the clean time, and towards it
x0 = alpha x_t - sigma v, or (x_t - sigma eps) / alpha, becomes x_t by itself.
"""

import itertools
from collections.abc import Callable
from typing import TypeAlias

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from darkroom.core.shapes import Choice, Latent, PerSample, Time
from darkroom.process.objective import error
from darkroom.process.prediction import Prediction
from darkroom.process.schedule import Schedule, add_noise, coefficients

Answer: TypeAlias = Callable[[Latent, Time], Latent]  # x0, by a denoiser whose conditions are settled


def along(teacher: Answer, x_t: Latent, *, t: Time, to: Time, schedule: Schedule) -> Latent:
    """One deterministic step of DDIM from t to an earlier time, each sample between times of its own.

    x' = alpha' x0 + sigma' eps, written as in `solvers.solver.transfer`; at the clean time it is the teacher's x0.
    """
    (alpha, sigma), (there, spread) = (coefficients(schedule, each, like=x_t) for each in (t, to))
    shrink = spread / sigma
    return shrink * x_t + (there - alpha * shrink) * teacher(x_t, t)


@torch.no_grad()
def consistent_end(teacher: Answer, x_t: Latent, *, follower: Answer, t: Time, to: Time, schedule: Schedule) -> Latent:
    """The follower's x0 after the teacher's step from t to an earlier time; at the clean time, the end of the step."""
    x = along(teacher, x_t, t=t, to=to, schedule=schedule)
    clean = to <= schedule.clean
    if bool(clean.all()):
        return x
    asked = torch.where(clean, t, to)  # where the answer does not count, any time that a network may be asked about
    return torch.where(_each(clean, like=x), x, follower(x, asked))


@torch.no_grad()
def path_end(teacher: Answer, x_t: Latent, *, t: Time, steps: int, schedule: Schedule) -> Latent:
    """Where the teacher's path from x_t ends, by `steps` steps of DDIM; by fewer from times with fewer below them."""
    grid = [_between(schedule, t, share=(steps - done) / steps) for done in range(steps + 1)]
    for now, then in itertools.pairwise(grid):
        moves = now > then
        asked, to = torch.where(moves, now, t), torch.where(moves, then, t)
        x_t = torch.where(_each(moves, like=x_t), along(teacher, x_t, t=asked, to=to, schedule=schedule), x_t)
    return x_t


def consistency_loss(
    student: Answer,
    latents: Latent,
    *,
    t: Time,
    to: Time,
    noise: Latent,
    teacher: Answer,
    follower: Answer,
    schedule: Schedule,
    prediction: Prediction,
    width: float,
) -> PerSample:
    """The pseudo-Huber distance of f(x_t, t) from `consistent_end`, a value per sample, float32 at least.

    (sqrt(e + width^2) - width) / max(1, |d x0 / d output|), e the mean over c, h, w of the squared difference. The
    root lets every sample pull alike, however far it is off (Song & Dhariwal 2023, section 3.3, the same for sums); the
    divisor, which is 1 but for eps near pure noise, keeps x0 = (x_t - sigma eps) / alpha from making that pull endless.
    Source: Luo et al. 2023, algorithm 1.
    """
    x_t = add_noise(schedule, latents, noise=noise, t=t)
    end = consistent_end(teacher, x_t, follower=follower, t=t, to=to, schedule=schedule)
    off = (error(student(x_t, t), end, loss="l2") + width**2).sqrt() - width
    alpha, sigma = coefficients(schedule, t, like=x_t)
    reach = rearrange(prediction.sensitivity(alpha=alpha, sigma=sigma), "b 1 1 1 -> b")
    return off / reach.clamp(min=1).to(off)


def _each(choice: Choice, *, like: Latent) -> Bool[Tensor, "b 1 1 1"]:
    """A choice for each sample, brought to the latents' device; times stay on the CPU."""
    return rearrange(choice, "b -> b 1 1 1").to(like.device)


def _between(schedule: Schedule, t: Time, *, share: float) -> Time:
    """The time at a share of the way from clean data to t, rounded to one that a discrete schedule has."""
    if schedule.steps is None:
        return schedule.clean + share * (t - schedule.clean)
    return schedule.clean + (share * (t - schedule.clean)).round().long()

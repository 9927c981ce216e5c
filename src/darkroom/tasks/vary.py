"""Variations of a picture: the walk begins at its latent, partly noised, or at the noise that leads to it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import torch

from darkroom.core.conditions import Conditions
from darkroom.core.shapes import Latent
from darkroom.diffusion.inversion import inverted
from darkroom.process.schedule import add_noise
from darkroom.process.times import Times, choose_times
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request, Wish

ROUNDING: Final = 1e-6  # of a step: 0.56 of 25 are 14


@final
@dataclass(frozen=True, eq=False)
class Beginning:
    """Where a walk starts: x at the first of its times."""

    x: Latent
    times: Times


def times_left(model: Model, request: Request) -> Times:
    """The times of a request that are walked: with an image and no mask, those that `strength` leaves open."""
    assert request.steps is not None
    times = choose_times(model.schedule, request.times, steps=request.steps)
    if not request.images or request.masks:
        return times
    assert request.strength is not None
    kept = max(1, math.ceil(request.strength * len(times.visited) - ROUNDING))
    return Times(times.visited[len(times.visited) - kept :], end=times.end)


def beginning(
    model: Model, request: Request, *, group: Sequence[Wish], noise: Latent, conditions: Conditions
) -> Beginning:
    """The start of a group's walk. noise: drawn, (b, c, h, w), standing for pure noise."""
    times = times_left(model, request)
    if not request.images or request.masks:
        return Beginning(noise, times)
    latents = encoded(model, request, group=group)
    if request.inverted:
        window = window_of(model, request)
        return Beginning(inverted(model, latents, times=times, conditions=conditions, window=window), times)
    t = times.visited[:1].expand(len(latents))
    return Beginning(add_noise(model.schedule, latents, noise=noise.to(latents), t=t), times)


def window_of(model: Model, request: Request) -> tuple[int, int] | None:
    """Height and width in latent cells of the windows that are asked for."""
    if request.window is None:
        return None
    _, height, width = model.diffusion.latent_shape((request.window, request.window))
    return height, width


def encoded(model: Model, request: Request, *, group: Sequence[Wish]) -> Latent:
    """The latents of the wishes' images, at the size that is drawn."""
    channels = model.spec.first_stage.image_channels
    pixels = torch.cat([wish.image.pixels(channels, request.size) for wish in group if wish.image is not None])
    return model.encode(pixels)

"""Previews: what a latent will look like, for next to nothing."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from darkroom.core.pictures import to_pictures
from darkroom.core.shapes import Latent
from darkroom.tasks.model import Model

CHEAP = 10**10  # decoder's parameters times the picture's pixels; 2.5e9 take 27 ms on one core
NOISES = 24  # latents that the linear decoder is fitted on
SIDE = 16  # of them, at most
SMOOTH = (1, 2, 4)  # how many times smaller their noise is drawn: pictures have flat parts
RIDGE = 0.01  # of the variance of a latent channel
SEED = 0

Projection = Float[Tensor, "channels colours"]


class Sketcher:
    """Pictures of latents: by the model's decoder where that is quick (a tiny one), else by one small matrix.

    The matrix takes a cell's channels to the mean colour of its pixels, and is fitted to what the decoder makes of
    noise, so every model has one without any picture.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._weights = sum(each.numel() for each in model.decoder.parameters())
        self._projection: Projection | None = None

    def pictures(self, latents: Latent, size: tuple[int, int]) -> list[Image.Image]:
        """Of latents (b, c, h, w) in the denoiser's units; no larger than `size`, height and width of what is drawn."""
        if self._weights * size[0] * size[1] <= CHEAP:
            return to_pictures(self._model.decode(latents))
        if self._projection is None:
            self._projection = fitted(self._model)
        return to_pictures(projected(latents.float().cpu(), self._projection))


@torch.no_grad()
def fitted(model: Model) -> Projection:
    """Least squares from latents, and a constant, to mean colours of their cells."""
    channels, height, width = model.diffusion.latent_shape((model.spec.image_size, model.spec.image_size))
    size = min(height, SIDE), min(width, SIDE)
    generator = torch.Generator().manual_seed(SEED)
    noises: list[Tensor] = []
    for number in range(NOISES):
        smooth = SMOOTH[number % len(SMOOTH)]
        drawn = torch.randn(1, channels, *(max(1, side // smooth) for side in size), generator=generator)
        noises.append(F.interpolate(drawn, size=list(size), mode="bilinear"))
    latents = torch.cat(noises)
    colours = F.interpolate(model.decode(latents).cpu().clamp(-1, 1), size=list(size), mode="area")
    given, wanted = _with_constant(latents), rearrange(colours, "b c h w -> (b h w) c")
    ridge = RIDGE * len(given) * torch.eye(given.shape[1])
    return torch.linalg.solve(given.T @ given + ridge, given.T @ wanted)


def projected(latents: Latent, projection: Projection) -> Float[Tensor, "b c h w"]:
    """Mean colours of cells, a pixel each."""
    height, width = latents.shape[-2:]
    return rearrange(_with_constant(latents) @ projection, "(b h w) c -> b c h w", h=height, w=width)


def _with_constant(latents: Latent) -> Float[Tensor, "cells channels"]:
    flat = rearrange(latents, "b c h w -> (b h w) c")
    return torch.cat([flat, torch.ones(len(flat), 1)], dim=1)

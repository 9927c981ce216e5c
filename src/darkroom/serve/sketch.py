"""Previews: what a latent will look like, for next to nothing."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from darkroom.core.hollow import parameters_of
from darkroom.core.pictures import to_pictures
from darkroom.core.shapes import Latent
from darkroom.tasks.model import Model

CHEAP = 10**10  # decoder's parameters times the picture's pixels; 2.5e9 take 27 ms on one core
FIELDS = 24  # pictures that the small matrix is fitted on
CELLS = 16  # of a side of them, at most
PARTS = (1, 2, 4)  # cells of a side of one colour in them: pictures have flat parts
RIDGE = 0.01  # of the variance of latents
SEED = 0

Projection = Float[Tensor, "channels colours"]


class Sketcher:
    """Pictures of latents: by the model's decoder where that is quick (a tiny one), else by one small matrix.

    The matrix takes a cell's channels to the mean colour of its pixels, and is fitted on drawn colours that the encoder
    saw, so every model has one without any picture.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._weights = parameters_of(model.decoder)
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
    """Least squares from latents of random colour fields, and a constant, to the mean colours of their cells."""
    stage = model.spec.first_stage
    side = min(model.spec.image_size, CELLS * stage.factor)
    generator = torch.Generator().manual_seed(SEED)
    fields: list[Tensor] = []
    for number in range(FIELDS):
        parts = max(1, side // stage.factor // PARTS[number % len(PARTS)])
        drawn = 2 * torch.rand(1, stage.image_channels, parts, parts, generator=generator) - 1
        fields.append(F.interpolate(drawn, size=[side, side], mode="bilinear" if number % 2 else "nearest"))
    images = torch.cat(fields)
    latents = model.encode(images).cpu()
    colours = F.interpolate(images, size=list(latents.shape[-2:]), mode="area")
    given, wanted = _with_constant(latents), rearrange(colours, "b c h w -> (b h w) c")
    ridge = RIDGE * len(given) * latents.var() * torch.eye(given.shape[1])
    return torch.linalg.solve(given.T @ given + ridge, given.T @ wanted)


def projected(latents: Latent, projection: Projection) -> Float[Tensor, "b colours h w"]:
    """Mean colours of cells, a pixel each."""
    height, width = latents.shape[-2:]
    return rearrange(_with_constant(latents) @ projection, "(b h w) c -> b c h w", h=height, w=width)


def _with_constant(latents: Latent) -> Float[Tensor, "cells channels"]:
    flat = rearrange(latents, "b c h w -> (b h w) c")
    return torch.cat([flat, torch.ones(len(flat), 1)], dim=1)

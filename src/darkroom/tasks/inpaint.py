"""Painting into a picture: what is known stays as it is."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from darkroom.conditioning.spatial import shrunk
from darkroom.core.shapes import Latent, Time
from darkroom.diffusion.walk import Constraint
from darkroom.process.schedule import add_noise
from darkroom.tasks.input_picture import InputPicture
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request, Wish
from darkroom.tasks.vary import encoded


def known_region(model: Model, request: Request, *, group: Sequence[Wish], noise: Latent) -> Constraint | None:
    """Inpainting with a model that was not trained for it: before every step the known region is put back, noised.

    None where the model sees the masked picture itself, or nothing is masked. noise: that of the walk's start, used
    each time, so that the known region moves along one path. Source: Lugmayr et al. 2022, eq. 8, without resampling;
    the paper's code does the same with fresh noise.
    """
    if not request.masks or "masked" in model.fields:
        return None
    latents = encoded(model, request, group=group)
    assert request.size is not None
    masks = torch.cat([wish.mask.ink(request.size) for wish in group if wish.mask is not None]).to(latents)
    height, width = latents.shape[-2:]
    open_ = shrunk(masks, (height, width), how="any")

    def put_back(x: Latent, t: Time, index: int) -> Latent:
        known = add_noise(model.schedule, latents.to(x), noise=noise.to(x), t=t)
        return torch.where(open_.to(x) > 0.5, x, known)

    return put_back


def composed(drawn: Image.Image, wish: Wish, *, channels: int) -> Image.Image:
    """The drawn picture inside the mask, the given one outside, pixel by pixel; as drawn where nothing is masked."""
    if wish.mask is None or wish.image is None:
        return drawn
    size = drawn.height, drawn.width
    mask = Image.fromarray(_levels(wish.mask, size))
    return Image.composite(drawn, wish.image.coloured(channels, size), mask)


def _levels(mask: InputPicture, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    return (mask.ink(size)[0, 0] * 255).byte().numpy()

"""Large pictures out of a first stage, tile by tile, so that memory stays bounded."""

from collections.abc import Callable
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from darkroom.core.shapes import Images, Latent
from darkroom.diffusion.windows import starts
from darkroom.tasks.model import Model

WHOLE: Final = 1024 * 1024  # pixels that are decoded at once
TILE: Final = 512  # pixels, a side
MARGIN: Final = 64  # pixels of a tile that are seen and thrown away, each side; as many again are blended


def decoded(model: Model, latents: Latent) -> Images:
    """`model.decode`, in tiles where a picture has more than a million pixels."""
    factor = model.spec.first_stage.factor
    if latents.shape[-1] * latents.shape[-2] * factor**2 <= WHOLE:
        return model.decode(latents)
    return tiled(model.decode, latents, factor=factor)


def tiled(
    decode: Callable[[Latent], Images], latents: Latent, *, factor: int, tile: int = TILE, margin: int = MARGIN
) -> Images:
    """What `decode` makes of latents, from tiles of `tile` pixels.

    Each tile sees `margin` pixels more than it keeps on each side, and neighbours are blended over as many. A decoder
    with normalisation over the picture sees other statistics in each tile, so the result is near, not equal.
    """
    side, around = max(1, tile // factor), max(1, margin // factor)
    reach = side + 4 * around
    made: Images | None = None
    height, width = latents.shape[-2:]
    weight = torch.zeros(height * factor, width * factor)
    for top in starts(height, reach, overlap=4 * around):
        for left in starts(width, reach, overlap=4 * around):
            part = latents[..., top : top + reach, left : left + reach]
            images = decode(part).cpu()
            if made is None:
                made = torch.zeros(len(latents), images.shape[1], height * factor, width * factor)
            rows = _weights(top, part.shape[-2], height, around=around, factor=factor)
            columns = _weights(left, part.shape[-1], width, around=around, factor=factor)
            ramp = torch.outer(rows, columns)
            place = (
                ...,
                slice(top * factor, (top + part.shape[-2]) * factor),
                slice(left * factor, (left + part.shape[-1]) * factor),
            )
            made[place] += images * ramp
            weight[place[1:]] += ramp
    assert made is not None
    return made / weight


def _weights(start: int, size: int, length: int, *, around: int, factor: int) -> Float[Tensor, " n"]:
    """Of the pixels of a tile along one side: 0 in the margin, rising to 1, but 1 where the picture itself ends."""
    at = torch.arange(size * factor, dtype=torch.float32) + 0.5
    margin = around * factor
    before = ((at - margin) / (2 * margin)).clamp(0, 1) if start > 0 else torch.ones_like(at)
    after = ((size * factor - margin - at) / (2 * margin)).clamp(0, 1) if start + size < length else torch.ones_like(at)
    return torch.minimum(before, after)

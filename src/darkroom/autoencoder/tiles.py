"""Encoding and decoding large pictures in overlapping tiles, so that memory stays bounded."""

import math
from collections.abc import Callable
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from darkroom.core.shapes import Images, Latent

WHOLE: Final = 1024 * 1024  # pixels that are coded at once
TILE: Final = 512  # pixels, a side
MARGIN: Final = 64  # pixels of a tile that are seen and thrown away, each side; twice as many are blended


def decoded(decode: Callable[[Latent], Images], latents: Latent, *, factor: int) -> Images:
    """`decode(latents)`; of a picture of more than a million pixels in tiles, and then on the CPU."""
    if latents.shape[-1] * latents.shape[-2] * factor**2 <= WHOLE:
        return decode(latents)
    return tiled(decode, latents, enlarge=factor, tile=max(1, TILE // factor), margin=max(1, MARGIN // factor))


def encoded(encode: Callable[[Images], Latent], images: Images, *, factor: int) -> Latent:
    """`encode(images)`; of a picture of more than a million pixels in tiles. Sides must be multiples of the factor."""
    if images.shape[-1] * images.shape[-2] <= WHOLE:
        return encode(images)
    made = tiled(encode, images, reduce=factor, tile=max(1, TILE // factor), margin=max(1, MARGIN // factor))
    return made.to(images.device)


def tiled(
    code: Callable[[Tensor], Tensor], whole: Tensor, *, tile: int, margin: int, reduce: int = 1, enlarge: int = 1
) -> Tensor:
    """What `code` makes of (b, c, h, w), a picture or latents, from tiles of it; on the CPU.

    code: makes sides `enlarge` times longer, or `reduce` times shorter · tile, margin: in latent cells. At each side of
    a tile `margin` cells are thrown away, and the next 2 `margin` are blended with the neighbour's. Where a network
    normalises over the picture, tiles have other statistics, so the result is near to the whole's, not equal.
    """
    reach = tile + 4 * margin
    height, width = whole.shape[-2] // reduce, whole.shape[-1] // reduce
    made: Tensor | None = None
    weight = torch.zeros(height * enlarge, width * enlarge)
    for top in starts(height, reach, overlap=4 * margin):
        for left in starts(width, reach, overlap=4 * margin):
            part = code(whole[(..., *_place(top, left, reach, cell=reduce))]).cpu()
            if made is None:
                made = torch.zeros(len(whole), part.shape[1], *weight.shape)  # float32, whatever a tile is coded in
            rows, columns = part.shape[-2] // enlarge, part.shape[-1] // enlarge
            ramp = torch.outer(
                _weights(top, rows, height, margin=margin, cell=enlarge),
                _weights(left, columns, width, margin=margin, cell=enlarge),
            )
            place = _place(top, left, reach, cell=enlarge)
            made[(..., *place)] += part * ramp
            weight[place] += ramp
    assert made is not None
    return made.div_(weight)


def starts(length: int, size: int, *, overlap: int) -> list[int]:
    """Where tiles of this size begin, evenly spread over a length, sharing `overlap` cells or more."""
    if length <= size:
        return [0]
    count = math.ceil((length - overlap) / (size - overlap))
    return [round(place * (length - size) / (count - 1)) for place in range(count)]


def _place(top: int, left: int, reach: int, *, cell: int) -> tuple[slice, slice]:
    """A tile's rows and columns, of cells so large; what lies beyond the picture is cut by slicing."""
    return slice(top * cell, (top + reach) * cell), slice(left * cell, (left + reach) * cell)


def _weights(start: int, size: int, length: int, *, margin: int, cell: int) -> Float[Tensor, " n"]:
    """Along one side of a tile: 0 in the margin, rising to 1, but 1 where the picture itself ends."""
    at = torch.arange(size * cell, dtype=torch.float32) + 0.5
    edge = margin * cell
    before = ((at - edge) / (2 * edge)).clamp(0, 1) if start > 0 else torch.ones_like(at)
    after = ((size * cell - edge - at) / (2 * edge)).clamp(0, 1) if start + size < length else torch.ones_like(at)
    return torch.minimum(before, after)

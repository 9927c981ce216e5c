"""Holes filled without learning: the baselines of inpainting."""

from typing import Final

import numpy as np
import torch
from einops import reduce
from jaxtyping import Bool, Float

from darkroom.core.shapes import Images, Mask

RADIUS: Final = 3  # pixels around one that speak for it
_AT_ONCE: Final = 2**20  # distances held in memory
Plane = Float[np.ndarray, "h w"]


def mean_fill(images: Images, masks: Mask) -> Images:
    """Holes (mask 1) filled with the mean colour of the rest of their picture."""
    known = 1 - masks
    count = reduce(known, "b 1 h w -> b 1 1 1", "sum").clamp(min=1)
    mean = reduce(images * known, "b c h w -> b c 1 1", "sum") / count
    return images * known + mean * masks


def telea_fill(images: Images, masks: Mask) -> Images:
    """Holes (mask 1) filled from their edge inwards, each pixel by what lies known around it: Telea 2004.

    A pixel p takes the weighted mean over known q of I(q) + grad I(q) (p - q); weights favour q along the direction in
    which the hole grows (eq. 2: direction), near ones (distance) and those as deep as p (level). Slopes are those of
    pixels that were given: slopes of what is itself a continuation grow without bound in large holes.
    """
    filled = [
        _telea(image.double().cpu().numpy(), mask[0].cpu().numpy() > 0.5)
        for image, mask in zip(images, masks, strict=True)
    ]
    return torch.from_numpy(np.stack(filled)).to(images)


def _telea(image: Float[np.ndarray, "c h w"], hole: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "c h w"]:
    if not hole.any() or hole.all():  # nothing to fill; nothing to fill it from: mid grey
        return image * ~hole
    depth = _depth(hole)
    down, right = np.gradient(depth)
    padded = np.pad(image, ((0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS)))
    known = np.pad(~hole, RADIUS)
    slopes = _slopes(padded, known)
    level = np.pad(depth, RADIUS)
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1].astype(float)
    away = np.hypot(y, x)
    near = (away <= RADIUS) & (away > 0)
    rows, columns = np.nonzero(hole)
    for place in np.argsort(depth[hole], kind="stable"):
        row, column = rows[place], columns[place]
        window = slice(row, row + 2 * RADIUS + 1), slice(column, column + 2 * RADIUS + 1)
        seen = known[window] & near
        if seen.any():
            along = np.abs(y * down[row, column] + x * right[row, column]) / np.maximum(away, 1) + 1e-3
            weight = seen * along / np.maximum(away, 1) ** 2 / (1 + np.abs(level[window] - depth[row, column]))
            around = slice(None), *window
            guess = padded[around] - slopes[0][around] * y - slopes[1][around] * x
            padded[:, row + RADIUS, column + RADIUS] = (weight * guess).sum(axis=(1, 2)) / weight.sum()
        known[row + RADIUS, column + RADIUS] = True
    return padded[:, RADIUS:-RADIUS, RADIUS:-RADIUS].clip(image[:, ~hole].min(), image[:, ~hole].max())


def _slopes(
    image: Float[np.ndarray, "c h w"], known: Bool[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "c h w"], Float[np.ndarray, "c h w"]]:
    """Down and to the right: central differences where both neighbours are known, else 0."""
    down, right = np.zeros_like(image), np.zeros_like(image)
    down[:, 1:-1] = (image[:, 2:] - image[:, :-2]) / 2 * (known[2:] & known[:-2])
    right[:, :, 1:-1] = (image[:, :, 2:] - image[:, :, :-2]) / 2 * (known[:, 2:] & known[:, :-2])
    return down, right


def _depth(hole: Bool[np.ndarray, "h w"]) -> Plane:
    """Distance in pixels from each pixel of the hole to the nearest known one, which lies on its edge; 0 outside."""
    grown = np.pad(hole, 1)
    beside = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
    edge, inside, depth = np.argwhere(~hole & beside), np.argwhere(hole), np.zeros(hole.shape)
    for part in np.array_split(inside, max(1, len(inside) * len(edge) // _AT_ONCE)):
        apart = ((part[:, None] - edge[None]) ** 2).sum(axis=2).min(axis=1)
        depth[part[:, 0], part[:, 1]] = np.sqrt(apart)
    return depth

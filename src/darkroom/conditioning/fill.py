"""Holes of pictures filled without learning: what a denoiser is shown in their place, or begins with."""

import itertools
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from darkroom.core.shapes import Images, Mask

LEAST: Final = 1e-6  # what is divided by, at least
RADIUS: Final = 2  # a pixel is filled from those so far around it; with more, edges are smeared
ASKED: Final = 8  # layers between two questions to the device, each of which waits for all its work
Fill: TypeAlias = Literal["black", "smooth", "inward"]


def filled(images: Images, mask: Mask, *, how: Fill) -> Images:
    """Pictures (b, c, h, w), their holes (mask 1) filled: with black (-1), as `continued` does or as `led_inward`."""
    match how:
        case "black":
            return torch.where(mask > 0.5, -1.0, images)
        case "smooth":
            return continued(images, mask)
        case "inward":
            return led_inward(images, mask)


def continued(images: Images, mask: Mask) -> Images:
    """Pictures (b, c, h, w) whose holes (mask 1) are filled smoothly, from the known pixels alone.

    Nothing under the mask is read: a first stage looks at the pixels around a latent, too, so what lay in a hole would
    show beside it. Method: the picture is halved, by means of its known pixels, until every pixel is known; on the way
    back each hole takes the enlarged coarser picture. Source: Gortler et al. 1996 (pull-push).
    """
    known = 1 - mask
    if max(images.shape[-2:]) == 1 or bool((known > 0).all()):
        return images
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    means = F.avg_pool2d(images * known, 2, ceil_mode=True) / share.clamp(min=LEAST)
    coarse = continued(means, (share <= 0).to(mask))
    size = images.shape[-2:]
    smooth = F.interpolate(coarse, size=[size[0], size[1]], mode="bilinear", align_corners=False)
    return torch.where(known > 0, images, smooth)


def led_inward(images: Images, mask: Mask) -> Images:
    """Pictures (b, c, h, w) whose holes (mask 1) are filled from their rim inwards, so that edges go on into them.

    Layer by layer, all pixels p of one depth at once: p becomes the weighted mean of I(q) + grad I(q) (p - q) over the
    known pixels q around it. Weights favour q that lie in the direction in which the hole deepens, that are near, and
    that are about as deep as p; slopes are those of the given pixels. A picture without known pixels becomes zeros.
    Source: Telea 2004, eq. 1 and 2, in layers instead of pixel by pixel.
    """
    given = mask < 0.5
    depth = _depth(given)
    rim = (RADIUS,) * 4
    level, known = (rearrange(F.pad(each, rim), "b 1 h w -> b h w") for each in (depth, given))
    field = rearrange(F.pad(torch.where(given, images, 0.0), rim), "b c h w -> b h w c").contiguous()
    downwards, rightwards = (_slope(field, known, dim=dim) for dim in (1, 2))
    smooth = F.avg_pool2d(level[:, None], 3, 1, 1)[:, 0]
    y, x = _around(images)
    down, right = y.long(), x.long()
    for layer, places in enumerate(_layers(level), start=1):
        at, row, column = (each[:, None] for each in places)
        window = at, row + down, column + right
        deeper, aside = (
            smooth[at, row + dy, column + dx] - smooth[at, row - dy, column - dx] for dy, dx in ((1, 0), (0, 1))
        )
        along = (y * deeper + x * aside).abs() / torch.hypot(y, x) + LEAST
        weight = known[window] * along / (y**2 + x**2) / (1 + (level[window] - layer).abs())
        guess = field[window] - downwards[window] * y[:, None] - rightwards[window] * x[:, None]
        total = reduce(weight, "n k -> n 1", "sum").clamp(min=LEAST)
        field[places] = reduce(weight[..., None] * guess, "n k c -> n c", "sum") / total
        known[places] = True
    made = rearrange(field, "b h w c -> b c h w")[..., RADIUS:-RADIUS, RADIUS:-RADIUS]
    low = reduce(torch.where(given, images, torch.inf), "b c h w -> b c 1 1", "min")
    high = reduce(torch.where(given, images, -torch.inf), "b c h w -> b c 1 1", "max")
    seen = reduce(given, "b 1 h w -> b 1 1 1", "any")
    return torch.where(given, images, torch.where(seen, torch.clamp(made, low, high), 0.0))


def _around(like: Tensor) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Rows and columns, relative to a pixel, of all others within `RADIUS`."""
    side = torch.arange(-RADIUS, RADIUS + 1, device=like.device, dtype=like.dtype)
    y, x = (each.flatten() for each in torch.meshgrid(side, side, indexing="ij"))
    near = (torch.hypot(y, x) <= RADIUS) & (torch.hypot(y, x) > 0)
    return y[near], x[near]


def _slope(field: Float[Tensor, "b h w c"], known: Bool[Tensor, "b h w"], *, dim: int) -> Float[Tensor, "b h w c"]:
    """Central differences along an axis where both neighbours are known, else 0."""
    before, after = field.roll(1, dim), field.roll(-1, dim)
    both = known.roll(1, dim) & known.roll(-1, dim)
    return (after - before) / 2 * both[..., None]


def _depth(given: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Steps from each pixel to the nearest given one, odd steps over edges, even ones over corners, too.

    0 where a pixel is given, and where none of its picture is.
    """
    depth, reached = torch.zeros(given.shape, device=given.device), given.float()
    for layer in itertools.count(1):
        if layer % 2:
            across = F.max_pool2d(reached, (1, 3), 1, (0, 1))
            grown = torch.maximum(across, F.max_pool2d(reached, (3, 1), 1, (1, 0)))
        else:
            grown = F.max_pool2d(reached, 3, 1, 1)
        new = (grown > 0) & (reached == 0)
        depth, reached = torch.where(new, float(layer), depth), grown
        if layer % ASKED == 0 and not bool(new.any()):  # once a layer is empty, all others are
            break
    return depth


def _layers(depth: Float[Tensor, "b h w"]) -> Iterator[tuple[Int[Tensor, " n"], ...]]:
    """Numbers, rows and columns of the pixels of depth 1, 2, ...; the device is asked once for all of them."""
    flat = depth.flatten()
    counts = torch.bincount(flat.long()).tolist()
    places = torch.unravel_index(flat.argsort(stable=True), depth.shape)
    return itertools.islice(zip(*(each.split(counts) for each in places), strict=True), 1, None)

"""Holes filled with what is simplest to believe: what a denoiser is shown of them, or begins with."""

from typing import Final, Literal, TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from darkroom.core.shapes import Images, Mask

LEAST: Final = 1e-6  # of a square: fewer pixels are none
RADIUS: Final = 2  # pixels around one that speak for it; with more, edges are smeared
Fill: TypeAlias = Literal["black", "smooth", "inward"]


def filled(images: Images, mask: Mask, *, how: Fill) -> Images:
    """Pictures (b, c, h, w) with their holes (mask 1) black (-1), smooth (`continued`) or as `led_inward`."""
    match how:
        case "black":
            return torch.where(mask > 0.5, -1.0, images)
        case "smooth":
            return continued(images, mask)
        case "inward":
            return led_inward(images, mask)


def continued(images: Images, mask: Mask) -> Images:
    """Pictures (b, c, h, w) whose holes (mask 1) go on smoothly from what is known: nothing under a mask is seen.

    A first stage looks beyond a latent's own pixels, so what lies in a hole would show around it. Halved again and
    again by means of what is known, until something is; then enlarged where nothing was. Source: Gortler et al. 1996
    (pull-push).
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
    """Pictures (b, c, h, w) whose holes (mask 1) are filled from their edge inwards, so that edges go on into them.

    All pixels of one depth at once take the weighted mean over known q around them of I(q) + grad I(q) (p - q); weights
    favour q in the direction in which the hole deepens, near ones and those as deep as p, and slopes are those of
    given pixels. Where nothing is known, zeros. Source: Telea 2004, eq. 1 and 2, in layers instead of one by one.
    """
    given = mask < 0.5
    depth = _depth(given)
    rim = (RADIUS,) * 4
    level, known = (rearrange(F.pad(each, rim), "b 1 h w -> b h w") for each in (depth, given))
    field = rearrange(F.pad(torch.where(given, images, 0.0), rim), "b c h w -> b h w c").contiguous()
    downwards, rightwards = (_slope(field, known, dim=dim) for dim in (1, 2))
    round_ = F.avg_pool2d(level[:, None], 3, 1, 1)[:, 0]
    y, x = _around(images)
    for layer in range(1, 1 + int(depth.max())):
        at, row, column = (each[:, None] for each in torch.nonzero(level == layer, as_tuple=True))
        window = at, row + y.long(), column + x.long()
        deeper, aside = (
            round_[at, row + dy, column + dx] - round_[at, row - dy, column - dx] for dy, dx in ((1, 0), (0, 1))
        )
        along = (y * deeper + x * aside).abs() / torch.hypot(y, x) + LEAST
        weight = known[window] * along / (y**2 + x**2) / (1 + (level[window] - layer).abs())
        guess = field[window] - downwards[window] * y[:, None] - rightwards[window] * x[:, None]
        total = reduce(weight, "n k -> n 1", "sum").clamp(min=LEAST)
        place = tuple(each[:, 0] for each in (at, row, column))
        field[place] = reduce(weight[..., None] * guess, "n k c -> n c", "sum") / total
        known[place] = True
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
    """Steps from each pixel to the nearest given one, across edges and corners by turns; 0 where none is given."""
    depth, reached, layer = torch.zeros(given.shape, device=given.device), given.float(), 0
    while True:
        layer += 1
        across = F.max_pool2d(reached, (1, 3), 1, (0, 1))
        grown = torch.maximum(across, F.max_pool2d(reached, (3, 1), 1, (1, 0)))
        grown = grown if layer % 2 else F.max_pool2d(reached, 3, 1, 1)
        new = (grown > 0) & (reached == 0)
        if not bool(new.any()):
            return depth
        depth = torch.where(new, float(layer), depth)
        reached = grown

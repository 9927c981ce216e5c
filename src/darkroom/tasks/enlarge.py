"""Enlarging: the drawn picture, made small again, is held to the small one that was given."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from darkroom.core.shapes import Images
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request, Wish

LARGEST: Final = 8192  # pixels of a side, for its reduction is a whole matrix
_AT_ONCE: Final = 512  # columns of it


def own_match(model: Model) -> int:
    """1 for models that learnt from pictures made small by plain bicubic reduction, which can be held to; else 0."""
    known = cast("dict[str, Any]", model.card.get("data", {}))
    return int(cast("dict[str, Any]", known.get("degradation", {})).get("kind") == "bicubic")


def enlarged(model: Model, images: Images, *, request: Request, group: Sequence[Wish]) -> Images:
    """What was drawn (b, c, H, W), held to the small pictures of these wishes where `request.match` is 1."""
    if not request.low_res or not request.match:
        return images
    channels = model.spec.first_stage.image_channels
    small = [wish.low_res.pixels(channels) for wish in group if wish.low_res is not None]
    return held_to(images, torch.cat(small)).to(images)


def held_to(images: Images, small: Float[Tensor, "b c _h _w"]) -> Images:
    """The pictures nearest to `images` (b, c, H, W) that bicubic reduction makes `small` (b, c, h, w) of.

    Reduction is one matrix a side, A x B^T. What is missing of `small` is added through their pseudo-inverses; what
    reduction does not see stays as it was drawn. Source: Wang et al. 2023 (DDNM), eq. 9, once, at the end.
    """
    (down, up), (left, right) = (_reduction(*sides) for sides in zip(images.shape[-2:], small.shape[-2:], strict=True))
    down, up, left, right = (each.to(images.device) for each in (down, up, left, right))
    drawn = images.detach().float()
    missing = small.to(drawn) - down @ drawn @ left.T
    return drawn + up @ missing @ right.T


@lru_cache(maxsize=8)
def _reduction(large: int, small: int) -> tuple[Float[Tensor, "s l"], Float[Tensor, "l s"]]:
    """Bicubic reduction of one side with antialiasing, as `darkroom.data.degrade` does it, and its pseudo-inverse."""
    columns: list[Tensor] = []
    for start in range(0, large, _AT_ONCE):
        each = torch.zeros(1, 1, min(_AT_ONCE, large - start), large, dtype=torch.float64)
        each.diagonal(start, dim1=-2, dim2=-1).fill_(1)
        columns.append(F.interpolate(each, size=[each.shape[-2], small], mode="bicubic", antialias=True)[0, 0])
    matrix = torch.cat(columns).T
    return matrix.float(), torch.linalg.solve(matrix @ matrix.T, matrix).T.float()

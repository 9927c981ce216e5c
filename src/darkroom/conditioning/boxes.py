"""Boxes drawn as planes beside the noisy latent: where each category is, and where its objects end."""

from collections.abc import Sequence
from typing import ClassVar, Final, Literal, final

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from darkroom.core.errors import InputError
from darkroom.core.shapes import Choice, Images, Latent
from darkroom.core.spec import Spec

PLANES: Final = 2  # of a category: what its boxes cover, and their rims, which tell objects that touch apart


@final
class BoxesSpec(Spec):
    """Boxes with categories, drawn at latent size (`drawn_boxes`), then a 1 x 1 convolution to `channels` planes.

    `drop` is the share of samples trained without any. The paper has tokens for boxes (`LayoutSpec`); those are learnt
    from a hundred thousand pictures, planes from some hundred.
    """

    kind: Literal["boxes"] = "boxes"
    port: Literal["planes"] = "planes"
    categories: int = Field(gt=0)
    channels: int = Field(gt=0)
    drop: float = Field(default=0.0, ge=0, lt=1)

    field: ClassVar[str] = "objects"


def drawn_boxes(
    categories: Sequence[int], boxes: Sequence[Sequence[float]], *, known: int, size: tuple[int, int]
) -> Float[Tensor, "planes h w"]:
    """For each of `known` categories two planes: the share (0..1) of each cell that its boxes cover, and that rims do.

    boxes: x, y, width, height in 0..1 · rims: one cell wide, inside the box · size: height and width in cells.
    `InputError` for a category that is not known.
    """
    planes = torch.zeros(known, PLANES, *size)
    for category, (x, y, width, height) in zip(categories, boxes, strict=True):
        if not 0 <= category < known:
            raise InputError(f"categories must lie in 0..{known - 1}, {category} came")
        top, bottom, left, right = y * size[0], (y + height) * size[0], x * size[1], (x + width) * size[1]
        whole = torch.outer(_covered(top, bottom, size[0]), _covered(left, right, size[1]))
        inside = torch.outer(_covered(top + 1, bottom - 1, size[0]), _covered(left + 1, right - 1, size[1]))
        planes[category] = torch.maximum(planes[category], torch.stack([whole, whole - inside]))
    return rearrange(planes, "known planes h w -> (known planes) h w")


def _covered(start: float, end: float, cells: int) -> Float[Tensor, " cells"]:
    """The share of each of so many cells in a row that lies between two places."""
    at = torch.arange(cells, dtype=torch.float32)
    return ((at + 1).clamp(max=end) - at.clamp(min=start)).clamp(0, 1)


@final
class BoxesConditioner(nn.Module):
    """Drawn boxes to planes; a picture without boxes is the null condition."""

    def __init__(self, spec: BoxesSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mix = nn.Conv2d(PLANES * spec.categories, spec.channels, 1, bias=False)

    def forward(self, drawn: Images) -> Latent:
        """(b, 2 categories, h, w) to (b, channels, h, w)."""
        return self.mix(drawn)

    def drop(self, drawn: Images, choice: Choice) -> Images:
        """No boxes where `choice` says so."""
        return drawn * rearrange(~choice, "b -> b 1 1 1")

    def null(self, port: Images) -> Images:
        """The planes of no boxes (the convolution has no bias)."""
        return torch.zeros_like(port)

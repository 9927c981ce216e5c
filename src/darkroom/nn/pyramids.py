"""The two small networks of our own that look at pictures: one plain, one residual, different on purpose.

A model is trained against the plain one and judged by the residual one, so that a good mark is no echo of the loss.
"""

from typing import Annotated, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from darkroom.core.spec import Spec
from darkroom.nn.resample import halve
from darkroom.nn.residual import ResidualBlock


class PlainSpec(Spec):
    """Plain 3 x 3 convolutions with ReLU, the mean of 2 x 2 between levels (as VGG, which takes the maximum).

    widths: channels per level, the first at full resolution · depths: convolutions per level · eps: of the unit
    length in distances, in the taps' units.
    """

    kind: Literal["plain"] = "plain"
    widths: tuple[int, ...] = (16, 32, 64, 96)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    eps: float = Field(default=0.1, gt=0)


class ResidualSpec(Spec):
    """A 5 x 5 convolution of stride 2, then residual blocks with SiLU and GroupNorm; binomial blur before each halving.

    stem: channels after the first convolution · widths: of the blocks, the first at 1/2 of the resolution, then 1/4,
    ... · groups: of the norms · eps: as above.
    """

    kind: Literal["residual"] = "residual"
    stem: int = 24
    widths: tuple[int, ...] = (32, 64, 112, 160)
    groups: int = 8
    eps: float = Field(default=0.1, gt=0)


PyramidSpec = Annotated[PlainSpec | ResidualSpec, Field(discriminator="kind")]


@final
class PlainPyramid(nn.Module):
    """The network of a `PlainSpec`; answers the last map of every level."""

    def __init__(self, spec: PlainSpec) -> None:
        super().__init__()
        inputs = (3, *spec.widths[:-1])
        self.levels = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(c if i == 0 else width, width, 3, padding=1) for i in range(depth))
            for c, width, depth in zip(inputs, spec.widths, spec.depths, strict=True)
        )

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """(b, c_l, h / 2^l, w / 2^l) for each level l."""
        x, taps = pictures.contiguous(memory_format=torch.channels_last), []
        for level in self.levels:
            x = halve(x) if taps else x
            for convolution in level:
                x = F.relu(convolution(x))
            taps.append(x)
        return taps


@final
class ResidualPyramid(nn.Module):
    """The network of a `ResidualSpec`; answers the map after every block."""

    def __init__(self, spec: ResidualSpec) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, spec.stem, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(
            ResidualBlock(c, width, groups=spec.groups, eps=1e-5, resample=blur_halve if i else None)
            for i, (c, width) in enumerate(zip((spec.stem, *spec.widths[:-1]), spec.widths, strict=True))
        )

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """(b, c_l, h / 2^l, w / 2^l) for l = 1, 2, ..."""
        x, taps = self.stem(pictures), []
        for block in self.blocks:
            x = block(x)
            taps.append(x)
        return taps


def blur_halve(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Half the resolution after the binomial filter 1 3 3 1 on both axes, so that shifts do not alias (Zhang 2019)."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return halve(F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2, stride=1))


def pyramid(spec: PlainSpec | ResidualSpec) -> PlainPyramid | ResidualPyramid:
    """The network a spec describes, with random weights."""
    match spec:
        case PlainSpec():
            return PlainPyramid(spec)
        case ResidualSpec():
            return ResidualPyramid(spec)

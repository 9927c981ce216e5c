"""Tiny decoders made elsewhere, in the manner of TAESD (Bohan 2023).

They stand alone and take latents in the denoiser's units; ours (`tiny.py`) belong to a first stage and take its own.
"""

from typing import Annotated, Final, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from darkroom.core.shapes import Images, Latent
from darkroom.core.spec import Spec

REACH: Final = 3.0  # latents are softly limited to it


class PreviewSpec(Spec):
    """What such a decoder is made of.

    channels: width of all levels · blocks: residual blocks of each level, coarsest first; between two of them sides are
    doubled · scale: latents are divided by it.
    """

    image_channels: int = Field(default=3, gt=0, le=64)
    latent_channels: int = Field(default=4, gt=0, le=4096)
    channels: int = Field(default=64, gt=0, le=4096)
    blocks: tuple[Annotated[int, Field(ge=0, le=64)], ...] = Field(default=(3, 3, 3, 1), min_length=1, max_length=8)
    scale: float = Field(default=1.0, gt=0)

    @property
    def factor(self) -> int:
        """How many times larger than latents the pictures are."""
        return 2 ** (len(self.blocks) - 1)


@final
class PreviewBlock(nn.Module):
    """ReLU of x + three 3 x 3 convolutions with ReLUs between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: Latent) -> Latent:
        """(b, c, h, w) to the same."""
        return F.relu(x + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))


@final
class Preview(nn.Module):
    """Latents in the denoiser's units to pictures: (b, k, h, w) to (b, c, f h, f w) in about [-1, 1]."""

    def __init__(self, spec: PreviewSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.channels
        self.stem = nn.Conv2d(spec.latent_channels, width, 3, padding=1)
        self.levels = nn.ModuleList(nn.ModuleList(PreviewBlock(width) for _ in range(count)) for count in spec.blocks)
        self.enlarged = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in spec.blocks[1:])
        self.head = nn.Conv2d(width, spec.image_channels, 3, padding=1)

    def decode(self, latents: Latent) -> Images:
        """Pictures, not clipped."""
        h = F.relu(self.stem(torch.tanh(latents / self.spec.scale / REACH) * REACH))
        for place, level in enumerate(self.levels):
            if place:
                h = self.enlarged[place - 1](F.interpolate(h, scale_factor=2.0))
            for block in level:  # pyright: ignore[reportGeneralTypeIssues]  (of a ModuleList any Module comes)
                h = block(h)
        return 2 * self.head(h) - 1  # they were made for 0..1

"""A small decoder for previews and processors: plain 3 x 3 convolutions, no norms, no attention.

In the manner of TAESD (Bohan 2023); the last doublings are one pixel shuffle, for convolutions at full resolution are
what a decoder's time goes to. Its ReLUs leak: without norms, one step too long kills plain ones for good.
"""

import math
from collections.abc import Sequence
from typing import Annotated, TypeAlias, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, field_serializer, field_validator
from torch import Tensor, nn

from darkroom.autoencoder.statistics import LatentStatistics
from darkroom.core.shapes import Images, Latent
from darkroom.core.spec import Spec

REACH = 4.0  # standard deviations
SMALLEST = 1e-3
LEAK = 0.1
Width: TypeAlias = Annotated[int, Field(gt=0, le=4096)]
Depth: TypeAlias = Annotated[int, Field(gt=0, le=64)]


class TinyDecoderSpec(Spec):
    """What a tiny decoder is made of.

    channels, blocks: width and residual blocks of every level, or of several in turn: the last is that of the finest
    one, the first holds for all levels that are coarser · shuffle: how many of the doublings the last convolution
    makes at once by a pixel shuffle (all of them, where there are fewer).
    """

    channels: tuple[Width, ...] = Field(default=(64,), min_length=1)
    blocks: tuple[Depth, ...] = Field(default=(3,), min_length=1)
    shuffle: int = Field(default=1, ge=0, le=4)

    def levels(self, count: int) -> list[tuple[int, int]]:
        """Channels and blocks of each of so many levels."""
        return list(zip(_spread(self.channels, count), _spread(self.blocks, count), strict=True))

    @field_validator("channels", "blocks", mode="before")
    @classmethod
    def _of_every_level(cls, value: object) -> object:
        return (value,) if isinstance(value, int) else value

    @field_serializer("channels", "blocks")
    def _as_given(self, value: tuple[int, ...]) -> int | list[int]:
        return value[0] if len(value) == 1 else list(value)


def _spread(values: Sequence[int], count: int) -> list[int]:
    """One for each of so many levels: the last for the last, the first for all before those that are said."""
    return [values[max(0, len(values) - count + level)] for level in range(count)]


@final
class PlainBlock(nn.Module):
    """x + conv(LeakyReLU(conv(x))); it begins as x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """(b, c, h, w) to the same."""
        return x + self.conv2(F.leaky_relu(self.conv1(x), LEAK))


@final
class TinyDecoder(nn.Module):
    """Standardised latents to pictures: (b, in_channels, h, w) to (b, image_channels, f h, f w).

    Latents are softly limited to 4 standard deviations, tanh(z / 4) · 4: a network without norms answers a latent
    far out with colours far out, and a denoiser under strong guidance makes such latents.
    """

    def __init__(self, spec: TinyDecoderSpec, *, image_channels: int, in_channels: int, factor: int) -> None:
        super().__init__()
        doublings = int(math.log2(factor))
        shuffled = min(spec.shuffle, doublings)
        self.patch = 2**shuffled
        levels = spec.levels(doublings - shuffled + 1)
        wide = levels[0][0]
        self.stem = nn.Conv2d(in_channels, wide, 3, padding=1)
        self.levels = nn.ModuleList()
        for place, (width, blocks) in enumerate(levels):
            enlarged = [nn.Conv2d(wide, width, 1), nn.Upsample(scale_factor=2.0)] if place else []
            self.levels.append(nn.Sequential(*enlarged, *(PlainBlock(width) for _ in range(blocks))))
            wide = width
        self.head = nn.Conv2d(wide, image_channels * self.patch**2, 3, padding=1)

    def forward(self, latents: Latent) -> Images:
        """Pictures, not clipped."""
        h = F.leaky_relu(self.stem(torch.tanh(latents / REACH) * REACH), LEAK)
        for level in self.levels:
            h = level(h)
        return F.pixel_shuffle(self.head(h), self.patch)


@torch.no_grad()
def standardise(layer: nn.Conv2d, statistics: LatentStatistics) -> None:
    """Set a 1 x 1 convolution to (z - mean) / std per channel, from where training goes on.

    A linear layer and no buffer, so a model file needs no more than its weights; and zeros beside a latent, which
    convolutions pad with, then stand for its mean. Channels that hardly vary are divided by no less than a thousandth
    of the deviation of all.
    """
    mean, std = (torch.tensor(values, dtype=torch.float32) for values in (statistics.mean, statistics.std))
    scale = 1 / std.clamp(min=SMALLEST * statistics.whole)
    layer.weight.copy_(rearrange(torch.diag(scale), "k c -> k c 1 1"))
    layer.bias.copy_(-mean * scale)

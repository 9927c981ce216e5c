"""Halving, doubling and enlarging of feature maps."""

from functools import lru_cache
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def halve(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """The mean of every 2 x 2 square."""
    return F.avg_pool2d(x, 2)


def double(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Every value repeated 2 x 2 (nearest neighbour)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def enlarge(x: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h2 w2"]:
    """`factor` times larger on either side, bicubically: one matrix for the rows, one for the columns.

    The values of `interpolate`, which is slower on processors; in bfloat16 they are off by up to a level of 256.
    """
    rows, columns = (_bicubic(length, factor, device=x.device, dtype=x.dtype) for length in x.shape[-2:])
    return rows @ x.contiguous() @ columns.T


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _bicubic(length: int, factor: int, *, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "long short"]:
    """The matrix that enlarges a line. Kept, for making it takes longer than using it; gradients pass through it."""
    lines = torch.eye(length, device=device)[None, None]
    return F.interpolate(lines, size=(length * factor, length), mode="bicubic")[0, 0].to(dtype)


@final
class Downsample(nn.Module):
    """3 x 3 convolution of stride 2, padded on both sides, or on the right and bottom only (first stages)."""

    def __init__(self, channels: int, *, padding: Literal["both", "right"]) -> None:
        super().__init__()
        self.padding = (1, 1, 1, 1) if padding == "both" else (0, 1, 0, 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if padding == "both" else 0)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """(b, c, h, w) to (b, c, h/2, w/2)."""
        return self.conv(x if self.conv.padding[0] else F.pad(x, self.padding))


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3 x 3 convolution, to as many channels or to `out`."""

    def __init__(self, channels: int, *, out: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out or channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h2 w2"]:
        """(b, c, h, w) to (b, k, 2h, 2w)."""
        return self.conv(double(x))

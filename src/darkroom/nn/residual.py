"""The residual block of both networks: norm, SiLU, convolution, twice; with a time embedding or resampling if asked."""

from collections.abc import Callable
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from darkroom.nn.dropout import Dropout

Resample = Callable[[Tensor], Tensor]


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x); in place where gradients are off."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


@final
class ResidualBlock(nn.Module):
    """x + f(x, embedding) (Ho et al. 2020; up/down and scale-shift variants of Dhariwal & Nichol 2021).

    embedding: width of the time embedding (None: the block is not told the time) · scale_shift: the embedding scales
    and shifts after the second norm instead of being added before it · resample: `halve` or `double` on both branches
    after the first norm and SiLU · zero: the last convolution starts at zero, so the block starts as the identity.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        groups: int,
        eps: float,
        embedding: int | None = None,
        scale_shift: bool = False,
        dropout: float = 0.0,
        resample: Resample | None = None,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=eps)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.dropout = Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        width = 2 * out_channels if scale_shift else out_channels
        self.embed = None if embedding is None else nn.Linear(embedding, width)
        self.scale_shift = scale_shift
        self.resample = resample
        if zero:
            nn.init.zeros_(self.conv2.weight)
            nn.init.zeros_(self.conv2.bias)

    def forward(
        self, x: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b k h2 w2"]:
        """(b, channels, h, w) to (b, out_channels, h', w')."""
        h = silu(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv1(h)
        if self.embed is None:
            h = self.norm2(h)
        else:
            told = rearrange(self.embed(F.silu(embedding)), "b k -> b k 1 1")
            h = self._modulate(h, told)
        return self.skip(x) + self.conv2(self.dropout(silu(h)))

    def _modulate(self, h: Tensor, told: Tensor) -> Tensor:
        if not self.scale_shift:
            return self.norm2(h + told)
        scale, shift = told.chunk(2, dim=1)
        return self.norm2(h) * (1 + scale) + shift

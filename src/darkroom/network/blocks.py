"""The parts of the U-Net: a block (residual, perhaps attention), and levels that halve or double."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from darkroom.nn.attention import SelfAttention2d
from darkroom.nn.residual import ResidualBlock
from darkroom.nn.transformer import SpatialTransformer

Embedding = Float[Tensor, "b e"]
Context = Float[Tensor, "b l k"]


@final
class Block(nn.Module):
    """A residual block told the time, then attention where the spec wants it."""

    def __init__(
        self,
        residual: ResidualBlock,
        attention: SelfAttention2d | SpatialTransformer | None,
        *,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention = attention
        self.recompute = recompute

    def forward(
        self, x: Float[Tensor, "b c h w"], embedding: Embedding, tokens: Context | None
    ) -> Float[Tensor, "b out h w"]:
        """One block; its activations are recomputed in the backward pass if the spec says so."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._run, x, embedding, tokens, use_reentrant=False)
        return self._run(x, embedding, tokens)

    def _run(self, x: Tensor, embedding: Tensor, tokens: Tensor | None) -> Tensor:
        h = self.residual(x, embedding)
        match self.attention:
            case None:
                return h
            case SpatialTransformer():
                return self.attention(h, tokens)
            case _:
                return self.attention(h)


def _resampled(resample: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    return resample(h, embedding) if isinstance(resample, ResidualBlock) else resample(h)


@final
class DownLevel(nn.Module):
    """Blocks at one resolution, then halving (None at the lowest); every result is kept for the way up."""

    def __init__(self, blocks: list[Block], resample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample

    def forward(self, h: Tensor, embedding: Embedding, tokens: Context | None, skips: list[Tensor]) -> Tensor:
        """Appends to `skips`."""
        for block in self.blocks:
            h = block(h, embedding, tokens)
            skips.append(h)
        if self.resample is not None:
            h = _resampled(self.resample, h, embedding)
            skips.append(h)
        return h


@final
class Middle(nn.Module):
    """Residual, attention, residual at the lowest resolution."""

    def __init__(self, first: Block, last: ResidualBlock) -> None:
        super().__init__()
        self.first = first
        self.last = last

    def forward(self, h: Tensor, embedding: Embedding, tokens: Context | None) -> Tensor:
        """(b, c, h, w) to the same."""
        return self.last(self.first(h, embedding, tokens), embedding)


@final
class UpLevel(nn.Module):
    """Blocks that join what was kept on the way down, then doubling (None at the highest)."""

    def __init__(self, blocks: list[Block], resample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample

    def forward(self, h: Tensor, embedding: Embedding, tokens: Context | None, skips: list[Tensor]) -> Tensor:
        """Pops from `skips`."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding, tokens)
        return h if self.resample is None else _resampled(self.resample, h, embedding)

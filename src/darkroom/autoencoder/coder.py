"""Encoder and decoder of a first stage: levels of residual blocks, a middle with attention (paper, appendix G)."""

from typing import final

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from darkroom.nn.attention import SelfAttention2d
from darkroom.nn.norm import GroupNorm
from darkroom.nn.resample import Downsample, Upsample
from darkroom.nn.residual import ResidualBlock, silu

EPS = 1e-6


@final
class Middle(nn.Module):
    """Residual, attention over all positions (None: left out), residual."""

    def __init__(self, channels: int, *, attend: bool, groups: int, dropout: float) -> None:
        super().__init__()
        self.first = ResidualBlock(channels, channels, groups=groups, eps=EPS, dropout=dropout)
        self.attention = SelfAttention2d(channels, heads=1, groups=groups, eps=EPS) if attend else None
        self.last = ResidualBlock(channels, channels, groups=groups, eps=EPS, dropout=dropout)

    def forward(self, h: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """(b, c, h, w) to the same."""
        h = self.first(h)
        return self.last(h if self.attention is None else self.attention(h))


@final
class Level(nn.Module):
    """Residual blocks at one resolution, each perhaps followed by attention, then perhaps a change of resolution."""

    def __init__(
        self, blocks: list[ResidualBlock], attentions: list[SelfAttention2d], resample: nn.Module | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)
        self.resample = resample

    def forward(self, h: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h2 w2"]:
        """(b, c, h, w) to (b, k, h', w')."""
        for place, block in enumerate(self.blocks):
            h = block(h)
            if self.attentions:
                h = self.attentions[place](h)
        return h if self.resample is None else self.resample(h)


def _level(
    widths: tuple[int, int],
    *,
    blocks: int,
    attend: bool,
    resample: nn.Module | None,
    groups: int,
    dropout: float,
) -> Level:
    width, out = widths
    made = [
        ResidualBlock(width if first == 0 else out, out, groups=groups, eps=EPS, dropout=dropout)
        for first in range(blocks)
    ]
    attentions = [SelfAttention2d(out, heads=1, groups=groups, eps=EPS) for _ in made] if attend else []
    return Level(made, attentions, resample)


@final
class Encoder(nn.Module):
    """Pictures to moments: (b, c, H, W) to (b, out_channels, H/f, W/f).

    patch: pictures are first rearranged so that each patch x patch square becomes channels (1: they are not) ·
    attend_at: indices of levels whose blocks attend, highest resolution first.
    """

    def __init__(
        self,
        *,
        image_channels: int,
        patch: int,
        widths: tuple[int, ...],
        blocks: int,
        attend_at: frozenset[int],
        middle_attention: bool,
        out_channels: int,
        groups: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.stem = nn.Conv2d(image_channels * patch**2, widths[0], 3, padding=1)
        before = (widths[0], *widths)
        last = len(widths) - 1
        self.levels = nn.ModuleList(
            _level(
                (before[level], widths[level]),
                blocks=blocks,
                attend=level in attend_at,
                resample=None if level == last else Downsample(widths[level], padding="right"),
                groups=groups,
                dropout=dropout,
            )
            for level in range(len(widths))
        )
        self.middle = Middle(widths[-1], attend=middle_attention, groups=groups, dropout=dropout)
        self.norm = GroupNorm(groups, widths[-1], eps=EPS)
        self.head = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
        """The encoder's output before the 1 x 1 convolution to latents."""
        h = self.stem(F.pixel_unshuffle(images, self.patch))
        for level in self.levels:
            h = level(h)
        return self.head(silu(self.norm(self.middle(h))))


@final
class Decoder(nn.Module):
    """Latents to pictures: (b, in_channels, h, w) to (b, image_channels, f h, f w); levels from the lowest up."""

    def __init__(
        self,
        *,
        image_channels: int,
        patch: int,
        widths: tuple[int, ...],
        blocks: int,
        attend_at: frozenset[int],
        middle_attention: bool,
        in_channels: int,
        groups: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.stem = nn.Conv2d(in_channels, widths[-1], 3, padding=1)
        self.middle = Middle(widths[-1], attend=middle_attention, groups=groups, dropout=dropout)
        before = (*widths, widths[-1])
        self.levels = nn.ModuleList(
            _level(
                (before[level + 1], widths[level]),
                blocks=blocks + 1,
                attend=level in attend_at,
                resample=Upsample(widths[level]) if level else None,
                groups=groups,
                dropout=dropout,
            )
            for level in reversed(range(len(widths)))
        )
        self.norm = GroupNorm(groups, widths[0], eps=EPS)
        self.head = nn.Conv2d(widths[0], image_channels * patch**2, 3, padding=1)

    def forward(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
        """Pictures, not clipped."""
        h = self.middle(self.stem(latents))
        for level in self.levels:
            h = level(h)
        h = self.head(silu(self.norm(h)))
        return rearrange(h, "b (c p q) h w -> b c (h p) (w q)", p=self.patch, q=self.patch)

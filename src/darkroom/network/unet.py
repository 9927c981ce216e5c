"""The denoiser: a U-Net with three ports (ADM layout, Dhariwal & Nichol 2021, as the paper uses it)."""

import functools
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError, multiples_fit
from darkroom.core.shapes import Latent, Time
from darkroom.core.spec import Spec
from darkroom.network.blocks import Block, DownLevel, Middle, UpLevel
from darkroom.nn.attention import SelfAttention2d
from darkroom.nn.embed import TimeEmbedding
from darkroom.nn.norm import GroupNorm
from darkroom.nn.resample import Downsample, Upsample, double, halve
from darkroom.nn.residual import Resample, ResidualBlock, silu
from darkroom.nn.transformer import SpatialTransformer


class UNetSpec(Spec):
    """What a U-Net is made of.

    in_channels: latent channels plus those of the planes port · channels: width of the first level · multipliers: of
    each level's width, the next level at half the resolution · blocks: residual blocks per level (one more on the way
    up) · attention: downsampling factors at which blocks attend (the middle always does) · heads: number of heads, or
    head_channels: channels per head (one of both) · transformer_depth: 0 for plain self-attention, else the
    spatial transformer with that many blocks, whose tokens have context_width (None: it attends to itself) ·
    places: `waves` tells spatial transformers where each cell lies ·
    resample: `conv`, `pool` (no weights) or `residual` blocks · time_scale: factor on t (1000 for continuous times).
    """

    written_where_used: ClassVar = frozenset({"places"})

    in_channels: int = Field(gt=0)
    out_channels: int = Field(gt=0)
    channels: int = Field(gt=0)
    multipliers: tuple[PositiveInt, ...] = Field(min_length=1, max_length=16)
    blocks: int = Field(default=2, gt=0)
    attention: tuple[int, ...] = Field(default=(), max_length=16)
    heads: PositiveInt | None = None
    head_channels: PositiveInt | None = None
    transformer_depth: int = Field(default=0, ge=0)
    context_width: PositiveInt | None = None
    places: Literal["none", "waves"] = "none"
    resample: Literal["conv", "pool", "residual"] = "conv"
    scale_shift: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
    norm_groups: int = Field(default=32, gt=0)
    time_scale: float = Field(default=1.0, gt=0)
    recompute: bool = False

    @property
    def embedding_width(self) -> int:
        """Width of the time embedding, and so of the vector port."""
        return 4 * self.channels

    @property
    def size_multiple(self) -> int:
        """Latent sides must be multiples of this."""
        return 2 ** (len(self.multipliers) - 1)

    def heads_at(self, channels: int) -> int:
        """Number of attention heads at a width."""
        return self.heads if self.heads is not None else channels // (self.head_channels or channels)

    @model_validator(mode="after")
    def _consistent(self) -> "UNetSpec":
        if self.heads is not None and self.head_channels is not None:
            raise ValueError("heads and head_channels exclude each other: give one of them")
        if self.context_width is not None and self.transformer_depth == 0:
            raise ValueError("context_width needs transformer_depth of at least 1")
        if self.places != "none" and (self.transformer_depth == 0 or self.channels % 4):
            raise ValueError("places needs transformer_depth of at least 1, and channels that are a multiple of 4")
        for multiplier in self.multipliers:
            width = self.channels * multiplier
            if width % self.norm_groups:
                raise ValueError(f"norm_groups {self.norm_groups} does not divide the width {width}")
            if (self.head_channels and width % self.head_channels) or width % self.heads_at(width):
                raise ValueError(f"attention heads do not divide the width {width}")
        return self


@final
class UNet(nn.Module):
    """Predicts what the parameterisation asks for, from the noisy latent, the time and the conditions."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.time = TimeEmbedding(spec.channels, out_width=spec.embedding_width, scale=spec.time_scale)
        self.stem = nn.Conv2d(spec.in_channels, spec.channels, 3, padding=1)
        skips = [spec.channels]
        self.down = nn.ModuleList(_down(spec, skips))
        width = spec.channels * spec.multipliers[-1]
        self.middle = Middle(_block(spec, width, width, attend=True), _residual(spec, width, width))
        self.up = nn.ModuleList(_up(spec, skips))
        self.norm = GroupNorm(spec.norm_groups, spec.channels * spec.multipliers[0])
        self.head = nn.Conv2d(spec.channels * spec.multipliers[0], spec.out_channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Latent, t: Time, conditions: Conditions | None = None) -> Float[Tensor, "b out h w"]:
        """The raw output, (b, out_channels, h, w); `InputError` for a wrong size or ports that do not fit."""
        conditions = conditions or Conditions()
        self.check(x, conditions)
        return self.answer(x, conditions, embedding=self.embed(t, conditions))

    def embed(self, t: Time, conditions: Conditions) -> Float[Tensor, "b e"]:
        """What every block is told, (b, embedding_width): the time, and the vector among the conditions."""
        embedding = self.time(t)
        return embedding if conditions.vector is None else embedding + conditions.vector.to(embedding.dtype)

    def answer(
        self, x: Latent, conditions: Conditions, *, embedding: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b out h w"]:
        """As `forward`, of inputs that were checked, from what `embed` answers."""
        tokens = None if conditions.tokens is None else conditions.tokens.to(x.dtype)
        if conditions.planes is not None:
            x = torch.cat([x, conditions.planes.to(x.dtype)], dim=1)
        h = self.stem(x)
        skips = [h]
        for level in self.down:
            h = level(h, embedding, tokens, skips)
        h = self.middle(h, embedding, tokens)
        for level in self.up:
            h = level(h, embedding, tokens, skips)
        return self.head(silu(self.norm(h)))

    def check(self, x: Latent, conditions: Conditions) -> None:
        """`InputError` for a latent of a wrong size, or ports that do not fit."""
        multiple = self.spec.size_multiple
        height, width = x.shape[-2:]
        if height % multiple or width % multiple:
            fits = multiples_fit((height, width), multiple)
            raise InputError(f"latent size {height}x{width} does not fit this network: {fits}")
        self._check_ports(x, conditions)

    def _check_ports(self, x: Tensor, conditions: Conditions) -> None:
        planes, vector, tokens = conditions.planes, conditions.vector, conditions.tokens
        count = 0 if planes is None else planes.shape[1]
        if x.shape[1] + count != self.spec.in_channels:
            raise InputError(
                f"this network takes {self.spec.in_channels} channels, {x.shape[1]} latent and {count} plane "
                "channels came"
            )
        if planes is not None and planes.shape[-2:] != x.shape[-2:]:
            needed, size = (" x ".join(map(str, each.shape[-2:])) for each in (x, planes))
            raise InputError(f"planes must have the latent's size {needed}, {size} came")
        if vector is not None and vector.shape[-1] != self.spec.embedding_width:
            raise InputError(
                f"this network takes a vector of width {self.spec.embedding_width}, width {vector.shape[-1]} came"
            )
        wants = self.spec.context_width
        came = None if tokens is None else tokens.shape[-1]
        if came != wants:
            raise InputError(f"this network takes tokens of width {wants}, width {came} came (None: no tokens)")
        for name, port in (("tokens", tokens), ("vector", vector), ("planes", planes)):
            if port is not None and len(port) != len(x):  # one would be spread over all in silence, or the latents be
                raise InputError(f"{name} of {len(port)} samples came beside latents of {len(x)}; give as many")


def _residual(spec: UNetSpec, channels: int, out_channels: int, *, resample: Resample | None = None) -> ResidualBlock:
    return ResidualBlock(
        channels,
        out_channels,
        groups=spec.norm_groups,
        eps=1e-5,
        embedding=spec.embedding_width,
        scale_shift=spec.scale_shift,
        dropout=spec.dropout,
        resample=resample,
        zero=True,
    )


def _attention(spec: UNetSpec, channels: int) -> SelfAttention2d | SpatialTransformer:
    heads = spec.heads_at(channels)
    if spec.transformer_depth:
        return SpatialTransformer(
            channels,
            heads=heads,
            depth=spec.transformer_depth,
            context_width=spec.context_width,
            groups=spec.norm_groups,
            places=spec.places,
        )
    block = SelfAttention2d(channels, heads=heads, groups=spec.norm_groups, eps=1e-5)
    nn.init.zeros_(block.attention.out.weight)
    nn.init.zeros_(block.attention.out.bias)
    return block


def _block(spec: UNetSpec, channels: int, out_channels: int, *, attend: bool) -> Block:
    attention = _attention(spec, out_channels) if attend else None
    return Block(_residual(spec, channels, out_channels), attention, recompute=spec.recompute)


def _resampler(spec: UNetSpec, channels: int, *, down: bool) -> nn.Module:
    match spec.resample:
        case "conv":
            return Downsample(channels, padding="both") if down else Upsample(channels)
        case "pool":
            return nn.AvgPool2d(2) if down else nn.UpsamplingNearest2d(scale_factor=2)
        case "residual":
            return _residual(spec, channels, channels, resample=halve if down else double)


def _down(spec: UNetSpec, skips: list[int]) -> list[DownLevel]:
    """The levels on the way down; appends the width of everything kept to `skips`."""
    levels: list[DownLevel] = []
    width = spec.channels
    for depth, multiplier in enumerate(spec.multipliers):
        attend = 2**depth in spec.attention
        blocks: list[Block] = []
        for _ in range(spec.blocks):
            blocks.append(_block(spec, width, spec.channels * multiplier, attend=attend))
            width = spec.channels * multiplier
            skips.append(width)
        last = depth == len(spec.multipliers) - 1
        if not last:
            skips.append(width)
        levels.append(DownLevel(blocks, None if last else _resampler(spec, width, down=True)))
    return levels


def _up(spec: UNetSpec, skips: list[int]) -> list[UpLevel]:
    """The levels on the way up, lowest resolution first; uses up `skips`."""
    levels: list[UpLevel] = []
    width = spec.channels * spec.multipliers[-1]
    for depth, multiplier in reversed(list(enumerate(spec.multipliers))):
        make = functools.partial(_block, spec, attend=2**depth in spec.attention)
        blocks: list[Block] = []
        for _ in range(spec.blocks + 1):
            blocks.append(make(width + skips.pop(), spec.channels * multiplier))
            width = spec.channels * multiplier
        levels.append(UpLevel(blocks, _resampler(spec, width, down=False) if depth else None))
    return levels

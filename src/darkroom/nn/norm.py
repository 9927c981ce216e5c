"""Group norm (Wu & He 2018), written out where PyTorch's kernels for channels_last maps on processors are slow.

Unless a group has a multiple of 16 channels, those go through it number by number: in bfloat16 over small maps, and
backwards over any. Written out it goes by whole rows of channels, in float32, in pieces that a cache holds. Measured
with one thread, in bfloat16: of 8 maps of 16 x 16 with 128 channels in 16 groups 0.22 ms forwards instead of 0.99, and
0.37 backwards instead of 1.1; backwards of 8 maps of 32 x 32 with 64 channels 0.71 ms instead of 3.7, of 2 maps of
128 x 128 with 32 channels 1.3 ms instead of 15. In float32 only large maps gain, and those backwards.
"""

from collections.abc import Iterator
from typing import Any, Final, final

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

TOGETHER: Final = 16  # channels of a group that PyTorch's kernels take at once
LARGE: Final = 1024  # places of a map, from which on those go forwards by rows, too
LEAST: Final = 2**16  # numbers of all maps together: of fewer, a dozen calls cost more than one slow one
PIECE: Final = 2**18  # numbers that are worked on at a time: a megabyte
Moments = Float[Tensor, "b g"]


@final
class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, whose numbers are the same but for rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """(b, c, h, w) to the same; where it is written out, its gradient carries none itself."""
        if not self._is_slow(input):
            return super().forward(input)
        small, narrow = input.shape[2] * input.shape[3] < LARGE, input.dtype == torch.bfloat16
        differentiated = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        if differentiated and (narrow or not small):
            return _Written.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        if not differentiated and narrow and small:
            return _forwards(input, self.weight, self.bias, groups=self.num_groups, eps=self.eps)[0]
        return super().forward(input)

    def _is_slow(self, x: Tensor) -> bool:
        """May PyTorch's kernel be slow? What is compiled or traced is left to whoever does that."""
        return (
            not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and x.device.type == "cpu"
            and x.numel() >= LEAST
            and (self.num_channels // self.num_groups) % TOGETHER > 0
            and x.dtype in (torch.float32, torch.bfloat16)
            and self.weight.dtype == torch.float32
            and x.is_contiguous(memory_format=torch.channels_last)
            and not x.is_contiguous()
        )


@final
class _Written(torch.autograd.Function):
    """With gradients: backwards always written out, forwards where PyTorch's kernel is slow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *settled: Any) -> Tensor:
        weight, bias, groups, eps = settled
        b, c, h, w = x.shape
        if h * w < LARGE:
            y, mean, rate = _forwards(x, weight, bias, groups=groups, eps=eps)
        else:
            y, mean, rate = torch.native_group_norm(x, weight, bias, b, c, h * w, groups, eps)
        ctx.save_for_backward(x, weight, mean, rate)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rate = ctx.saved_tensors
        return *_backwards(x, slope, weight, mean=mean, rate=rate), None, None


def _forwards(x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float) -> tuple[Tensor, Moments, Moments]:
    """(x - mean) rate weight + bias, and what it took: rate is the inverse of the deviation."""
    made, (mean, rate) = torch.empty_like(x), torch.empty(2, len(x), groups, device=x.device)
    given, taken = _by_place(x), _by_place(made)
    weights = rearrange(weight, "(g d) -> g d", g=groups)
    for samples, places in _pieces(given, whole=True):
        z = given[samples, places].to(torch.float32, copy=True)
        mean[samples] = _grouped(z.mean(1), groups).mean(2)
        z -= _to_channels(mean[samples], x)
        rate[samples] = (_grouped(z.square().mean(1), groups).mean(2) + eps).rsqrt()
        scale = rearrange(rate[samples, :, None] * weights, "b g d -> b 1 (g d)")
        taken[samples, places] = torch.addcmul(bias, z, scale)
    return made, mean, rate


def _backwards(
    x: Tensor, slope: Tensor, weight: Tensor, *, mean: Moments, rate: Moments
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias.

    With z = (x - mean) rate, p = slope weight and means over a group: rate (p - mean(p) - z mean(p z)), put as a factor
    of slope, a factor of x, and a level; Σ slope z; Σ slope.
    """
    made, groups = torch.empty_like(x), mean.shape[1]
    given, slopes, taken = _by_place(x), _by_place(slope), _by_place(made)
    with_x, alone = torch.zeros(2, len(x), x.shape[1], device=x.device)
    for at in _pieces(given):
        part = slopes[at].float()
        alone[at[0]] += part.sum(1)
        with_x[at[0]] += (part * given[at]).sum(1)
    weights, m, r = rearrange(weight, "(g d) -> g d", g=groups), mean[..., None], rate[..., None]
    pull = _grouped(alone, groups)
    turn = (_grouped(with_x, groups) - m * pull) * r
    numbers = x[0].numel() // groups
    even, along = ((weights * each).sum(2) / numbers for each in (pull, turn))
    by_slope = rearrange(r * weights, "b g d -> b 1 (g d)")
    by_x, level = (_to_channels(each, x) for each in (-rate.square() * along, rate * (rate * along * mean - even)))
    for at in _pieces(given):
        part = torch.addcmul(level[at[0]], slopes[at].float(), by_slope[at[0]])
        taken[at] = part.addcmul_(given[at].float(), by_x[at[0]])
    return made, rearrange(turn.sum(0), "g d -> (g d)"), alone.sum(0)


def _by_place(x: Tensor) -> Float[Tensor, "b n c"]:
    """Its rows of channels; the same memory where that is channels_last."""
    return rearrange(x, "b c h w -> b (h w) c")


def _grouped(x: Float[Tensor, "b c"], groups: int) -> Float[Tensor, "b g d"]:
    return rearrange(x, "b (g d) -> b g d", g=groups)


def _to_channels(x: Moments, like: Tensor) -> Float[Tensor, "b 1 c"]:
    """One number a group, beside rows of channels."""
    return repeat(x, "b g -> b 1 (g d)", d=like.shape[1] // x.shape[1])


def _pieces(rows: Float[Tensor, "b n c"], *, whole: bool = False) -> Iterator[tuple[slice, slice]]:
    """Samples and places of pieces that are small enough; whole: of all places."""
    count, places, channels = rows.shape
    length = places if whole else max(1, PIECE // channels)
    samples = max(1, PIECE // channels // places)
    for first in range(0, count, samples):
        for place in range(0, places, length):
            yield slice(first, first + samples), slice(place, place + length)

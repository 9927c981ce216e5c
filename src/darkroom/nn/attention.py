"""Attention over sequences, and over the positions of a feature map."""

from typing import Final, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

SMALL: Final = 64 * 64  # scores of one head: as many, or fewer, are written out where they need gradients
FEW: Final = 2048  # likewise where they need none, for each number of a head's width


def attend(
    q: Float[Tensor, "b heads n d"],
    *,
    k: Float[Tensor, "b heads l d"],
    v: Float[Tensor, "b heads l d"],
    causal: bool = False,
) -> Float[Tensor, "b heads n d"]:
    """softmax(Q Kᵀ / √d) V (Vaswani et al. 2017, eq. 1); causal: each of a sequence sees itself and those before it.

    Few scores are written out on a processor: with gradients, where forwards and backwards of the fused kernel took 2.7
    times as long for 64 keys and 6.9 times for 20 (bfloat16, two cores; 1.1 and 1.9 times in float32), and in bfloat16
    without them, where it took 1.3 to 1.7 times as long for 64 to 256 keys of a width of 40 to 80, and 2.4 times for
    1,024 of 512. They are rounded to the type of q before the softmax, which is computed in float32 at least.
    """
    if not _written_out(q, k):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    if not scores.requires_grad:
        return scores.softmax(-1) @ v  # the kernel computes in float32 and rounds once
    wide = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(-1, dtype=wide).to(v.dtype) @ v


def _written_out(q: Tensor, k: Tensor) -> bool:
    if q.device.type != "cpu":
        return False
    count = q.shape[2] * k.shape[2]
    return count <= SMALL if q.requires_grad else q.dtype == torch.bfloat16 and count <= FEW * q.shape[3]


def by_head(x: Float[Tensor, "b n e"], heads: int) -> Float[Tensor, "b heads n d"]:
    """The width cut into as many heads."""
    return rearrange(x, "b n (heads d) -> b heads n d", heads=heads)


def together(x: Float[Tensor, "b heads n d"]) -> Float[Tensor, "b n e"]:
    """The heads side by side again."""
    return rearrange(x, "b heads n d -> b n (heads d)")


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2).

    width: of the sequence · heads x head_width: inner width · context_width: of what is attended to (None: the
    sequence itself) · bias: of query, key and value (the output always has one) · causal: see `attend`.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        head_width: int,
        context_width: int | None = None,
        bias: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.causal = causal
        self.query = nn.Linear(width, inner, bias=bias)
        self.key = nn.Linear(context_width or width, inner, bias=bias)
        self.value = nn.Linear(context_width or width, inner, bias=bias)
        self.out = nn.Linear(inner, width)

    def forward(
        self, x: Float[Tensor, "b n d"], context: Float[Tensor, "b l k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """The sequence attending to `context`, or to itself."""
        source = x if context is None else context
        q, k, v = (by_head(each, self.heads) for each in (self.query(x), self.key(source), self.value(source)))
        return self.out(together(attend(q, k=k, v=v, causal=self.causal)))


@final
class SelfAttention2d(nn.Module):
    """Every position of a feature map attends to every other; normalised before, added after."""

    def __init__(self, channels: int, *, heads: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=eps)
        self.attention = Attention(channels, heads=heads, head_width=channels // heads, bias=True)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """(b, c, h, w) to the same."""
        mixed = self.attention(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        return x + rearrange(mixed, "b (h w) c -> b c h w", h=x.shape[2])

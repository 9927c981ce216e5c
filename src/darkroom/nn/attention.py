"""Attention over sequences, and over the positions of a feature map."""

from typing import Final, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from darkroom.nn.norm import GroupNorm

SMALL: Final = 64 * 64  # scores of one head: as many, or fewer, are written out where they need gradients
NARROW: Final = 2**17  # likewise in bfloat16
FEW: Final = 2048  # in bfloat16 where they need none, for each number of a head's width


def attend(
    q: Float[Tensor, "b heads n d"],
    *,
    k: Float[Tensor, "b heads l d"],
    v: Float[Tensor, "b heads l d"],
    causal: bool = False,
) -> Float[Tensor, "b heads n d"]:
    """softmax(Q Kᵀ / √d) V (Vaswani et al. 2017, eq. 1); causal: each of a sequence sees itself and those before it.

    Few scores are written out on a processor. With gradients, in bfloat16 and a width of 32, forwards and backwards of
    the fused kernel took 6.1 times as long for 64 places and keys, 2.4 times for 256, and 5.2 times for 256 places and
    32 keys, 3.4 for 77 (a width of 40, 1,024 places and 77 keys: 1.9); in float32 never less for 64, and more from 256
    on. Without gradients it took 1.3 to 1.7 times as long for 64 to 256 keys of a width of 40 to 80, and 2.4 times for
    1,024 of 512. Scores are rounded to the type of q before the softmax, and after it, which is computed in float32: up
    to 1.8 times the error of the fused kernel's gradients where few keys take all.
    """
    if not _written_out(q, k):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(-1) @ v


def _written_out(q: Tensor, k: Tensor) -> bool:
    if q.device.type != "cpu":
        return False
    count, narrow = q.shape[2] * k.shape[2], q.dtype == torch.bfloat16
    if q.requires_grad:
        return count <= (NARROW if narrow else SMALL)
    return narrow and count <= FEW * q.shape[3]


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
        self.norm = GroupNorm(groups, channels, eps=eps)
        self.attention = Attention(channels, heads=heads, head_width=channels // heads, bias=True)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """(b, c, h, w) to the same."""
        mixed = self.attention(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        return x + rearrange(mixed, "b (h w) c -> b c h w", h=x.shape[2])

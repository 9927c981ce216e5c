"""Transformers: the block inside the U-Net, and the encoder of texts and layouts."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from darkroom.core.spec import Spec
from darkroom.nn.attention import Attention
from darkroom.nn.embed import kept_place_waves, place_waves
from darkroom.nn.norm import GroupNorm

EncoderFamily: TypeAlias = Literal["bert", "clip"]
QUICK: Final = 1.702  # CLIP's GELU(x) is x sigmoid(1.702 x)


class GatedFeedForward(nn.Module):
    """GEGLU: value · GELU(gate), four times the width, then back (Shazeer 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 8 * width)
        self.out = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """(b, n, d) to the same."""
        value, gate = self.expand(x).chunk(2, dim=-1)
        return self.out(value * F.gelu(gate))


@final
class TransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward, each normalised before and added after."""

    def __init__(self, width: int, *, heads: int, head_width: int, context_width: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads=heads, head_width=head_width)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads=heads, head_width=head_width, context_width=context_width)
        self.norm3 = nn.LayerNorm(width)
        self.feed_forward = GatedFeedForward(width)

    def forward(self, x: Float[Tensor, "b n d"], context: Float[Tensor, "b l k"] | None) -> Float[Tensor, "b n d"]:
        """Without context the second attention is self-attention too."""
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), context)
        return x + self.feed_forward(self.norm3(x))


@final
class SpatialTransformer(nn.Module):
    """The cells of a feature map as a sequence that attends to itself and to the conditions (paper, section 3.3).

    places: `waves` tells the sequence where each cell lies; `none` leaves that to the padding of convolutions.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        depth: int,
        context_width: int | None,
        groups: int,
        places: Literal["none", "waves"] = "none",
    ) -> None:
        super().__init__()
        self.places = places
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.project_in = nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                channels,
                heads=heads,
                head_width=channels // heads,
                context_width=context_width,
            )
            for _ in range(depth)
        )
        self.project_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)

    def forward(self, x: Float[Tensor, "b c h w"], context: Float[Tensor, "b l k"] | None) -> Float[Tensor, "b c h w"]:
        """(b, c, h, w) and (b, l, k) to (b, c, h, w)."""
        sequence = self.project_in(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        if self.places == "waves":
            sequence = sequence + _waves((x.shape[2], x.shape[3]), like=sequence)
        for block in self.blocks:
            sequence = block(sequence, context)
        return x + rearrange(self.project_out(sequence), "b (h w) c -> b c h w", h=x.shape[2])


def _waves(size: tuple[int, int], *, like: Float[Tensor, "b n d"]) -> Float[Tensor, "n d"]:
    """Where the cells of a map lie; what is compiled makes a constant of them itself, and cannot look anything up."""
    width, device = like.shape[-1], like.device
    if torch.compiler.is_compiling():
        return place_waves(size, width, device=device).to(like.dtype)
    return kept_place_waves(size, width, device=device, dtype=like.dtype)


@final
class LayerSpec(Spec):
    """What an encoder's layer is beside its width and heads.

    hidden: width inside the feed-forward, None for four times the layer's · bias: of queries, keys and values · causal:
    each of a sequence sees itself and those before it · bend: `gelu`, CLIP's `quick_gelu` (x · sigmoid(1.702 x)), or
    `swiglu`, whose first half gates the second (Shazeer 2020) · scaled: a learnt factor on what each part adds.
    """

    hidden: int | None = Field(default=None, gt=0, le=65536)
    eps: float = Field(default=1e-5, gt=0)
    bias: bool = False
    causal: bool = False
    bend: Literal["gelu", "quick_gelu", "swiglu"] = "gelu"
    scaled: bool = False


LAYERS: Final[Mapping[EncoderFamily, LayerSpec]] = {
    "bert": LayerSpec(),
    "clip": LayerSpec(bias=True, causal=True, bend="quick_gelu"),
}


@final
class EncoderLayer(nn.Module):
    """Attention, then a plain feed-forward, each normalised before and added after."""

    def __init__(self, width: int, *, heads: int, head_width: int, spec: LayerSpec = LAYERS["bert"]) -> None:
        super().__init__()
        hidden = spec.hidden or 4 * width
        self.bend = spec.bend
        self.norm1 = nn.LayerNorm(width, eps=spec.eps)
        self.attention = Attention(width, heads=heads, head_width=head_width, bias=spec.bias, causal=spec.causal)
        self.norm2 = nn.LayerNorm(width, eps=spec.eps)
        self.expand = nn.Linear(width, hidden * (2 if spec.bend == "swiglu" else 1))
        self.out = nn.Linear(hidden, width)
        scales = (nn.Parameter(torch.ones(width)) if spec.scaled else None for _ in range(2))
        self.scale1, self.scale2 = scales

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """(b, n, d) to the same."""
        x = x + _scaled(self.attention(self.norm1(x)), self.scale1)
        return x + _scaled(self.out(self._bent(self.expand(self.norm2(x)))), self.scale2)

    def _bent(self, x: Float[Tensor, "b n e"]) -> Float[Tensor, "b n f"]:
        match self.bend:
            case "gelu":
                return F.gelu(x)
            case "quick_gelu":
                return x * torch.sigmoid(QUICK * x)
            case "swiglu":
                gate, value = x.chunk(2, dim=-1)
                return F.silu(gate) * value


@final
class TransformerEncoder(nn.Module):
    """`depth` layers and a last norm.

    family: `bert` sees the whole sequence, as the paper's text encoder does; `clip` is CLIP's text model (Radford et
    al. 2021).
    """

    def __init__(self, width: int, *, depth: int, heads: int, head_width: int, family: EncoderFamily = "bert") -> None:
        super().__init__()
        sizes = {"heads": heads, "head_width": head_width}
        self.layers = nn.ModuleList(EncoderLayer(width, **sizes, spec=LAYERS[family]) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """(b, l, d) to the same."""
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


def _scaled(x: Float[Tensor, "b n d"], scale: Float[Tensor, " d"] | None) -> Float[Tensor, "b n d"]:
    return x if scale is None else x * scale

"""Vision transformers that judge (DINOv2, CLIP's image encoder), and CLIP's text encoder: one stack of layers.

Dosovitskiy et al. 2021; Radford et al. 2021 (a norm before the layers, x · sigmoid(1.702 x), projections into one space
of pictures and texts); Oquab et al. 2023 (a learnt scale after attention and feed-forward).
"""

from typing import Literal, final

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from darkroom.core.shapes import Ids
from darkroom.core.spec import Spec


@final
class StackSpec(Spec):
    """Layers over a sequence, each normalised before and added after.

    hidden: width inside the feed-forward · gated: SwiGLU there · scaled: a learnt factor on what each part adds ·
    quick: x · sigmoid(1.702 x) for GELU · causal: positions see those before them alone.
    """

    width: int = Field(gt=0, le=16384)
    depth: int = Field(gt=0, le=256)
    heads: int = Field(gt=0, le=256)
    hidden: int = Field(gt=0, le=65536)
    eps: float = Field(gt=0)
    scaled: bool = False
    gated: bool = False
    quick: bool = False
    causal: bool = False


@final
class ImageEncoderSpec(Spec):
    """Patches of pictures, a class token, a stack; what the class token becomes is the answer.

    kind: dinov2 (positions fitted to the picture's size, a bias on patches) or clip (a norm before the layers) ·
    side: pixels of the pictures that positions were learnt for · projection: width of the answer, None for the stack's.
    """

    kind: Literal["dinov2", "clip"]
    stack: StackSpec
    side: int = Field(gt=0, le=4096)
    patch: int = Field(gt=0, le=512)
    projection: int | None = Field(default=None, gt=0)


@final
class TextEncoderSpec(Spec):
    """Tokens and positions, a causal stack; what the token that ends a text becomes is the answer."""

    stack: StackSpec
    vocabulary: int = Field(gt=0, le=2**20)
    length: int = Field(gt=0, le=2**16)
    end: int = Field(ge=0)
    projection: int = Field(gt=0)


@final
class Layer(nn.Module):
    """Attention, then feed-forward."""

    def __init__(self, spec: StackSpec) -> None:
        super().__init__()
        self.spec, width = spec, spec.width
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=spec.eps), nn.LayerNorm(width, eps=spec.eps)
        self.query, self.key, self.value, self.mixed = (nn.Linear(width, width) for _ in range(4))
        self.expand = nn.Linear(width, spec.hidden * (2 if spec.gated else 1))
        self.shrink = nn.Linear(spec.hidden, width)
        scales = (nn.Parameter(torch.ones(width)) if spec.scaled else None for _ in range(2))
        self.scale1, self.scale2 = scales

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """(b, n, d) to the same."""
        x = x + _scaled(self._attend(self.norm1(x)), self.scale1)
        return x + _scaled(self.shrink(self._bent(self.expand(self.norm2(x)))), self.scale2)

    def _attend(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        heads = self.spec.heads
        q, k, v = (rearrange(part(x), "b n (h d) -> b h n d", h=heads) for part in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.spec.causal)
        return self.mixed(rearrange(mixed, "b h n d -> b n (h d)"))

    def _bent(self, x: Tensor) -> Tensor:
        if self.spec.gated:
            gate, value = x.chunk(2, dim=-1)
            return F.silu(gate) * value
        return x * torch.sigmoid(1.702 * x) if self.spec.quick else F.gelu(x)


@final
class ImageEncoder(nn.Module):
    """The network of an `ImageEncoderSpec`."""

    def __init__(self, spec: ImageEncoderSpec) -> None:
        super().__init__()
        width, clip = spec.stack.width, spec.kind == "clip"
        self.spec = spec
        self.patches = nn.Conv2d(3, width, spec.patch, stride=spec.patch, bias=not clip)
        self.token = nn.Parameter(torch.zeros(width))
        self.places = nn.Parameter(torch.zeros(1 + (spec.side // spec.patch) ** 2, width))
        self.before = nn.LayerNorm(width, eps=spec.stack.eps) if clip else nn.Identity()
        self.layers = nn.ModuleList(Layer(spec.stack) for _ in range(spec.stack.depth))
        self.after = nn.LayerNorm(width, eps=spec.stack.eps)
        self.project = nn.Linear(width, spec.projection, bias=False) if spec.projection else nn.Identity()

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Normalised pictures to one vector each."""
        cells = self.patches(pictures)
        height, width = cells.shape[-2:]
        token = repeat(self.token, "d -> b 1 d", b=len(cells))
        x = torch.cat([token, rearrange(cells, "b d h w -> b (h w) d")], dim=1) + self._places(height, width)
        x = self.before(x)
        for layer in self.layers:
            x = layer(x)
        return self.project(self.after(x[:, 0]))

    def _places(self, height: int, width: int) -> Float[Tensor, "n d"]:
        """Those learnt, bicubic where the picture has another size."""
        side = self.spec.side // self.spec.patch
        if (height, width) == (side, side):
            return self.places
        table = rearrange(self.places[1:].float(), "(h w) d -> 1 d h w", h=side)
        table = F.interpolate(table, size=(height, width), mode="bicubic", align_corners=False)
        return torch.cat([self.places[:1], rearrange(table, "1 d h w -> (h w) d").to(self.places.dtype)])


@final
class TextEncoder(nn.Module):
    """The network of a `TextEncoderSpec`."""

    def __init__(self, spec: TextEncoderSpec) -> None:
        super().__init__()
        width = spec.stack.width
        self.spec = spec
        self.tokens = nn.Embedding(spec.vocabulary, width)
        self.places = nn.Parameter(torch.zeros(spec.length, width))
        self.layers = nn.ModuleList(Layer(spec.stack) for _ in range(spec.stack.depth))
        self.after = nn.LayerNorm(width, eps=spec.stack.eps)
        self.project = nn.Linear(width, spec.projection, bias=False)

    def forward(self, ids: Ids) -> Float[Tensor, "b e"]:
        """(b, l) ids, each row with the token that ends a text, to one vector each."""
        x = self.tokens(ids) + self.places[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        ends: Int[Tensor, " b"] = (ids == self.spec.end).int().argmax(1)
        return self.project(self.after(x[torch.arange(len(x), device=x.device), ends]))


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale

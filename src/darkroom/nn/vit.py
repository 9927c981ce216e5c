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
from darkroom.nn.transformer import EncoderLayer, LayerSpec


@final
class StackSpec(Spec):
    """`depth` layers of one kind over a sequence."""

    width: int = Field(gt=0, le=16384)
    depth: int = Field(gt=0, le=256)
    heads: int = Field(gt=0, le=256)
    layer: LayerSpec


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
class ImageEncoder(nn.Module):
    """The network of an `ImageEncoderSpec`."""

    def __init__(self, spec: ImageEncoderSpec) -> None:
        super().__init__()
        width, clip = spec.stack.width, spec.kind == "clip"
        self.spec = spec
        self.patches = nn.Conv2d(3, width, spec.patch, stride=spec.patch, bias=not clip)
        self.token = nn.Parameter(torch.zeros(width))
        self.places = nn.Parameter(torch.zeros(1 + (spec.side // spec.patch) ** 2, width))
        self.before = _norm(spec.stack) if clip else nn.Identity()
        self.layers, self.after = _layers(spec.stack), _norm(spec.stack)
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
        self.layers, self.after = _layers(spec.stack), _norm(spec.stack)
        self.project = nn.Linear(width, spec.projection, bias=False)

    def forward(self, ids: Ids) -> Float[Tensor, "b e"]:
        """(b, l) ids, each row with the token that ends a text, to one vector each."""
        x = self.tokens(ids) + self.places[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        ends: Int[Tensor, " b"] = (ids == self.spec.end).int().argmax(1)
        return self.project(self.after(x[torch.arange(len(x), device=x.device), ends]))


def _layers(spec: StackSpec) -> nn.ModuleList:
    width, heads = spec.width, spec.heads
    return nn.ModuleList(
        EncoderLayer(width, heads=heads, head_width=width // heads, spec=spec.layer) for _ in range(spec.depth)
    )


def _norm(spec: StackSpec) -> nn.LayerNorm:
    return nn.LayerNorm(spec.width, eps=spec.layer.eps)

"""Pictures to training samples: resize, crop and flip as functions of (seed, sample index).

`transform` = `prepare` (decoded picture to the pixels worth keeping in memory) then `finish` (the draws).
"""

from collections.abc import Iterable
from typing import Annotated, Literal, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Int, Integer, UInt8
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from darkroom.core.pictures import to_bytes
from darkroom.core.seeds import generator, uniform
from darkroom.core.shapes import Choice
from darkroom.core.spec import Spec

Pixels = UInt8[Tensor, "c _h _w"]  # heights and widths change from argument to answer


@final
class TransformSpec(Spec):
    """How a picture becomes a square sample of `size` pixels.

    channels: 1 grey, 3 RGB, 4 RGBA · crop: where the square is cut · flip: mirror every other sample ·
    scale: the shorter side is first resized to `size` times a factor drawn from this range (at least 1).
    """

    size: Annotated[int, Field(ge=1)]
    channels: Literal[1, 3, 4] = 3
    crop: Literal["centre", "random"] = "centre"
    flip: bool = False
    scale: tuple[Annotated[float, Field(ge=1)], Annotated[float, Field(ge=1, le=8)]] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "TransformSpec":
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must go from low to high, {self.scale} came")
        return self

    @property
    def random(self) -> bool:
        """Does more than the mirror image depend on the sample?"""
        return self.crop == "random" or self.scale is not None

    @property
    def kept(self) -> int:
        """Shorter side in pixels of what `prepare` answers."""
        return self.size if self.scale is None else round(self.size * self.scale[1])


def transform(picture: Image.Image, spec: TransformSpec, *, seed: int, index: int) -> Pixels:
    """Sample `index` made of this picture, (channels, size, size) uint8."""
    return finish(prepare(picture, spec), spec, seed=seed, index=index)


def still(picture: Image.Image, spec: TransformSpec) -> Pixels:
    """The picture without any chance: shorter side to `size`, centre square, not mirrored."""
    return _cut(resize(to_bytes(picture, spec.channels), spec.size), spec.size)


def still_map(ids: Integer[Tensor, "_h _w"], spec: TransformSpec) -> Int[Tensor, "s s"]:
    """Class ids, each below 2^15, cut as `still` cuts the picture; of pixels that become one, the nearest speaks."""
    height, width = ids.shape
    factor = spec.size / min(height, width)
    size = [max(spec.size, round(side * factor)) for side in (height, width)]
    batch = rearrange(ids.float(), "h w -> 1 1 h w")  # exact, and what can be resized
    resized = batch if [height, width] == size else F.interpolate(batch, size=size, mode="nearest-exact")
    height, width = resized.shape[-2:]
    top, left = (height - spec.size) // 2, (width - spec.size) // 2
    return resized[0, 0, top : top + spec.size, left : left + spec.size].to(torch.int16)


def seen_of(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The centre square of a picture of this width and height, as x, y, width, height in 0..1 of the whole."""
    side = min(size)
    across, down = (side / each for each in size)
    return (1 - across) / 2, (1 - down) / 2, across, down


def prepare(picture: Image.Image, spec: TransformSpec) -> Pixels:
    """Shorter side resized to `spec.kept`; already cut to the centre where every sample is."""
    resized = resize(to_bytes(picture, spec.channels), spec.kept)
    return resized if spec.random else _cut(resized, spec.size)


def finish(prepared: Pixels, spec: TransformSpec, *, seed: int, index: int) -> Pixels:
    """The draws of sample `index`: scale, crop and flip."""
    if spec.scale is not None:
        low, high = spec.scale
        factor = low + (high - low) * float(uniform(seed=seed, indices=[index], purpose="scale"))
        prepared = resize(prepared, max(spec.size, round(spec.size * factor)))
    if spec.crop == "random":
        draw = torch.rand(2, generator=generator(seed, index, purpose="crop"), dtype=torch.float64)
        square = _cut(prepared, spec.size, across=float(draw[0]), down=float(draw[1]))
    else:
        square = _cut(prepared, spec.size)
    return square.flip(-1) if spec.flip and bool(mirrored(seed=seed, indices=[index])) else square


def mirrored(*, seed: int, indices: Iterable[int]) -> Choice:
    """Which samples are mirror images (b)."""
    return uniform(seed=seed, indices=indices, purpose="flip") < 0.5


def resize(pixels: Pixels, shorter: int) -> Pixels:
    """Shorter side to so many pixels, bicubic with antialiasing, the other in proportion."""
    height, width = pixels.shape[-2:]
    if min(height, width) == shorter:
        return pixels
    factor = shorter / min(height, width)
    size = [max(shorter, round(height * factor)), max(shorter, round(width * factor))]
    batch = rearrange(pixels, "c h w -> 1 c h w")
    resized = F.interpolate(batch, size=size, mode="bicubic", antialias=True)
    return rearrange(resized, "1 c h w -> c h w")


def _cut(pixels: Pixels, size: int, *, across: float = 0.5, down: float = 0.5) -> Pixels:
    """A square whose place is a share, 0..1, of the margins."""
    height, width = pixels.shape[-2:]
    top, left = int(down * (height - size + 1)), int(across * (width - size + 1))
    if (across, down) == (0.5, 0.5):
        top, left = (height - size) // 2, (width - size) // 2
    return pixels[:, top : top + size, left : left + size].contiguous()

"""Pictures to training samples: resize, cut and view as functions of (seed, sample index).

`transform` = `prepare` (decoded picture to the pixels worth keeping in memory) then `finish` (the draws).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Integer, Num, UInt8
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from darkroom.core.pictures import to_bytes
from darkroom.core.seeds import generator, uniform
from darkroom.core.shapes import Choice
from darkroom.core.spec import Spec
from darkroom.data.examples import Box

Pixels = UInt8[Tensor, "c _h _w"]  # heights and widths change from argument to answer
Shape = tuple[int, int]  # height, width


@final
@dataclass(frozen=True)
class View:
    """One of the ways to look at a sample: mirrored left to right or not, then turned by quarters against the clock."""

    mirrored: bool = False
    quarters: int = 0

    def of(self, values: Float[Tensor, "*b h w"] | Integer[Tensor, "*b h w"]) -> Tensor:
        """Samples (..., h, w) as they are seen so."""
        return (values.flip(-1) if self.mirrored else values).rot90(self.quarters, (-2, -1))

    def of_box(self, box: Box) -> Box:
        """Where a box (x, y, width, height in 0..1) lies in what is seen so."""
        left, top, width, height = box
        if self.mirrored:
            left = 1 - left - width
        for _ in range(self.quarters):
            left, top, width, height = top, 1 - left - width, height, width
        return left, top, width, height


@final
@dataclass(frozen=True)
class Views:
    """The ways in which samples are looked at. flip: mirrored or not · turn: turned by quarters."""

    flip: bool = False
    turn: bool = False

    @property
    def each(self) -> tuple[View, ...]:
        """All of them in a fixed order, the picture as it is first."""
        mirrored, quarters = (False, True) if self.flip else (False,), range(4 if self.turn else 1)
        return tuple(View(mirror, quarter) for quarter in quarters for mirror in mirrored)

    def drawn(self, indices: Sequence[int], *, seed: int) -> list[int]:
        """For each sample, the number of its view in `each`."""
        numbers = mirrored(seed=seed, indices=indices).long() if self.flip else torch.zeros(len(indices)).long()
        if self.turn:
            quarters = (4 * uniform(seed=seed, indices=indices, purpose="turn")).long()
            numbers = numbers + quarters * (2 if self.flip else 1)
        return numbers.tolist()

    def taken(self, values: Tensor, indices: Sequence[int], *, seed: int) -> Tensor:
        """Values (b, ..., h, w), one a sample, each as its view shows it."""
        views, drawn = self.each, self.drawn(indices, seed=seed)
        return torch.stack([views[number].of(value) for value, number in zip(values, drawn, strict=True)])


PLAIN: Final = Views()  # pictures as they are


@final
class TransformSpec(Spec):
    """How a picture becomes a sample: a square of `size` pixels, or that of several `shapes` which is most like it.

    channels: 1 grey, 3 RGB, 4 RGBA · crop: where the sample is cut · flip: mirror every other sample ·
    turn: turn it by quarters · scale: the picture is first made larger than needed by a factor drawn from this range
    (at least 1) · shapes: heights and widths.
    """

    written_where_used: ClassVar = frozenset({"turn", "shapes"})

    size: Annotated[int, Field(ge=1)]
    channels: Literal[1, 3, 4] = 3
    crop: Literal["centre", "random"] = "centre"
    flip: bool = False
    turn: bool = False
    scale: tuple[Annotated[float, Field(ge=1)], Annotated[float, Field(ge=1, le=8)]] | None = None
    shapes: Annotated[tuple[Shape, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "TransformSpec":
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must go from low to high, {self.scale} came")
        if self.turn and self.shapes is not None:
            raise ValueError("turn is for squares, shapes turned by a quarter are other shapes")
        return self

    @property
    def views(self) -> Views:
        """How samples are looked at."""
        return Views(flip=self.flip, turn=self.turn)

    @property
    def random(self) -> bool:
        """Does more than the view depend on the sample?"""
        return self.crop == "random" or self.scale is not None

    @property
    def kept(self) -> int:
        """Shorter side in pixels of what `prepare` answers for a square."""
        return min(self._covered((self.size, self.size)))

    @property
    def shortest(self) -> int:
        """The shortest side of a sample."""
        return min(side for shape in self.shapes or ((self.size, self.size),) for side in shape)

    @property
    def squared(self) -> "TransformSpec":
        """The same for squares alone."""
        return self.model_copy(update={"shapes": None})

    def only(self, shape: Shape) -> "TransformSpec":
        """The same for one shape."""
        return self.model_copy(update={"shapes": (shape,)})

    def shape_of(self, size: tuple[int, int]) -> Shape:
        """The shape of the sample made of a picture of this width and height; of two as near the flatter one."""
        if self.shapes is None:
            return self.size, self.size
        wanted = math.log(size[1] / size[0])
        return min(self.shapes, key=lambda shape: abs(math.log(shape[0] / shape[1]) - wanted))

    def _covered(self, shape: Shape) -> Shape:
        """What a picture is made large enough for."""
        return shape if self.scale is None else (round(shape[0] * self.scale[1]), round(shape[1] * self.scale[1]))


def transform(picture: Image.Image, spec: TransformSpec, *, seed: int, index: int) -> Pixels:
    """Sample `index` made of this picture, (channels, height, width) uint8."""
    return finish(prepare(picture, spec), spec, seed=seed, index=index, shape=spec.shape_of(picture.size))


def still(picture: Image.Image, spec: TransformSpec) -> Pixels:
    """The picture without any chance: its middle, as it is."""
    shape = spec.shape_of(picture.size)
    return _cut(cover(to_bytes(picture, spec.channels), shape), shape)


def still_map(ids: Integer[Tensor, "_h _w"], spec: TransformSpec) -> Int[Tensor, "_a _b"]:
    """Class ids, each below 2^15, cut as `still` cuts the picture; of pixels that become one, the nearest speaks."""
    height, width = ids.shape
    shape = spec.shape_of((width, height))
    size = _covering((height, width), shape)
    batch = rearrange(ids.float(), "h w -> 1 1 h w")  # exact, and what can be resized
    resized = batch if (height, width) == size else F.interpolate(batch, size=size, mode="nearest-exact")
    return _cut(resized[0], shape)[0].to(torch.int16)


def seen_of(size: tuple[int, int], shape: Shape = (1, 1)) -> Box:
    """What a sample of this shape shows of a picture of this width and height: its middle, as x, y, width, height in
    0..1 of the whole.
    """
    (width, height), (down, across) = size, shape
    seen = min(1.0, height * across / (width * down)), min(1.0, width * down / (height * across))
    return (1 - seen[0]) / 2, (1 - seen[1]) / 2, *seen


def prepare(picture: Image.Image, spec: TransformSpec) -> Pixels:
    """As small as its samples need it; already cut to the centre where every sample is."""
    shape = spec.shape_of(picture.size)
    covering = cover(to_bytes(picture, spec.channels), spec._covered(shape))
    return covering if spec.random else _cut(covering, shape)


def finish(prepared: Pixels, spec: TransformSpec, *, seed: int, index: int, shape: Shape | None = None) -> Pixels:
    """The draws of sample `index`: scale, crop and view. shape: of the sample (None: the square)."""
    shape = shape or (spec.size, spec.size)
    if spec.scale is not None:
        low, high = spec.scale
        factor = low + (high - low) * float(uniform(seed=seed, indices=[index], purpose="scale"))
        prepared = cover(prepared, (max(shape[0], round(shape[0] * factor)), max(shape[1], round(shape[1] * factor))))
    if spec.crop == "random":
        draw = torch.rand(2, generator=generator(seed, index, purpose="crop"), dtype=torch.float64)
        sample = _cut(prepared, shape, across=float(draw[0]), down=float(draw[1]))
    else:
        sample = _cut(prepared, shape)
    (number,) = spec.views.drawn([index], seed=seed)
    return spec.views.each[number].of(sample).contiguous()


def mirrored(*, seed: int, indices: Iterable[int]) -> Choice:
    """Which samples are mirror images (b)."""
    return uniform(seed=seed, indices=indices, purpose="flip") < 0.5


def resize(pixels: Pixels, shorter: int) -> Pixels:
    """Shorter side to so many pixels, bicubic with antialiasing, the other in proportion."""
    return cover(pixels, (shorter, shorter))


def cover(pixels: Pixels, shape: Shape) -> Pixels:
    """Resized in proportion, bicubic with antialiasing, to the smallest that a shape can be cut of."""
    height, width = pixels.shape[-2:]
    size = _covering((height, width), shape)
    if (height, width) == size:
        return pixels
    batch = rearrange(pixels, "c h w -> 1 c h w")
    resized = F.interpolate(batch, size=size, mode="bicubic", antialias=True)
    return rearrange(resized, "1 c h w -> c h w")


def _covering(size: Shape, shape: Shape) -> Shape:
    """Height and width that a picture of this size gets so that it covers a shape."""
    factor = max(shape[0] / size[0], shape[1] / size[1])
    return max(shape[0], round(size[0] * factor)), max(shape[1], round(size[1] * factor))


def _cut(
    pixels: Num[Tensor, "c _h _w"], shape: Shape, *, across: float = 0.5, down: float = 0.5
) -> Num[Tensor, "c _a _b"]:
    """A part of this shape whose place is a share, 0..1, of the margins."""
    (height, width), (tall, wide) = pixels.shape[-2:], shape
    top, left = int(down * (height - tall + 1)), int(across * (width - wide + 1))
    if (across, down) == (0.5, 0.5):
        top, left = (height - tall) // 2, (width - wide) // 2
    return pixels[:, top : top + tall, left : left + wide].contiguous()

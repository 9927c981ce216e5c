"""Pictures to training samples: resize, crop and view as functions of (seed, sample index).

`transform` = `prepare` (decoded picture to the pixels worth keeping in memory) then `finish` (the draws).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Integer, UInt8
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from darkroom.core.pictures import to_bytes
from darkroom.core.seeds import generator, uniform
from darkroom.core.shapes import Choice
from darkroom.core.spec import Spec
from darkroom.data.examples import Box

Pixels = UInt8[Tensor, "c _h _w"]  # heights and widths change from argument to answer


@final
@dataclass(frozen=True)
class View:
    """One of the ways to look at a square: mirrored left to right or not, then turned by quarters against the clock."""

    mirrored: bool = False
    quarters: int = 0

    def of(self, values: Float[Tensor, "*b s s"] | Integer[Tensor, "*b s s"]) -> Tensor:
        """Squares (..., s, s) as they are seen so."""
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
        """Squares (b, ..., s, s), one a sample, each as its view shows it."""
        views, drawn = self.each, self.drawn(indices, seed=seed)
        return torch.stack([views[number].of(value) for value, number in zip(values, drawn, strict=True)])


PLAIN: Final = Views()  # pictures as they are


@final
class TransformSpec(Spec):
    """How a picture becomes a square sample of `size` pixels.

    channels: 1 grey, 3 RGB, 4 RGBA · crop: where the square is cut · flip: mirror every other sample ·
    turn: turn it by quarters · scale: the shorter side is first resized to `size` times a factor drawn from this range
    (at least 1).
    """

    written_where_used: ClassVar = frozenset({"turn"})

    size: Annotated[int, Field(ge=1)]
    channels: Literal[1, 3, 4] = 3
    crop: Literal["centre", "random"] = "centre"
    flip: bool = False
    turn: bool = False
    scale: tuple[Annotated[float, Field(ge=1)], Annotated[float, Field(ge=1, le=8)]] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "TransformSpec":
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must go from low to high, {self.scale} came")
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
        """Shorter side in pixels of what `prepare` answers."""
        return self.size if self.scale is None else round(self.size * self.scale[1])


def transform(picture: Image.Image, spec: TransformSpec, *, seed: int, index: int) -> Pixels:
    """Sample `index` made of this picture, (channels, size, size) uint8."""
    return finish(prepare(picture, spec), spec, seed=seed, index=index)


def still(picture: Image.Image, spec: TransformSpec) -> Pixels:
    """The picture without any chance: shorter side to `size`, centre square, as it is."""
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


def seen_of(size: tuple[int, int]) -> Box:
    """The centre square of a picture of this width and height, as x, y, width, height in 0..1 of the whole."""
    side = min(size)
    across, down = (side / each for each in size)
    return (1 - across) / 2, (1 - down) / 2, across, down


def prepare(picture: Image.Image, spec: TransformSpec) -> Pixels:
    """Shorter side resized to `spec.kept`; already cut to the centre where every sample is."""
    resized = resize(to_bytes(picture, spec.channels), spec.kept)
    return resized if spec.random else _cut(resized, spec.size)


def finish(prepared: Pixels, spec: TransformSpec, *, seed: int, index: int) -> Pixels:
    """The draws of sample `index`: scale, crop and view."""
    if spec.scale is not None:
        low, high = spec.scale
        factor = low + (high - low) * float(uniform(seed=seed, indices=[index], purpose="scale"))
        prepared = resize(prepared, max(spec.size, round(spec.size * factor)))
    if spec.crop == "random":
        draw = torch.rand(2, generator=generator(seed, index, purpose="crop"), dtype=torch.float64)
        square = _cut(prepared, spec.size, across=float(draw[0]), down=float(draw[1]))
    else:
        square = _cut(prepared, spec.size)
    (number,) = spec.views.drawn([index], seed=seed)
    return spec.views.each[number].of(square).contiguous()


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

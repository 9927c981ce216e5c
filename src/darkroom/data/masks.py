"""Masks to train inpainting with: 1 where a picture shall be painted, a function of (seed, sample index).

Thick strokes that turn at random, boxes of any aspect, or either, as in Suvorov et al. 2022 (LaMa), supplement;
written from that description.
"""

import functools
import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageOps
from pydantic import Field, model_validator
from torch import Tensor

from darkroom.core.errors import DataError
from darkroom.core.pictures import open_picture, to_bytes
from darkroom.core.seeds import generator
from darkroom.core.shapes import Number
from darkroom.core.spec import Spec
from darkroom.data.decode import colours, upright
from darkroom.data.metadata import pictures_in

ATTEMPTS: Final = 8
_INK: Final = 128  # level from which a pixel of a file is to be painted
_TURN: Final = 4.0  # radians that a stroke turns by, at most


@final
class MasksSpec(Spec):
    """kind: `strokes`, `boxes`, or `wide` for one of both, drawn evenly · least, most: share of the picture to paint.

    Sizes are shares of the shorter side: strokes of `times` bends, each up to `length` long and `width` wide; `boxes`
    of them with sides from `box[0]` to `box[1]`.
    """

    kind: Literal["wide", "strokes", "boxes"] = "wide"
    least: float = Field(default=0.02, ge=0, lt=1)
    most: float = Field(default=0.7, gt=0, le=1)
    times: tuple[int, int] = (1, 5)
    length: float = Field(default=0.8, gt=0)
    width: float = Field(default=0.4, gt=0)
    boxes: tuple[int, int] = (1, 4)
    box: tuple[float, float] = (0.12, 0.6)

    @model_validator(mode="after")
    def _ordered(self) -> "MasksSpec":
        for name, (low, high) in (("times", self.times), ("boxes", self.boxes), ("box", self.box)):
            if not 0 < low <= high:
                raise ValueError(f"{name} must go from low to high above 0, {low} to {high} came")
        if self.least >= self.most:
            raise ValueError(f"least ({self.least:g}) must be below most ({self.most:g})")
        return self


@final
class MaskFilesSpec(Spec):
    """Masks that are there already: pictures in the folder `source`, white where to paint, one drawn for each sample.

    They are brought to the size of the picture, and mirrored every other time. hash: of their names and sizes, found
    when a run begins, for a run that goes on must draw from the same ones.
    """

    kind: Literal["files"] = "files"
    source: str
    hash: str | None = None


AnyMasksSpec: TypeAlias = Annotated[MasksSpec | MaskFilesSpec, Field(discriminator="kind")]


def found(spec: MaskFilesSpec) -> MaskFilesSpec:
    """The spec with the hash of what is there; `DataError` for a folder without masks, or a first one that is none."""
    files = _files(spec.source)
    brightest = int(to_bytes(colours(upright(open_picture(files[0]))), 1).max())
    if 0 < brightest < _INK:  # nothing would ever be painted
        raise DataError(f"{files[0]}: the brightest level of this mask is {brightest}; white (255) is where to paint")
    facts = [(str(path.relative_to(spec.source)), path.stat().st_size) for path in files]
    return spec.model_copy(update={"hash": hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()})


def draw_masks(
    spec: MasksSpec | MaskFilesSpec, size: tuple[int, int], *, seed: int, indices: Iterable[int]
) -> Float[Tensor, "b 1 _h _w"]:
    """Masks (b, 1, height, width) of 0 and 1, one of its own for each sample index; `DataError` for no files."""
    if isinstance(spec, MaskFilesSpec):
        return torch.stack([_from_file(spec, size, seed=seed, index=index) for index in indices])
    masks = [_mask(spec, size, seed=seed, index=index) for index in indices]
    return torch.from_numpy(np.stack(masks)[:, None].astype(np.float32))


def _from_file(spec: MaskFilesSpec, size: tuple[int, int], *, seed: int, index: int) -> Float[Tensor, "1 _h _w"]:
    draws, files = _Draws(seed, index), _files(spec.source)
    path = files[draws.whole(0, len(files) - 1)]
    picture = ImageOps.fit(
        colours(upright(open_picture(path))).convert("L"), (size[1], size[0]), method=Image.Resampling.NEAREST
    )
    mask = (to_bytes(picture, 1) >= _INK).float()
    return mask.flip(-1) if draws.between(0, 1) < 0.5 else mask


@functools.lru_cache(maxsize=8)
def _files(folder: str) -> tuple[Path, ...]:
    files = tuple(sorted(pictures_in(Path(folder))))
    if not files:
        raise DataError(f"{folder}: no masks here; pictures are needed, white where to paint")
    return files


def _mask(spec: MasksSpec, size: tuple[int, int], *, seed: int, index: int) -> Bool[np.ndarray, "h w"]:
    """One whose share lies between least and most; after some attempts in vain a box in the middle of that range."""
    draws = _Draws(seed, index)
    for _ in range(ATTEMPTS):
        strokes = spec.kind == "strokes" or (spec.kind == "wide" and draws.between(0, 1) < 0.5)
        mask = _strokes(spec, size, draws=draws) if strokes else _boxes(spec, size, draws=draws)
        if spec.least <= mask.mean() <= spec.most:
            return mask
    share = math.sqrt((spec.least + spec.most) / 2)
    height, width = (max(1, round(side * share)) for side in size)
    top, left = (draws.whole(0, side - part) for side, part in zip(size, (height, width), strict=True))
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


@final
class _Draws:
    """Random numbers of one sample."""

    def __init__(self, seed: int, index: int) -> None:
        self._generator = generator(seed, index, purpose="mask")

    def between(self, low: Number, high: Number) -> float:
        return low + (high - low) * float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def whole(self, low: int, high: int) -> int:
        """low..high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self._generator))


def _strokes(spec: MasksSpec, size: tuple[int, int], *, draws: _Draws) -> Bool[np.ndarray, "h w"]:
    """Chains of thick segments with round joints; each goes on where the last ended, turned by up to `_TURN`."""
    canvas = Image.new("1", (size[1], size[0]))
    pen, unit = ImageDraw.Draw(canvas), min(size)
    for _ in range(draws.whole(*spec.times)):
        x, y = draws.between(0, size[1]), draws.between(0, size[0])
        angle, thick = draws.between(0, 2 * math.pi), max(2.0, draws.between(0.1, 1) * spec.width * unit)
        for bend in range(draws.whole(1, 4)):
            angle += math.pi * (bend % 2) + draws.between(-_TURN / 2, _TURN / 2)
            reach = draws.between(0.05, 1) * spec.length * unit
            ends = min(max(x + reach * math.cos(angle), 0), size[1]), min(max(y + reach * math.sin(angle), 0), size[0])
            pen.line([(x, y), ends], fill=1, width=round(thick))
            for at in ((x, y), ends):
                pen.ellipse([at[0] - thick / 2, at[1] - thick / 2, at[0] + thick / 2, at[1] + thick / 2], fill=1)
            x, y = ends
    return np.asarray(canvas)


def _boxes(spec: MasksSpec, size: tuple[int, int], *, draws: _Draws) -> Bool[np.ndarray, "h w"]:
    mask, unit = np.zeros(size, bool), min(size)
    for _ in range(draws.whole(*spec.boxes)):
        height, width = (min(side, max(1, round(draws.between(*spec.box) * unit))) for side in size)
        top, left = draws.whole(0, size[0] - height), draws.whole(0, size[1] - width)
        mask[top : top + height, left : left + width] = True
    return mask

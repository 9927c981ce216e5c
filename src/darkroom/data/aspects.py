"""Pictures of different aspects: the shapes that their samples take, and which of them a data set has."""

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Final

from darkroom.core.errors import SpecError
from darkroom.data.examples import Source
from darkroom.data.transforms import Shape, TransformSpec

AREA: Final = 0.2  # by which a shape's pixels may be more or fewer than those of the square


def shapes_for(size: int, *, multiple: int, widest: float) -> tuple[Shape, ...]:
    """Heights and widths with about as many pixels as a square of `size`, flat ones first: their sides are multiples of
    `multiple` and none is more than `widest` times the other.

    `SpecError` when only the square is left.
    """
    found = {(size, size)}
    for height in range(multiple, math.floor(size * widest) + 1, multiple):
        width = max(1, round(size**2 / height / multiple)) * multiple
        ratio = max(height, width) / min(height, width)
        if ratio <= widest and abs(height * width / size**2 - 1) <= AREA:
            found |= {(height, width), (width, height)}
    if len(found) == 1:
        raise SpecError(
            f"data.aspects {widest:g}: sides are multiples of {multiple} here, so that only the square of {size} fits; "
            "a larger data.size or more aspects do"
        )
    return tuple(sorted(found, key=lambda shape: (shape[0] / shape[1], shape)))


def rows_by_shape(
    source: Source, spec: TransformSpec, *, rows: Iterable[int] | None = None
) -> dict[Shape, Sequence[int]]:
    """The rows (None: all) of each shape that samples of a source take, flat ones first; eight bytes a row."""
    found = {shape: array("q") for shape in spec.shapes or ((spec.size, spec.size),)}
    for row in range(len(source)) if rows is None else rows:
        found[spec.shape_of(source.size(row))].append(row)
    return {shape: rows for shape, rows in found.items() if rows}

"""What a data set gives: examples, and the protocol that every source of them follows."""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Integer
from PIL import Image

Box = tuple[float, float, float, float]  # x, y, width, height in 0..1 of the picture
Size = tuple[int, int]  # width, height in pixels


@final
@dataclass(frozen=True)
class Thing:
    """One annotated object: `category` indexes `Source.categories`, the box is relative."""

    category: int
    box: Box


@final
@dataclass(frozen=True)
class Example:
    """A decoded picture (RGB, or RGBA where asked for) and what is known of it.

    label: index into `Source.classes` · objects: may be empty · map: (h, w) class ids. None: no such field.
    """

    picture: Image.Image
    name: str
    caption: str | None = None
    label: int | None = None
    objects: tuple[Thing, ...] | None = None
    map: Integer[np.ndarray, "h w"] | None = None


@runtime_checkable
class Source(Protocol):
    """Examples by number. `size`, `caption`, `label` and `objects` answer without decoding where that is possible."""

    @property
    def name(self) -> str:
        """A short name for reports."""
        ...

    @property
    def fields(self) -> frozenset[str]:
        """Which of caption, label, objects, map the examples have."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        ...

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the objects' categories."""
        ...

    @property
    def map_classes(self) -> tuple[str, ...]:
        """Names of the map's ids, where they are known."""
        ...

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of the pictures left out."""
        ...

    def __len__(self) -> int: ...

    def example(self, index: int) -> Example:
        """The example of this row; `DataError` when its picture cannot be decoded."""
        ...

    def size(self, index: int) -> Size:
        """Width and height of the picture."""
        ...

    def caption(self, index: int) -> str | None:
        """The caption of this row."""
        ...

    def label(self, index: int) -> int | None:
        """The label of this row, an index into `classes`."""
        ...

    def objects(self, index: int) -> tuple[Thing, ...] | None:
        """The annotated objects of this row."""
        ...

    def map(self, index: int) -> Integer[np.ndarray, "h w"] | None:
        """The class ids of this row's pixels; the picture itself is not decoded where that is possible."""
        ...

    def fingerprint(self) -> str:
        """A hash of names, sizes and metadata: equal for equal data on any machine."""
        ...

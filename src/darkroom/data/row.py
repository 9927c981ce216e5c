"""One picture as a data set lists it, and what may stand in a list."""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast, final

from darkroom.core.errors import DataError
from darkroom.data.place import Place

Name = str | int  # of a class, as it stands in the file
PixelBox = tuple[float, float, float, float]


@final
@dataclass(frozen=True)
class Row:
    """One picture as listed: nothing decoded, boxes in pixels, classes as written; `fault`: why it cannot be used.

    size: as displayed, where it is known already.
    """

    path: Place
    name: str
    caption: str | None = None
    label: Name | None = None
    objects: tuple[tuple[Name, PixelBox], ...] | None = None
    map: Place | None = None
    fault: str | None = None
    size: tuple[int, int] | None = None


@final
@dataclass(frozen=True)
class Kinds:
    """What rows have altogether: how many there are, how many have a label, how many a map, the names of classes and
    categories, and whether any has a caption, or boxes.
    """

    rows: int = 0
    labelled: int = 0
    mapped: int = 0
    labels: frozenset[Name] = frozenset()
    categories: frozenset[Name] = frozenset()
    captioned: bool = False
    boxed: bool = False

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Kinds":
        """Those of rows, gone through once."""
        count = labelled = mapped = 0
        labels, categories, captioned, boxed = set[Name](), set[Name](), False, False
        for row in rows:
            count += 1
            mapped += row.map is not None
            captioned = captioned or row.caption is not None
            if row.label is not None:
                labelled += 1
                labels.add(row.label)
            if row.objects is not None:
                boxed = True
                categories.update(name for name, _ in row.objects)
        return cls(count, labelled, mapped, frozenset(labels), frozenset(categories), captioned, boxed)

    @classmethod
    def together(cls, parts: Iterable["Kinds"]) -> "Kinds":
        """Those of the rows of all parts."""
        known = list(parts)
        return cls(
            rows=sum(each.rows for each in known),
            labelled=sum(each.labelled for each in known),
            mapped=sum(each.mapped for each in known),
            labels=frozenset().union(*(each.labels for each in known)),
            categories=frozenset().union(*(each.categories for each in known)),
            captioned=any(each.captioned for each in known),
            boxed=any(each.boxed for each in known),
        )

    @property
    def fields(self) -> frozenset[str]:
        """Which of caption, label, objects, map there are."""
        there = {"caption": self.captioned, "label": self.labelled, "objects": self.boxed, "map": self.mapped}
        return frozenset(key for key, found in there.items() if found)


def safe_path(value: object, *, key: str, where: str) -> Path:
    """A path inside a folder; `DataError` for what is no name, absolute, or leads outside."""
    if not isinstance(value, str) or not _can_be_a_name(value):
        raise DataError(f"{where}: {key!r} must be the name of a file, {value!r:.80} came")
    inside = Path(value)
    if inside.is_absolute() or ".." in inside.parts:
        raise DataError(f"{where}: {key!r} must lie inside the folder, {value!r:.80} came")
    return inside


def class_name(value: object, *, key: str, where: str) -> Name | None:
    """A name or number as written (a whole one may be written 3.0); `DataError` for anything else."""
    if isinstance(value, float) and value.is_integer():  # as tables with gaps are exported
        value = int(value)
    if value is None or (isinstance(value, (str, int)) and not isinstance(value, bool)):
        return writable(value) if isinstance(value, str) else value
    raise DataError(f"{where}: {key!r} must be a name or a whole number, {value!r:.80} came")


def category(value: object, *, where: str) -> Name:
    """A name or number of an object's category; `DataError` for anything else."""
    name = class_name(value, key="categories", where=where)
    if name is None:
        raise DataError(f"{where}: 'categories' must hold names or whole numbers, None came")
    return name


def writable(text: str) -> str:
    """Text that tokenizers and files take: half an emoji, left where JSON was cut, becomes a replacement sign."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def pixel_box(value: object, *, where: str) -> PixelBox:
    """Four finite numbers [x, y, width, height]; `DataError` for anything else."""
    numbers = [
        float(each)
        for each in (cast("list[object]", value) if isinstance(value, list) else [])
        if isinstance(each, (int, float)) and not isinstance(each, bool) and abs(each) < 1e9
    ]
    whole = len(numbers) == 4 and all(math.isfinite(number) for number in numbers)
    if not whole or min(numbers[2:]) < 0 or len(cast("list[object]", value)) != 4:
        raise DataError(f"{where}: a bbox is [x, y, width, height] in pixels, {value!r:.80} came")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _can_be_a_name(value: str) -> bool:
    try:
        return bool(value) and "\0" not in value and bool(os.fsencode(value))
    except UnicodeEncodeError:
        return False

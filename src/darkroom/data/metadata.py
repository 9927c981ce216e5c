"""Rows of a folder: pictures with the annotations of `metadata.jsonl`, or of the folders they lie in."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

from darkroom.core.errors import DataError, did_you_mean
from darkroom.data.decode import SUFFIXES

METADATA = "metadata.jsonl"
Name = str | int  # of a class, as it stands in the file
PixelBox = tuple[float, float, float, float]


@final
@dataclass(frozen=True)
class Row:
    """One picture as listed: nothing decoded, boxes in pixels, classes as written."""

    path: Path
    name: str
    caption: str | None = None
    label: Name | None = None
    objects: tuple[tuple[Name, PixelBox], ...] | None = None
    map: Path | None = None


def list_rows(folder: Path, *, caption_field: str = "caption", by_class: bool | None = None) -> list[Row]:
    """All rows of a folder, in the metadata's order or sorted by name; `DataError` when there are none.

    by_class: are sub-folders classes? None: yes when all pictures lie in two or more of them.
    """
    metadata = folder / METADATA
    rows = _annotated(metadata, caption_field) if metadata.is_file() else _found(folder, by_class)
    if not rows:
        raise DataError(f"{folder}: no pictures here ({', '.join(sorted(SUFFIXES))} are looked for)")
    return rows


def printable(path: Path) -> str:
    """A path as text that can always be written, also when its bytes are not UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def has_pictures(folder: Path) -> bool:
    """Is there a picture in or below this folder?"""
    return next(pictures_in(folder), None) is not None


def pictures_in(folder: Path) -> Iterator[Path]:
    """Picture files in and below a folder, told by their names; hidden ones are left out. In no fixed order."""
    for place, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith((".", "__"))]
        for file in files:
            path = Path(place, file)
            if path.suffix.lower() in SUFFIXES and not file.startswith("."):
                yield path


def _found(folder: Path, by_class: bool | None) -> list[Row]:
    """Pictures below a folder; their labels where sub-folders are classes."""
    inside = sorted(path.relative_to(folder) for path in pictures_in(folder))
    tops = {path.parts[0] for path in inside if len(path.parts) > 1}
    nested = all(len(path.parts) > 1 for path in inside)
    by_class = nested and (len(tops) > 1 if by_class is None else by_class)
    return [
        Row(folder / path, printable(path), label=printable(Path(path.parts[0])) if by_class else None)
        for path in inside
    ]


def _annotated(metadata: Path, caption_field: str) -> list[Row]:
    entries = list(_entries(metadata))
    keys = {key for _, entry in entries for key in entry}
    if caption_field != "caption" and caption_field not in keys:
        raise DataError(f"{metadata}: no field {caption_field!r}{did_you_mean(caption_field, keys)}")
    rows = [_row(entry, metadata, line=line, caption_field=caption_field) for line, entry in entries]
    files = [path for row in rows for path in (row.path, row.map) if path is not None]
    absent = [printable(path.relative_to(metadata.parent)) for path in files if not path.is_file()]
    if absent:
        first = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise DataError(f"{metadata}: names {len(absent)} of {len(files)} files that are not there: {first}")
    return rows


def _entries(metadata: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, object) of every line that is not blank."""
    for number, line in enumerate(metadata.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line.decode("utf-8-sig"))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{metadata} line {number}: not valid JSON ({error})") from None
        if not isinstance(entry, dict):
            raise DataError(f"{metadata} line {number}: an object {{...}} is needed, {type(entry).__name__} came")
        yield number, cast("dict[str, Any]", entry)


def _row(entry: Mapping[str, Any], metadata: Path, *, line: int, caption_field: str) -> Row:
    where = f"{metadata} line {line}"
    path = _file(metadata.parent, entry.get("file_name"), key="file_name", where=where)
    if path is None:
        raise DataError(f"{where}: 'file_name' is missing")
    return Row(
        path=path,
        name=printable(path.relative_to(metadata.parent)),
        caption=_caption(entry.get(caption_field), where=where, key=caption_field),
        label=_class_name(entry.get("label"), key="label", where=where),
        objects=_objects(entry.get("objects"), where=where),
        map=_file(metadata.parent, entry.get("map_file_name"), key="map_file_name", where=where),
    )


def _file(folder: Path, value: object, *, key: str, where: str) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        raise DataError(f"{where}: {key!r} must be the name of a file, {value!r:.80} came")
    inside = Path(value)
    if inside.is_absolute() or ".." in inside.parts:
        raise DataError(f"{where}: {key!r} must lie inside the folder, {value!r:.80} came")
    return folder / inside


def _caption(value: object, *, where: str, key: str) -> str | None:
    if isinstance(value, list) and value:  # several captions of one picture: the first
        value = cast("list[object]", value)[0]
    if value is None or isinstance(value, str):
        return value
    raise DataError(f"{where}: {key!r} must be text, {value!r:.80} came")


def _class_name(value: object, *, key: str, where: str) -> Name | None:
    if value is None or (isinstance(value, (str, int)) and not isinstance(value, bool)):
        return value
    raise DataError(f"{where}: {key!r} must be a name or a whole number, {value!r:.80} came")


def _objects(value: object, *, where: str) -> tuple[tuple[Name, PixelBox], ...] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DataError(f"{where}: 'objects' must be {{'bbox': [...], 'categories': [...]}}, {value!r:.80} came")
    table = cast("dict[str, Any]", value)
    boxes, names = table.get("bbox"), table.get("categories", table.get("category"))
    if not isinstance(boxes, list) or not isinstance(names, list) or len(boxes) != len(names):
        raise DataError(f"{where}: 'objects' needs lists 'bbox' and 'categories' of equal length")
    return tuple(
        (_category(name, where=where), _pixel_box(box, where=where))
        for name, box in zip(cast("list[object]", names), cast("list[object]", boxes), strict=True)
    )


def _category(value: object, *, where: str) -> Name:
    name = _class_name(value, key="categories", where=where)
    if name is None:
        raise DataError(f"{where}: 'categories' must hold names or whole numbers, None came")
    return name


def _pixel_box(value: object, *, where: str) -> PixelBox:
    numbers = [
        float(each)
        for each in (cast("list[object]", value) if isinstance(value, list) else [])
        if isinstance(each, (int, float)) and not isinstance(each, bool) and abs(each) < 1e9
    ]
    whole = len(numbers) == 4 and all(math.isfinite(number) for number in numbers)
    if not whole or min(numbers[2:]) < 0 or len(cast("list[object]", value)) != 4:
        raise DataError(f"{where}: a bbox is [x, y, width, height] in pixels, {value!r:.80} came")
    return numbers[0], numbers[1], numbers[2], numbers[3]

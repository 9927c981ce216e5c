"""Rows of a folder annotated as YOLO is: a text for each picture, a line for each object, in shares of its sides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from darkroom.core.errors import DataError, SpecError
from darkroom.core.spec import parse_yaml
from darkroom.data.decode import check, printable
from darkroom.data.examples import Size
from darkroom.data.place import folder_called
from darkroom.data.row import Name, PixelBox, Row, writable
from darkroom.data.sidecar import is_boxes

PICTURES: Final = ("images", "imgs")
LABELS: Final = ("labels",)
LISTS: Final = ("classes.txt", "obj.names", "_darknet.labels")  # a name on each line
LARGEST: Final = 2**20  # bytes of one text
DIGITS: Final = 9  # of the number of a class
_BOX: Final = 4  # numbers after the class; more of them are the corners of an outline
_ROUNDED: Final = 0.01  # by which a share may leave 0..1

Objects = tuple[tuple[Name, PixelBox], ...]


def has_labels(folder: Path) -> bool:
    """Are there texts with boxes in a folder `labels`? Other texts, and maps, say nothing."""
    labels = folder_called(folder, LABELS)
    texts = () if labels is None else sorted(path for path in labels.rglob("*.txt") if path.name not in LISTS)
    return _are_boxes(texts)


def yolo_rows(folder: Path, pictures: Sequence[Path]) -> list[Row]:
    """A row for each picture of a folder whose texts, in `labels` or beside the pictures, are boxes; none else.

    A picture without a text shows no object, as it is there. An outline becomes the box around it. A text that is
    something else is its picture's fault. `DataError` for a table of names that cannot be read.
    """
    images, labels = folder, folder
    if has_labels(folder):
        images, labels = folder_called(folder, PICTURES) or folder, folder_called(folder, LABELS) or folder
    texts = {path: _beside(path, images, labels) for path in pictures}
    if not _are_boxes([text for text in texts.values() if text is not None]):
        return []
    names = _names([folder, labels]) or _names([folder.parent], around=True)
    return [_row(path, text, folder, names=names) for path, text in texts.items()]


def _beside(picture: Path, images: Path, labels: Path) -> Path | None:
    """Where the text of a picture would lie; None for a picture that is in another folder."""
    inside = images in picture.parents
    return (labels / picture.relative_to(images)).with_suffix(".txt") if inside else None


def _are_boxes(texts: Sequence[Path]) -> bool:
    """Is the first text with something in it boxes?"""
    first = next((text for path in texts if (text := _text(path))), None)
    return first is not None and is_boxes(first)


def _text(path: Path) -> str | None:
    """What stands in a file; None where it cannot be read."""
    try:
        read = path.is_file() and path.stat().st_size <= LARGEST  # a pipe would be waited for
        return path.read_text(encoding="utf-8-sig").strip() if read else None
    except (OSError, UnicodeDecodeError):
        return None


def _row(picture: Path, text: Path | None, folder: Path, *, names: Mapping[int, str]) -> Row:
    name = printable(picture.relative_to(folder))
    if text is None:
        return Row(picture, name, fault="not in the folder of pictures that have boxes")
    size = check(picture)
    if isinstance(size, str):
        return Row(picture, name, fault=size)
    written = _text(text) if text.exists() else ""
    found = "the text with its boxes cannot be read" if written is None else _objects(written, names, size=size)
    return Row(picture, name, fault=found) if isinstance(found, str) else Row(picture, name, objects=found, size=size)


def _objects(text: str, names: Mapping[int, str], *, size: Size) -> Objects | str:
    """Names and boxes in pixels, or why they cannot be read."""
    found = list[tuple[Name, PixelBox]]()
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        box = _box(words[1:], size)
        if words and (box is None or not words[0].isdecimal() or len(words[0]) > DIGITS):
            return (
                f"line {number} of its text is no box: class, middle x and y, width and height in shares of the sides"
            )
        if box is None:
            continue
        category = int(words[0])
        if names and category not in names:
            return f"line {number} of its text is of class {category}, which has no name among {len(names)}"
        if box[2] > 0 and box[3] > 0:
            found.append((names.get(category, category), box))
    return tuple(found)


def _box(words: Sequence[str], size: Size) -> PixelBox | None:
    """The box in pixels of the middle and the sides, or around the corners; None for what is neither."""
    try:
        shares = [float(word) for word in words]
    except ValueError:
        return None
    if len(shares) < _BOX or len(shares) % 2 or not all(-_ROUNDED <= each <= 1 + _ROUNDED for each in shares):
        return None
    if len(shares) == _BOX:
        x, y, across, down = shares
        left, top = x - across / 2, y - down / 2
    else:
        left, top = min(shares[::2]), min(shares[1::2])
        across, down = max(shares[::2]) - left, max(shares[1::2]) - top
    return left * size[0], top * size[1], across * size[0], down * size[1]


def _names(places: Sequence[Path], *, around: bool = False) -> dict[int, str]:
    """Names by number: of the first YAML file that has `names`, else of a list; around: of a folder around the data,
    where only what is called as such files usually are is meant.
    """
    for place in places:
        for path in [place / "data.yaml"] if around else sorted([*place.glob("*.yaml"), *place.glob("*.yml")]):
            if found := _in_yaml(path):
                return found
        for name in LISTS[1:] if around else LISTS:
            if text := _text(place / name):
                return dict(enumerate(writable(line.strip()) for line in text.splitlines() if line.strip()))
    return {}


def _in_yaml(path: Path) -> dict[int, str]:
    text = _text(path)
    if text is None or "names" not in text:
        return {}
    where = printable(path)
    try:
        values = parse_yaml(text, where=where)
    except SpecError as error:
        raise DataError(str(error)) from None
    names = cast("dict[object, object]", values).get("names") if isinstance(values, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(cast("list[object]", names)))
    if not isinstance(names, dict):
        return {}
    table = cast("dict[Any, object]", names)
    if not all(isinstance(key, int) and isinstance(name, (str, int)) for key, name in table.items()):
        raise DataError(f"{where}: 'names' must be a list of names, or a name for each number")
    return {key: writable(str(name)) for key, name in table.items()}

"""Rows of a folder annotated as Pascal VOC is: an XML file for each picture, with boxes and names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from darkroom.core.errors import DataError
from darkroom.data.decode import printable
from darkroom.data.kinds import is_picture
from darkroom.data.place import folder_called
from darkroom.data.row import Name, PixelBox, Row, writable

ANNOTATIONS: Final = ("annotations",)  # in whatever case
PICTURES: Final = ("jpegimages", "images")
LARGEST: Final = 2**24  # bytes of one XML file


def has_voc(folder: Path) -> bool:
    """Are there annotation files for pictures, in `Annotations` or beside them? Other XML says nothing."""
    stems = {path.stem for path in _pictures(folder) if is_picture(path.name)}
    first = next((path for path in sorted(_files(folder)) if path.stem in stems), None)
    if first is None:
        return False
    try:
        return _tree(first, where=printable(first)).tag == "annotation"
    except DataError:  # said when rows are asked for
        return True


def voc_rows(folder: Path) -> list[Row]:
    """A row for each picture; one without an annotation file is left out with that reason. `DataError` by name."""
    notes = {path.stem: path for path in _files(folder)}
    pictures = sorted(path for path in _pictures(folder) if is_picture(path.name))
    rows = [_row(path, notes.get(path.stem), folder) for path in pictures]
    seen = {path.stem for path in pictures}
    bare = [
        Row(path, printable(path.relative_to(folder)), fault="no picture beside it")
        for stem, path in notes.items()
        if stem not in seen
    ]
    return [*rows, *bare]


def _files(folder: Path) -> Iterator[Path]:
    yield from (folder_called(folder, ANNOTATIONS) or folder).glob("*.xml")


def _pictures(folder: Path) -> Iterator[Path]:
    yield from (path for path in (folder_called(folder, PICTURES) or folder).iterdir() if path.is_file())


def _row(picture: Path, note: Path | None, folder: Path) -> Row:
    name = printable(picture.relative_to(folder))
    if note is None:
        return Row(picture, name, objects=(), fault="has no annotation file")
    return Row(picture, name, objects=tuple(_objects(note)))


def _objects(path: Path) -> Iterator[tuple[Name, PixelBox]]:
    """(name, box) of each object: x, y, width, height in pixels (the file counts from 1 and includes the last)."""
    where = printable(path)
    for each in _tree(path, where=where).iter("object"):
        name, box = each.findtext("name"), each.find("bndbox")
        if not name or not name.strip() or box is None:
            raise DataError(f"{where}: an object needs a name and a bndbox")
        try:
            left, top, right, bottom = (float(box.findtext(key) or "") for key in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            raise DataError(f"{where}: the bndbox of {name.strip()!r:.40} needs xmin, ymin, xmax and ymax") from None
        if not abs(left) + abs(top) + abs(right) + abs(bottom) < 1e9 or right < left or bottom < top:
            raise DataError(f"{where}: the bndbox of {name.strip()!r:.40} ends before it begins")
        yield writable(name.strip()), (left - 1, top - 1, right - left + 1, bottom - top + 1)


def _tree(path: Path, *, where: str) -> ElementTree.Element:
    """The root; document types, which could name entities or files, are refused, and codes that could hide one."""
    try:
        data = path.read_bytes() if path.stat().st_size <= LARGEST else b""
        if not data or any(each in data for each in (b"<!DOCTYPE", b"<!ENTITY", b"\0")):
            raise DataError(f"{where}: an annotation file is UTF-8 without a document type, 16 MB at most")
        return ElementTree.fromstring(data)
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{where}: cannot be read as XML ({error})") from None

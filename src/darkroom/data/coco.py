"""Rows of a data set that a COCO annotation file describes: pictures, boxes with categories, captions."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from darkroom.core.errors import DataError
from darkroom.data.decode import printable
from darkroom.data.place import folders_in
from darkroom.data.row import Name, PixelBox, Row, category, pixel_box, safe_path, writable

NAMED: Final = ("_annotations.coco.json", "annotations.json", "coco.json", "instances.json", "captions.json")
NEARBY: Final = (".", "images", "data")  # where pictures may lie, from the file
START: Final = 2**16  # bytes by which a file is known
FEW: Final = 16  # files of JSON in a folder: where there are more, each tells of one picture
_LISTS: Final = re.compile(rb'"(images|annotations)"\s*:\s*\[\s*\{')


def coco_files(folder: Path) -> list[Path]:
    """The annotation files of a folder, in it or in its `annotations`: by their names, else by how they begin."""
    known = [folder / name for name in NAMED if (folder / name).is_file()]
    named = known or sorted([*folder.glob("instances_*.json"), *folder.glob("annotations/instances_*.json")])
    if named:
        return named
    others = sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")])
    return [path for path in others if _begins_so(path)] if len(others) <= FEW else []


def _begins_so(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _LISTS.search(file.read(START)) is not None
    except OSError:
        return False


def coco_file(folder: Path) -> Path | None:
    """The annotation file of a folder; None without one, `DataError` for several."""
    found = coco_files(folder)
    if len(found) > 1:
        names = ", ".join(printable(path.relative_to(folder)) for path in found)
        raise DataError(f"{printable(folder)}: several annotation files ({names}); name the one that is meant")
    return found[0] if found else None


def coco_rows(path: Path) -> list[Row]:
    """A row for each picture that the file lists, with its boxes; a picture's first caption. `DataError` by name."""
    where = printable(path)
    table = _read(path, where=where)
    categories = {each["id"]: each.get("name", each["id"]) for each in _entries(table, "categories", where=where)}
    notes: dict[Any, list[Mapping[str, Any]]] = {}
    for note in _entries(table, "annotations", where=where):
        notes.setdefault(_number(note.get("image_id"), key="image_id", where=where), []).append(note)
    images = list(_entries(table, "images", where=where))
    places = _Places(path)
    boxed = any("bbox" in note for each in notes.values() for note in each)
    rows = [
        _row(
            image,
            notes.get(image["id"], []),
            categories=categories,
            path=places.find(safe_path(image.get("file_name"), key="file_name", where=where)),
            boxed=boxed,
            where=where,
        )
        for image in images
    ]
    if notes and notes.keys().isdisjoint(image["id"] for image in images):
        first = next(iter(notes))
        raise DataError(f"{where}: no annotation is of a picture that is listed; the first has image_id {first!r:.40}")
    return rows


class _Places:
    """Where pictures lie that are named without their folder: beside the file, in a folder that it is named after
    (`train2017` for `instances_train2017.json`, or `images/train2017`), or, as COCO's own archives unpack, in any
    beside `annotations`.
    """

    def __init__(self, path: Path) -> None:
        folder, whole = path.parent, path.parent.name == "annotations"
        base = folder.parent if whole else folder
        inside = folders_in(base)
        within = (each for place in (*inside, folder) if place.name.lower() == "images" for each in folders_in(place))
        named = [each for each in (*inside, *within) if each.name.lower() in path.stem.lower()]
        self._roots = [*(folder / name for name in NEARBY), base, *named, *(inside if whole else ())]

    def find(self, name: Path) -> Path:
        """The first that is there, else the one beside the file."""
        return next((root / name for root in self._roots if (root / name).is_file()), self._roots[0] / name)


def _row(
    image: Mapping[str, Any],
    notes: Iterable[Mapping[str, Any]],
    *,
    categories: Mapping[Any, object],
    path: Path,
    boxed: bool,
    where: str,
) -> Row:
    name = Path(image["file_name"])
    where = f"{where}, {printable(name)}"
    objects: list[tuple[Name, PixelBox]] = []
    caption: str | None = None
    for note in notes:
        if "bbox" in note and not note.get("iscrowd"):
            number = _number(note.get("category_id"), key="category_id", where=where)
            if number not in categories:
                raise DataError(f"{where}: an annotation has the unknown category {number!r:.40}")
            box = pixel_box(note["bbox"], where=where)
            if box[2] > 0 and box[3] > 0:
                objects.append((category(categories[number], where=where), box))
        if caption is None and isinstance(note.get("caption"), str):
            caption = writable(note["caption"]).strip()
    fault = None if path.is_file() else "no such file"
    return Row(path, printable(name), caption=caption, objects=tuple(objects) if boxed else None, fault=fault)


def _read(path: Path, *, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: cannot be read as a COCO file ({error})") from None
    if not isinstance(found, dict) or not isinstance(found.get("images"), list):
        raise DataError(f"{where}: a COCO file is an object with 'images', 'annotations' and 'categories'")
    return cast("dict[str, Any]", found)


def _entries(table: Mapping[str, Any], key: str, *, where: str) -> Iterator[Mapping[str, Any]]:
    entries = table.get(key, [])
    if not isinstance(entries, list):
        raise DataError(f"{where}: {key!r} must be a list")
    for each in cast("list[object]", entries):
        if not isinstance(each, dict) or (key != "annotations" and "id" not in each):
            raise DataError(f"{where}: {key!r} must hold objects with an id, {each!r:.80} came")
        if key != "annotations":
            _number(cast("dict[str, Any]", each)["id"], key=f"id of {key}", where=where)
        yield cast("dict[str, Any]", each)


def _number(value: object, *, key: str, where: str) -> int | str:
    """What names an entry, a whole number or a text."""
    if isinstance(value, float) and value.is_integer():  # as tables with gaps are exported
        return int(value)
    if not isinstance(value, (int, str)):
        raise DataError(f"{where}: {key!r} must be a whole number or a text, {value!r:.40} came")
    return value

"""Rows of a folder: as metadata, COCO or VOC files annotate them, or as they lie, with captions beside them.

Every file that looks like a picture becomes a row; one that cannot be used says so in its `fault`.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from darkroom.core.errors import DataError, did_you_mean
from darkroom.data.coco import coco_file, coco_files, coco_rows
from darkroom.data.decode import printable
from darkroom.data.kinds import SUFFIXES, foreign, is_picture
from darkroom.data.place import folder_called, folders_in
from darkroom.data.row import Name, PixelBox, Row, category, class_name, pixel_box, safe_path, writable
from darkroom.data.sidecar import sidecar
from darkroom.data.voc import has_voc, voc_rows
from darkroom.data.yolo import has_labels, yolo_rows

METADATA, TABLE = "metadata.jsonl", "metadata.csv"  # as Hugging Face's imagefolder has either; the first counts
CAPTION, OTHERWISE = "caption", "text"  # the key of captions, and what it is called where nothing is called so
RUN = "recipe.yaml"  # in a folder of pictures that a run drew, and that are no data
TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
PAIRED = (  # folders of pictures and of their maps, as segmentations are published
    ("images", "imgs", "image", "img"),
    ("maps", "masks", "labels", "annotations", "map", "mask", "label"),
)
MASK = "_mask"  # at the end of the name of a picture's map
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx")
READ = ("classes.json", METADATA, TABLE)
NAMED = 3  # of what is not read, at most
LOSSY = (".jpg", ".jpeg")
LACKING = 0.05  # of the pictures may be without what all others have: they are left out, and no error

Candidate = tuple[Path, str | None]  # what looks like a picture, and why it is none


def list_rows(folder: Path, *, caption_field: str = CAPTION, by_class: bool | None = None) -> list[Row]:
    """All rows of a folder, in the metadata's order or sorted by name, those with a fault last; `DataError` for none.

    by_class: are sub-folders classes? None: yes when pictures lie in two or more of them, all but `LACKING`.
    """
    metadata = metadata_file(folder)
    coco = None if metadata is not None else coco_file(folder)
    if metadata is not None:
        rows = _annotated(metadata, caption_field)
    elif coco is not None:
        rows = coco_rows(coco)
    else:
        rows = voc_rows(folder) if has_voc(folder) else _untold(folder, by_class)
    if not rows:
        raise DataError(f"{printable(folder)}: no pictures here ({', '.join(sorted(SUFFIXES))} are looked for)")
    return rows


def metadata_file(folder: Path) -> Path | None:
    """What says of the pictures in and below a folder what they show; None where nothing does."""
    return next((path for name in (METADATA, TABLE) if (path := folder / name).is_file()), None)


def is_told(folder: Path) -> bool:
    """Does a file say of the pictures in a folder what they show?"""
    return metadata_file(folder) is not None or bool(coco_files(folder)) or has_voc(folder) or has_labels(folder)


def folders_shown(folder: Path) -> list[Path]:
    """The folders in this one that may hold pictures: not the hidden ones, nor runs, which draw some."""
    return [path for path in folders_in(folder) if _is_shown(path.parent, path.name)]


def sound(rows: Sequence[Row]) -> list[Row]:
    """The rows without a fault."""
    return [row for row in rows if row.fault is None]


def has_pictures(folder: Path) -> bool:
    """Is there a picture in or below this folder?"""
    return next(pictures_in(folder), None) is not None


def pictures_in(folder: Path) -> Iterator[Path]:
    """Picture files in and below a folder, told by their names; hidden ones are left out. In no fixed order."""
    for _, files in _walk(folder):
        yield from (path for path in files if is_picture(path.name))


def _walk(folder: Path, onerror: Callable[[OSError], object] | None = None) -> Iterator[tuple[list[Path], list[Path]]]:
    """Folders and files, place by place, without the hidden ones and runs; links to folders are not followed."""
    for place, folders, files in os.walk(folder, onerror=onerror):
        folders[:] = [each for each in folders if _is_shown(place, each)]
        shown = [each for each in files if not each.startswith(".")]
        yield [Path(place, each) for each in folders], [Path(place, each) for each in shown]


def _is_shown(place: str | Path, folder: str) -> bool:
    return not folder.startswith((".", "__")) and not os.path.exists(os.path.join(place, folder, RUN))


def _candidates(folder: Path) -> Iterator[Candidate]:
    """Whatever looks like a picture in and below a folder, and why it is none, where its name or place tells."""
    closed: list[OSError] = []
    for folders, files in _walk(folder, closed.append):
        for path in folders:
            if path.is_symlink():
                yield path, "a link to a folder, which is not followed"
            elif is_picture(path.name) and not has_pictures(path):
                yield path, "a folder, not a picture"
        for path in files:
            fault = foreign(path.name)
            if fault is not None or is_picture(path.name):
                yield path, fault
    yield from ((Path(error.filename), f"a folder that cannot be read ({error.strerror})") for error in closed)


def _untold(folder: Path, by_class: bool | None) -> list[Row]:
    """The rows of a folder of which no list tells."""
    listed = sorted(_candidates(folder))
    return (
        _boxed(folder, listed) or _paired(folder, listed) or _masked(folder, listed) or _found(folder, listed, by_class)
    )


def _boxed(folder: Path, listed: Sequence[Candidate]) -> list[Row]:
    """Pictures with boxes in texts; none where the texts, if there are any, say something else."""
    rows = yolo_rows(folder, [path for path, fault in listed if fault is None])
    return [*rows, *_faults(folder, listed)] if rows else []


def _found(folder: Path, listed: Sequence[Candidate], by_class: bool | None) -> list[Row]:
    """Pictures below a folder with captions beside them; their labels where sub-folders are classes."""
    inside = [path.relative_to(folder) for path, fault in listed if fault is None]
    tops = {path.parts[0] for path in inside if len(path.parts) > 1}
    outside = sum(len(path.parts) == 1 for path in inside)
    by_class = outside <= LACKING * len(inside) and (len(tops) > 1 if by_class is None else by_class)

    def row(path: Path) -> Row:
        caption, fault = sidecar(folder / path)
        if by_class and len(path.parts) == 1:
            return Row(folder / path, printable(path), fault="in no folder of a class, and nearly all others are")
        label = printable(Path(path.parts[0])) if by_class else None
        return Row(folder / path, printable(path), caption=caption, label=label, fault=fault)

    return [*map(row, inside), *_faults(folder, listed)]


def _paired(folder: Path, listed: Sequence[Candidate]) -> list[Row]:
    """Pictures in `images` with maps of their names in `masks`; none where there are other folders, or few pairs."""
    images, masks = (folder_called(folder, names) for names in PAIRED)
    if images is None or masks is None or any(map(has_pictures, {*folders_shown(folder)} - {images, masks})):
        return []
    maps = {_stem(path, masks): path for path, _ in listed if masks in path.parents}
    pairs = [(path, fault, _map_of(_stem(path, images), maps)) for path, fault in listed if images in path.parents]
    if 2 * sum(mapped is not None for _, _, mapped in pairs) <= len(pairs):
        return []
    loose = [path for path, _ in listed if path.parent == folder]
    faults = _faults(folder, ((path, "neither in the folder of pictures nor in that of maps") for path in loose))
    return [*(_mapped(path, mapped, folder, fault=fault) for path, fault, mapped in pairs), *faults]


def _masked(folder: Path, listed: Sequence[Candidate]) -> list[Row]:
    """Pictures with maps beside them, `a_mask.png` of `a.jpg`; none where there are few pairs."""
    stems = {path.with_suffix("") for path, _ in listed}
    ends = {path: path.with_name(path.stem.removesuffix(MASK)) for path, _ in listed if path.stem.endswith(MASK)}
    maps = {stem: path for path, stem in ends.items() if stem in stems}
    pictures = [(path, fault) for path, fault in listed if maps.get(ends.get(path, path)) != path]
    if not maps or 2 * len(maps) <= len(pictures):
        return []
    return [_mapped(path, maps.get(path.with_suffix("")), folder, fault=fault) for path, fault in pictures]


def _stem(path: Path, place: Path) -> Path:
    return path.relative_to(place).with_suffix("")


def _map_of(stem: Path, maps: Mapping[Path, Path]) -> Path | None:
    return maps.get(stem) or maps.get(stem.with_name(f"{stem.name}{MASK}"))


def _mapped(path: Path, mapped: Path | None, folder: Path, *, fault: str | None) -> Row:
    caption, unread = sidecar(path)
    if mapped is None:
        unread = "without a map of its name, which the others have"
    elif mapped.suffix.lower() in LOSSY:
        unread = "its map is a JPEG, which blurs class ids; PNG keeps them"
    return Row(path, printable(path.relative_to(folder)), caption=caption, map=mapped, fault=fault or unread)


def _faults(folder: Path, listed: Iterable[Candidate]) -> list[Row]:
    """Those of what is listed that have a fault."""
    return [Row(path, printable(path.relative_to(folder)), fault=fault) for path, fault in listed if fault is not None]


def _annotated(metadata: Path, caption_field: str) -> list[Row]:
    """The rows of a metadata file, then the pictures in its folder that it does not name."""
    entries = list(_entries(metadata) if metadata.name == METADATA else _lines(metadata))
    keys = {key for _, entry in entries for key in entry}
    if caption_field == CAPTION not in keys and OTHERWISE in keys:
        caption_field = OTHERWISE
    if caption_field != CAPTION and caption_field not in keys:
        raise DataError(f"{printable(metadata)}: no field {caption_field!r}{did_you_mean(caption_field, keys)}")
    rows = [_row(entry, metadata, line=line, caption_field=caption_field) for line, entry in entries]
    if not rows:
        return []
    named = {path for row in rows for path in (row.path, row.map) if path is not None}
    absent = {path for path in named if not os.path.exists(path)}
    marked = _marked(rows, absent, listed=metadata.name)
    if absent and not sound(marked):
        first = ", ".join(printable(path.relative_to(metadata.parent)) for path in sorted(absent)[:3])
        more = ", ..." if len(absent) > 3 else ""
        where = printable(metadata)
        meant = _elsewhere(absent, metadata.parent)
        raise DataError(f"{where}: names {len(absent)} of {len(named)} files that are not there: {first}{more}{meant}")
    others = ((path, fault or f"not named in {metadata.name}") for path, fault in _candidates(metadata.parent))
    unnamed = sorted((path, fault) for path, fault in others if path not in named)
    return [*marked, *_faults(metadata.parent, unnamed)]


def _elsewhere(absent: Collection[Path], folder: Path) -> str:
    """Where a file lies that was named without its folder, or with another end, for the end of a sentence."""
    names, stems = {path.name for path in absent}, {path.stem for path in absent}
    below = sorted(path for path in pictures_in(folder) if path.name in names or path.stem in stems)
    if not below:
        return ""
    there, start = printable(below[0].relative_to(folder)), printable(Path(folder.name))
    return f"; {there} is there: file_name is a file's whole name, from the folder {start} on"


def unread(folder: Path) -> list[Row]:
    """What lies beside pictures, might say what they show, and is not read: rows with that fault, some of them."""
    names = {path.stem for path in pictures_in(folder)}
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    known = coco_files(folder)
    tables = [path for path in inside if _is_table(path) and path.stem not in names and path not in known]
    bare = [path for path in folders_shown(folder) if not has_pictures(path)]
    texts = [path for path in bare if not names.isdisjoint(text.stem for text in path.glob("*.txt"))]
    return _faults(
        folder,
        [
            *((path, f"is not read; {METADATA} is, and {TABLE} with the column file_name") for path in tables[:NAMED]),
            *((path, "its texts are not read; captions lie beside their pictures") for path in texts[:NAMED]),
        ],
    )


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES and path.name not in READ and path.is_file()


def _marked(rows: Sequence[Row], absent: Container[Path], *, listed: str) -> list[Row]:
    """The rows, their faults that show without opening a file said; a picture may be listed with several captions."""
    marked, seen = list[Row](), set[Row]()
    for row in rows:
        fault = f"named twice in {listed} with the same annotations" if row in seen else None
        if row.map is not None and row.map in absent:
            fault = f"no such map as {printable(Path(row.map.name))}"
        if row.path in absent:
            fault = "no such file"
        seen.add(row)
        marked.append(row if fault is None else replace(row, fault=fault))
    return marked


def _entries(metadata: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, object) of every line that is not blank."""
    for number, line in enumerate(_bytes(metadata).split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{printable(metadata)} line {number}"
        try:
            entry = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:  # bytes, syntax, or a number of thousands of digits
            raise DataError(f"{where}: not valid JSON ({error})") from None
        if not isinstance(entry, dict):
            raise DataError(f"{where}: an object {{...}} is needed, {type(entry).__name__} came")
        yield number, cast("dict[str, Any]", entry)


def _lines(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, what its columns say) of every row of a table; whole numbers of labels as such, no empty cells."""
    where = printable(table)
    try:
        reader = csv.DictReader(io.StringIO(_bytes(table).decode("utf-8-sig"), newline=""), strict=True)
        if "file_name" not in (columns := reader.fieldnames or ()):
            if len(columns) == 1 and (found := next((each for each in ";\t" if each in columns[0]), None)):
                raise DataError(f"{where}: its first line has no comma but {found!r}; columns are separated by commas")
            there = ", ".join(repr(printable(Path(each))) for each in columns[:6])
            meant = f", but {there}; call the one with the names of pictures so" if there else "; add it"
            raise DataError(f"{where}: its first line names no column 'file_name'{meant}, or rename this table")
        for cells in reader:
            if None in cells:
                raise DataError(f"{where} line {reader.line_num}: more cells than the {len(columns)} of the first line")
            said: dict[str, Any] = {key: cell for key, cell in cells.items() if cell}
            label = said.get("label", "")
            yield reader.line_num, said | ({"label": int(label)} if label.isdecimal() and len(label) < 10 else {})
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: not valid CSV in UTF-8 ({error})") from None


def _bytes(metadata: Path) -> bytes:
    try:
        return metadata.read_bytes()
    except OSError as error:
        raise DataError(f"{printable(metadata)}: cannot be read ({error.strerror or error})") from None


def _row(entry: Mapping[str, Any], metadata: Path, *, line: int, caption_field: str) -> Row:
    where = f"{printable(metadata)} line {line}"
    path = _file(metadata.parent, entry.get("file_name"), key="file_name", where=where)
    if path is None:
        raise DataError(f"{where}: 'file_name' is missing{did_you_mean('file_name', entry)}")
    return Row(
        path=path,
        name=printable(path.relative_to(metadata.parent)),
        caption=caption_in(entry.get(caption_field), where=where, key=caption_field),
        label=class_name(entry.get("label"), key="label", where=where),
        objects=objects_in(entry.get("objects"), where=where),
        map=_file(metadata.parent, entry.get("map_file_name"), key="map_file_name", where=where),
    )


def _file(folder: Path, value: object, *, key: str, where: str) -> Path | None:
    return None if value is None else folder / safe_path(value, key=key, where=where)


def caption_in(value: object, *, where: str, key: str) -> str | None:
    """The caption that stands in a list, of several the first; `DataError` for what is no text."""
    if isinstance(value, list) and value:  # several captions of one picture: the first
        value = cast("list[object]", value)[0]
    if value is None or isinstance(value, str):
        return None if value is None else writable(value)
    raise DataError(f"{where}: {key!r} must be text, {value!r:.80} came")


def objects_in(value: object, *, where: str) -> tuple[tuple[Name, PixelBox], ...] | None:
    """Boxes and categories that stand in a list; `DataError` for what is none."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DataError(f"{where}: 'objects' must be {{'bbox': [...], 'categories': [...]}}, {value!r:.80} came")
    table = cast("dict[str, Any]", value)
    boxes, names = table.get("bbox"), table.get("categories", table.get("category"))
    if not isinstance(boxes, list) or not isinstance(names, list) or len(boxes) != len(names):
        raise DataError(f"{where}: 'objects' needs lists 'bbox' and 'categories' of equal length")
    return tuple(
        (category(name, where=where), pixel_box(box, where=where))
        for name, box in zip(cast("list[object]", names), cast("list[object]", boxes), strict=True)
    )

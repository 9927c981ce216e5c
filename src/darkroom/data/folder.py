"""A folder of pictures as a source: rows checked, classes named, pictures decoded when asked for."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast, final

import numpy as np
from jaxtyping import Integer

from darkroom.core.errors import DataError
from darkroom.core.names import NAMELESS, Names
from darkroom.data.decode import check, decode, decode_map
from darkroom.data.examples import Box, Example, Size, Thing
from darkroom.data.listing import Listing, Sizes, kinds_of
from darkroom.data.place import size_of
from darkroom.data.row import Kinds, Name, PixelBox, Row
from darkroom.data.shards import Listed

CLASSES = "classes.json"
_NUMBER: Final = re.compile(r"-?\d{1,18}")  # `isdigit` takes what `int` does not: ², --1


@final
@dataclass(frozen=True)
class Tables:
    """What ids stand for in all splits of a data set. given: the table of classes.json, which whole numbers index."""

    names: Names = NAMELESS
    given: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Folder:
    """Usable rows of a folder, or of shards, with their displayed sizes; `example` decodes."""

    name: str
    rows: tuple[Row, ...] | Listing
    sizes: tuple[Size, ...] | Sizes
    tables: Tables = Tables()
    left_out: tuple[tuple[str, str], ...] = ()
    alpha: bool = False
    drawn: bool = False  # held out of the training pictures by us, so that some may be moved

    @property
    def fields(self) -> frozenset[str]:
        """Which of caption, label, objects, map the rows have."""
        return self._fields

    @cached_property
    def _fields(self) -> frozenset[str]:
        return kinds_of(self.rows).fields

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.tables.names.classes

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the objects' categories."""
        return self.tables.names.categories

    @property
    def map_classes(self) -> tuple[str, ...]:
        """Names of the map's ids, where classes.json gives them."""
        return self.tables.names.map_classes

    def __len__(self) -> int:
        return len(self.rows)

    def example(self, index: int) -> Example:
        """The decoded example; `DataError` naming the file when that fails. A missing caption is empty."""
        row = self.rows[index]
        return Example(
            picture=decode(row.path, alpha=self.alpha),
            name=row.name,
            caption=self._caption(row),
            label=self._label(row),
            objects=self._objects(row, size=self.sizes[index]),
            map=None if row.map is None else decode_map(row.map),
        )

    def size(self, index: int) -> Size:
        """Width and height as displayed."""
        return self.sizes[index]

    def caption(self, index: int) -> str | None:
        """The caption; empty where only this row has none."""
        return self._caption(self.rows[index])

    def label(self, index: int) -> int | None:
        """The label as an index into `classes`."""
        return self._label(self.rows[index])

    def objects(self, index: int) -> tuple[Thing, ...] | None:
        """The objects with boxes relative to the picture; none where only this row has none."""
        return self._objects(self.rows[index], size=self.sizes[index])

    def map(self, index: int) -> Integer[np.ndarray, "h w"] | None:
        """The class ids of the row's map; `DataError` naming the file when it cannot be decoded."""
        path = self.rows[index].map
        return None if path is None else decode_map(path)

    def fingerprint(self) -> str:
        """A hash of names, file sizes and metadata in order, and of the tables that ids refer to."""
        digest = hashlib.blake2b(digest_size=16)
        for _, facts in self._known():
            digest.update(facts)
        given, named = self.tables.given, self.map_classes
        if given or named:
            digest.update(repr((given, named)).encode(errors="backslashreplace"))
        return digest.hexdigest()

    def hashes(self) -> dict[str, str]:
        """For each name, of a picture or of a shard, a short hash of all that is known without decoding anything."""
        found: dict[str, str] = {}
        for name, facts in self._known():
            known = found.get(name, "").encode()
            found[name] = hashlib.blake2b(known + facts, digest_size=8).hexdigest()
        return found

    def part(self, kept: Sequence[int]) -> "Folder":
        """The same folder with these rows only, all of them in memory."""
        rows, sizes = (tuple(each[row] for row in kept) for each in (self.rows, self.sizes))
        return replace(self, rows=rows, sizes=sizes)

    def without(self, left_out: Collection[int]) -> "Folder":
        """The same folder without these rows."""
        if isinstance(self.rows, Listing):
            rows = self.rows.without(left_out)
            return replace(self, rows=rows, sizes=Sizes(rows))
        return self.part([row for row in range(len(self)) if row not in left_out])

    def _known(self) -> Iterator[tuple[str, bytes]]:
        """Names and what is known of each; of shards, what their indices know."""
        if isinstance(self.rows, Listing):
            yield from ((piece.called, piece.known) for piece in self.rows.pieces)
        else:
            yield from ((row.name, self._facts(place)) for place, row in enumerate(self.rows))

    def _facts(self, index: int) -> bytes:
        row = self.rows[index]
        try:
            mapped = None if row.map is None else (row.map.name, size_of(row.map))
            facts = (row.name, size_of(row.path), self.sizes[index], row.caption, row.label, row.objects, mapped)
        except OSError as error:
            raise DataError(
                f"{self.name}: {row.name} was there when the folder was opened ({error.strerror})"
            ) from None
        return repr(facts).encode(errors="backslashreplace")

    def _caption(self, row: Row) -> str | None:
        return "" if row.caption is None and "caption" in self.fields else row.caption

    def _label(self, row: Row) -> int | None:
        return None if row.label is None else self.classes.index(_word(row.label, self.tables.given))

    def _objects(self, row: Row, *, size: Size) -> tuple[Thing, ...] | None:
        if "objects" not in self.fields:
            return None
        boxes = [(name, _relative(box, size)) for name, box in row.objects or ()]
        return tuple(
            Thing(self.categories.index(_word(name, self.tables.given)), box)
            for name, box in boxes
            if box[2] > 0 and box[3] > 0
        )


def checked(name: str, rows: Sequence[Row], *, tables: Tables, alpha: bool = False) -> Folder:
    """The rows whose pictures look whole as a folder; the others are in its `left_out` with the reason."""
    results = [(row, row.fault or row.size or check(row.path)) for row in rows]
    good = [(row, size) for row, size in results if not isinstance(size, str)]
    left_out = tuple((row.name, reason) for row, reason in results if isinstance(reason, str))
    found = Folder(name, tuple(row for row, _ in good), tuple(size for _, size in good), tables, left_out, alpha)
    return _some(found)


def listed(name: str, shards: Listed, *, tables: Tables, alpha: bool = False) -> Folder:
    """The same of shards, whose pictures were looked at when their indices were made."""
    return _some(Folder(name, shards.rows, Sizes(shards.rows), tables, shards.faults, alpha))


def _some(folder: Folder) -> Folder:
    if len(folder):
        return folder
    if not folder.left_out:
        raise DataError(f"{folder.name}: no pictures are listed for training")
    first = ": ".join(folder.left_out[0])
    raise DataError(f"{folder.name}: none of {len(folder.left_out)} pictures can be read; first: {first}")


def name_classes(folder: Path, kinds: Kinds) -> Tables:
    """Class names of all splits together: from classes.json in the folder, else as sound rows write them."""
    given = _given(folder)
    for key, count in (("label", kinds.labelled), ("map_file_name", kinds.mapped)):
        if 0 < count < kinds.rows:
            lacking = f"is missing in {kinds.rows - count} of {kinds.rows} rows"
            raise DataError(f"{folder}: {key!r} {lacking}; write it for all of them, or for none")
    for_map = bool(given) and given[0].lower() == "background"  # then it names the map's ids, not labels
    table = () if for_map else given
    names = Names(
        classes=_words(kinds.labels, table, where=f"{folder}: label"),
        categories=_words(kinds.categories, table, where=f"{folder}: category"),
        map_classes=given if for_map else (),
    )
    return Tables(names, given=table)


def _given(folder: Path) -> tuple[str, ...]:
    """Names in the order of their ids from classes.json: [{"id": 0, "name": ...}], [name, ...] or none."""
    path = folder / CLASSES
    if not path.is_file():
        return ()
    try:
        entries = cast("object", json.loads(path.read_text(encoding="utf-8")))
        if not isinstance(entries, list):
            raise ValueError(f"{type(entries).__name__} came")
        pairs = [
            (int(each["id"]), str(each["name"])) if isinstance(each, dict) else (place, str(each))
            for place, each in enumerate(cast("list[Any]", entries))
        ]
        if sorted(number for number, _ in pairs) != list(range(len(pairs))):
            raise ValueError("ids must count from 0 without gaps")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f'{path}: a list of {{"id": 0, "name": "..."}} is needed ({error})') from None
    return tuple(name for _, name in sorted(pairs))


def _words(values: Iterable[Name], table: tuple[str, ...], *, where: str) -> tuple[str, ...]:
    found = set(values)
    if not found:
        return ()
    for value in found:
        if isinstance(value, int) and table and not 0 <= value < len(table):
            raise DataError(f"{where} {value} is not in {CLASSES} (0..{len(table) - 1})")
    words = {_word(value, table) for value in found}
    if table and words <= set(table):
        return table
    numeric = all(map(_NUMBER.fullmatch, words))
    return tuple(sorted(words, key=lambda word: (int(word) if numeric else 0, word)))


def _word(value: Name, table: tuple[str, ...]) -> str:
    return table[value] if isinstance(value, int) and table else str(value)


def _relative(box: PixelBox, size: Size) -> Box:
    """Pixels to 0..1, clipped to the picture; a box outside has no area."""
    width, height = size
    left, right = (min(max(value, 0.0), float(width)) for value in (box[0], box[0] + box[2]))
    top, bottom = (min(max(value, 0.0), float(height)) for value in (box[1], box[1] + box[3]))
    return left / width, top / height, (right - left) / width, (bottom - top) / height

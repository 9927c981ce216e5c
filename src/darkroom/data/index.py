"""The index of a shard: what lies where in it, looked at once and kept in a file of which rows are read one by one.

It is a number (int64), how long the JSON behind it is, which says what rows have altogether and what cannot be used;
where each row's text ends (int64), its width and height (int32); and these texts, a JSON list each. Indices lie in
`$DARKROOM_CACHE/shards` and are made anew for a shard whose size or date has changed.
"""

import contextlib
import hashlib
import io
import json
import os
import tempfile
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast, final

import numpy as np

from darkroom.core.errors import DataError, InputError
from darkroom.core.fetch import cache
from darkroom.core.hashes import text_hash
from darkroom.core.record import atomic, writable_folder
from darkroom.data.examples import Size
from darkroom.data.place import Member, Shard, facts_of
from darkroom.data.remote import Unreachable, shown, whole
from darkroom.data.row import Kinds, Row
from darkroom.data.samples import samples_in

_VERSION: Final = 3
_NUMBER: Final = 8  # bytes
_AT_ONCE: Final = 2**20  # bytes
_LOOKING: Final = threading.Lock()  # many fetch, one looks: warnings of decoders are held back for the whole process


@final
@dataclass(frozen=True)
class Told:
    """What an index says of all rows of its shard.

    digest: of all that is known of them · faults: (name inside, reason) of what cannot be used; an empty name means the
    shard itself.
    """

    kinds: Kinds
    digest: str
    faults: tuple[tuple[str, str], ...]


@final
class Index:
    """An index in an open file, or in memory. `ValueError`, `KeyError` or `TypeError` for what is none.

    data: all of it, where no file keeps it.
    """

    def __init__(self, file: BinaryIO, *, data: bytes | None = None) -> None:
        self._file, self._reading, self.data = file, threading.Lock(), data
        weakref.finalize(self, file.close)
        self._begin = _NUMBER + int.from_bytes(self._at(0, _NUMBER), "little")
        self._length = file.seek(0, os.SEEK_END)
        self.told = _told(json.loads(self._at(_NUMBER, min(self._begin, self._length) - _NUMBER)))
        count = self.told.kinds.rows
        self._text = self._begin + 2 * _NUMBER * count
        numbers = self._at(self._begin, self._text - self._begin)
        self._ends = np.frombuffer(numbers, "<i8", count=count)
        self._sizes = np.frombuffer(numbers, "<i4", count=2 * count, offset=_NUMBER * count).reshape(count, 2)
        if self._text + (int(self._ends[-1]) if count else 0) != self._length:
            raise ValueError("an index that was cut")

    @property
    def sound(self) -> bool:
        """Is every byte what was written? All of it is read for that."""
        digest = _digest()
        for start in range(self._begin, self._length, _AT_ONCE):
            digest.update(self._at(start, _AT_ONCE))
        return digest.hexdigest() == self.told.digest

    def size(self, place: int) -> Size:
        """Width and height of a row's picture."""
        width, height = self._sizes[place].tolist()
        return width, height

    def row(self, place: int, shard: Shard, *, called: str) -> Row:
        """A row of a shard of this name; `DataError` where a disk has garbled it."""
        start = int(self._ends[place - 1]) if place else 0
        try:
            text = self._at(self._text + start, int(self._ends[place]) - start)
            return _row(json.loads(text), shard, called, size=self.size(place))
        except (OSError, ValueError, TypeError):
            raise DataError(f"{called}: its index is damaged; remove {cache('shards')} and run again") from None

    def _at(self, start: int, size: int) -> bytes:
        """Bytes of the file, of which many ask: a mapped one would end the process when it is cut."""
        with self._reading:
            self._file.seek(start)
            return self._file.read(max(0, size))


def index_of(shard: Shard, *, caption_field: str) -> Index:
    """The index of a shard, from its file where that is there and fits; else it is made, and kept if it can be.

    `OSError` for a shard that cannot be read, `Unreachable` where it is no longer what was listed.
    """
    path = _path(shard, caption_field) if shard.facts.tag else None
    found = None if path is None else _recalled(path)
    if found is not None:
        return found
    content = _written(_read(shard, caption_field=caption_field))
    kept = None if path is None else _remember(path, content)
    return in_memory(content) if kept is None else kept


def sound_index(shard: Shard, *, caption_field: str) -> Index:
    """The same; one that a disk has garbled is made anew."""
    found = index_of(shard, caption_field=caption_field)
    if found.sound:
        return found
    with contextlib.suppress(OSError):
        _path(shard, caption_field).unlink()
    return index_of(shard, caption_field=caption_field)


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def in_memory(data: bytes) -> Index:
    """An index that no file keeps."""
    return Index(io.BytesIO(data), data=data)


def _path(shard: Shard, caption_field: str) -> Path:
    """Where the index is kept; it belongs to a place, a size and a date."""
    place = shown(shard.place) if shard.remote else str(Path(shard.place).resolve())
    known = repr((place, shard.facts.size, shard.facts.tag, caption_field, _VERSION))
    return cache("shards") / text_hash(known)


def _recalled(path: Path) -> Index | None:
    """The index in a file; None where there is none that can be read."""
    try:
        return Index(cast("BinaryIO", path.open("rb", buffering=0)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _remember(path: Path, content: bytes) -> Index | None:
    """The index in a file from now on; None where none can be written, for it is a convenience."""
    try:
        with atomic(writable_folder(path.parent) / path.name) as temporary:
            temporary.write_bytes(content)
    except (OSError, InputError):
        return None
    return _recalled(path)


def _written(rows: Iterable[Row]) -> bytes:
    """The bytes of an index."""
    good, faults = list[Row](), list[tuple[str, str]]()
    for row in rows:
        if row.fault is None:
            good.append(row)
        else:
            faults.append((row.name, row.fault))
    texts = [json.dumps(_plain(row)).encode() for row in good]
    ends = np.cumsum([len(text) for text in texts], dtype="<i8").tobytes()
    sizes = np.array([row.size for row in good], "<i4").tobytes()
    body = b"".join([ends, sizes, *texts])
    digest = _digest()
    digest.update(body)
    head = {
        "version": _VERSION,
        "digest": digest.hexdigest(),
        "faults": faults,
        "kinds": _plain_kinds(Kinds.of(good)),
    }
    line = json.dumps(head).encode()
    return len(line).to_bytes(_NUMBER, "little") + line + body


def _told(head: dict[str, Any]) -> Told:
    if head["version"] != _VERSION:
        raise ValueError("an index of another version")
    kinds = {key: frozenset(value) if isinstance(value, list) else value for key, value in head["kinds"].items()}
    return Told(Kinds(**kinds), head["digest"], tuple((name, reason) for name, reason in head["faults"]))


def _plain_kinds(kinds: Kinds) -> dict[str, Any]:
    found = vars(kinds)
    return {key: sorted(value, key=repr) if isinstance(value, frozenset) else value for key, value in found.items()}


def _plain(row: Row) -> list[Any]:
    """A row without its shard, which may be called otherwise next time, and its size, which stands elsewhere."""
    places = [[each.name, each.offset, each.size] if isinstance(each, Member) else None for each in (row.path, row.map)]
    return [row.name, *places, row.caption, row.label, row.objects]


def _row(plain: list[Any], shard: Shard, called: str, *, size: Size) -> Row:
    name, path, mapped, caption, label, objects = plain
    return Row(
        path=Member(shard, *path),
        name=f"{called}/{name}",
        caption=caption,
        label=label,
        objects=None if objects is None else tuple((each, tuple(box)) for each, box in objects),
        map=None if mapped is None else Member(shard, *mapped),
        size=size,
    )


def _read(shard: Shard, *, caption_field: str) -> list[Row]:
    """The samples of a shard, looked at one by one; a remote one is read once from its beginning to its end."""
    if shard.remote:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "shard.tar")
            with path.open("wb") as file:
                file.writelines(whole(shard.place, facts=shard.facts))
            with _LOOKING:
                rows = samples_in(Shard(str(path), facts_of(str(path))), caption_field=caption_field)
    else:
        rows = samples_in(shard, caption_field=caption_field)
    if facts_of(shard.place) != shard.facts:
        raise Unreachable(f"{shown(shard.place)}: has changed while it was read; run again when it is whole")
    return rows

"""Where the bytes of a picture lie: a file, or a part of a shard, which is a file or lies elsewhere."""

import io
import math
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Final, cast, final

from darkroom.core.errors import DataError
from darkroom.data.remote import Facts, Unreachable, find, is_remote, read, shown

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MOST_SHARDS: Final = 1_000_000  # of one pattern
_RANGE: Final = re.compile(r"\{([0-9]{1,9})\.\.([0-9]{1,9})\}")


@final
@dataclass(frozen=True, slots=True)
class Shard:
    """A file that holds others, here or elsewhere. place: a path or a URL · facts: as they were when it was listed."""

    place: str
    facts: Facts

    @property
    def remote(self) -> bool:
        """Must it be fetched?"""
        return is_remote(self.place)


@final
@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a shard, known by its place in it, so that it is read without reading what stands before it.

    data: its bytes, where they were fetched already.
    """

    shard: Shard
    name: str
    offset: int
    size: int
    data: bytes | None = None


Place = Path | Member


def fetched(place: Place) -> Place:
    """The same place, its bytes brought here where they would be fetched each time."""
    if not isinstance(place, Member) or not place.shard.remote:
        return place
    with opened(place) as file:
        return replace(place, data=file.read())


def opened(place: Place) -> BinaryIO:
    """The bytes, to be read and sought in; `OSError` when a file is not there, `Unreachable` when a shard is not there
    as it was listed.
    """
    match place:
        case Path():
            return place.open("rb")
        case Member(data=bytes() as data):
            return io.BytesIO(data)
        case Member(shard=Shard(remote=True) as shard):
            return io.BytesIO(read(shard.place, start=place.offset, size=place.size, facts=shard.facts))
        case Member():
            return cast("BinaryIO", io.BufferedReader(_Part(_listed_file(place.shard), place)))


def size_of(place: Place) -> int:
    """How many bytes these are."""
    return place.stat().st_size if isinstance(place, Path) else place.size


def facts_of(place: str) -> Facts:
    """What is known of a file here or elsewhere without reading it; `OSError` where there is none."""
    return find(place) if is_remote(place) else _facts(os.stat(place))


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where it cannot be read."""
    try:
        with os.scandir(folder) as found:  # which knows without asking for each
            return sorted(Path(each.path) for each in found if each.is_dir())
    except OSError:
        return []


def folder_called(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder in this one that has one of these names, in whatever case; where several have, the first name's."""
    inside = {path.name.lower(): path for path in folders_in(folder)}
    return next((inside[name] for name in names if name in inside), None)


def called(place: str) -> str:
    """What a data set is called by the place it comes from: a folder, a file, or a pattern of shards."""
    path = PurePosixPath(shown(place)) if is_remote(place) else Path(place)
    if path.suffix == ".tar":
        return path.parent.name if _RANGE.search(path.name) else path.stem
    return path.stem if path.suffix == ".json" else path.name


def patterned(place: str) -> list[str]:
    """The names that a pattern stands for, in order: `{000..199}` counts, with as many digits as are written.

    `DataError` for one that counts down, or has more than `MOST_SHARDS`.
    """
    ranges = [range(int(first), int(last) + 1) for first, last in _RANGE.findall(place)]
    if not all(ranges):
        raise DataError(f"{shown(place)}: a pattern that counts down; write {{000..199}}, the smaller number first")
    if math.prod(map(len, ranges)) > MOST_SHARDS:
        raise DataError(f"{shown(place)}: stands for more than {MOST_SHARDS} shards")
    return _patterned(place)


def _patterned(place: str) -> list[str]:
    found = _RANGE.search(place)
    if found is None:
        return [place]
    ahead, after = place[: found.start()], _patterned(place[found.end() :])
    numbers = range(int(found[1]), int(found[2]) + 1)
    return [f"{ahead}{number:0{len(found[1])}}{rest}" for number in numbers for rest in after]


def _facts(about: os.stat_result) -> Facts:
    if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for
        raise OSError("not a file")
    return Facts(about.st_size, str(about.st_mtime_ns))


def _listed_file(shard: Shard) -> io.FileIO:
    """The file of a shard that is here; `Unreachable` when it is not the one that was listed."""
    try:
        file = io.FileIO(shard.place)
        if _facts(os.fstat(file.fileno())) == shard.facts:
            return file
        file.close()
        what = "has changed since it was listed; run again with what is there now"
    except OSError as error:  # a mount that is lost, or too many open files
        what = f"was there and cannot be opened any more ({error.strerror or error})"
    raise Unreachable(f"{shard.place}: {what}")


@final
class _Part(io.RawIOBase):
    """A part of a file, as if it were a file; closing it closes the whole."""

    def __init__(self, file: io.FileIO, member: Member) -> None:
        super().__init__()
        self._file = file
        self._start, self._size, self._at = member.offset, member.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        into = memoryview(buffer).cast("B")
        wanted = max(0, min(len(into), self._size - self._at))
        self._file.seek(self._start + self._at)
        count = self._file.readinto(into[:wanted])
        if wanted and not count:
            raise OSError("the shard has become shorter")
        self._at += count or 0
        return count or 0

    def close(self) -> None:
        self._file.close()
        super().close()

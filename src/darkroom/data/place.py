"""Where the bytes of a picture lie: a file, or a part of a shard, which is a file or lies elsewhere."""

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Final, cast, final

from darkroom.data.remote import is_remote, read

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_RANGE: Final = re.compile(r"\{(\d+)\.\.(\d+)\}")


@final
@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a shard, known by its place in it, so that it is read without reading what stands before it.

    shard: a path or a URL.
    """

    shard: str
    inside: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """Its name in the shard."""
        return self.inside

    @property
    def remote(self) -> bool:
        """Must it be fetched?"""
        return is_remote(self.shard)


@final
@dataclass(frozen=True, slots=True)
class Fetched:
    """A part of a remote shard that is here already."""

    member: Member
    data: bytes

    @property
    def shard(self) -> str:
        """Where it came from."""
        return self.member.shard

    @property
    def name(self) -> str:
        """Its name there."""
        return self.member.inside


Place = Path | Member | Fetched


def fetched(place: Place) -> Place:
    """The same place, its bytes brought here where they would be fetched each time."""
    return Fetched(place, opened(place).read()) if isinstance(place, Member) and place.remote else place


def opened(place: Place) -> BinaryIO:
    """The bytes, to be read and sought in; `OSError` when they are not there (any more)."""
    match place:
        case Path():
            return place.open("rb")
        case Fetched(data=data):
            return io.BytesIO(data)
        case Member(remote=True):
            return io.BytesIO(read(place.shard, start=place.offset, size=place.size))
        case Member():
            return cast("BinaryIO", io.BufferedReader(_Part(place)))


def size_of(place: Place) -> int:
    """How many bytes these are."""
    match place:
        case Path():
            return place.stat().st_size
        case Fetched(data=data):
            return len(data)
        case Member(size=size):
            return size


def called(place: str) -> str:
    """What a data set is called by the place it comes from: a folder, a file, or a pattern of shards."""
    path = PurePosixPath(place) if is_remote(place) else Path(place)
    if path.suffix == ".tar":
        return path.parent.name if _RANGE.search(path.name) else path.stem
    return path.name


def patterned(place: str) -> list[str]:
    """The names that a pattern stands for, in order: `{000..199}` counts, with as many digits as are written."""
    found = _RANGE.search(place)
    if found is None:
        return [place]
    first, last = found[1], found[2]
    ahead, after = place[: found.start()], patterned(place[found.end() :])
    numbers = range(int(first), int(last) + 1)
    return [f"{ahead}{number:0{len(first)}}{rest}" for number in numbers for rest in after]


@final
class _Part(io.RawIOBase):
    """A part of a file, as if it were a file."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self._file = open(member.shard, "rb", buffering=0)  # noqa: SIM115 (closed with this)
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

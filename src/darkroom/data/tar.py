"""What lies where in a shard, a tar file and perhaps a stranger's: no header of it can cost much or lead astray.

Python's own reader follows chains of headers by recursion, keeps headers of any size, and before its security releases
of 2025 went round in circles after a negative size. Formats: ustar, GNU (long names), pax (long names, large sizes).
Source: POSIX.1-2017, `pax`; GNU tar's manual, "Basic Tar Format".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, final

from darkroom.core.errors import DataError
from darkroom.data.kinds import legible

BLOCK: Final = 512
_LONGEST: Final = 2**16  # bytes of a header's continuation; a path has 4096
_MOST: Final = 10**18  # bytes; what is larger cannot be sought
_FILES: Final = (b"0", b"\0", b"7")
_WITHOUT_DATA: Final = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
_FOLDER: Final = b"5"
_SUM: Final = slice(148, 156)
Longer = dict[bytes, bytes]  # what did not fit into the header that follows, by its name in pax


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a tar. plain: is it a file whose bytes lie there as they are (no link, no device, no holes)?"""

    name: str
    offset: int
    size: int
    plain: bool


def entries(file: BinaryIO) -> Iterator[Entry]:
    """All but the folders in a tar, in order; `DataError` says why there may have been more.

    The last one reaches beyond the end of a file that was cut. Names can be written anywhere; they may be absolute,
    lead outside, or come twice, for they only tell entries apart.
    """
    place, longer = 0, Longer()
    while True:
        file.seek(place)
        block = file.read(BLOCK)
        if block == bytes(BLOCK) and place:
            return
        kind, size = _header(block, first=place == 0)
        place += BLOCK
        if kind in (b"L", b"x", b"X"):
            longer |= _longer(kind, _continued(file, size))
        elif kind not in (b"K", b"g"):  # a link's goal, and what holds for all entries: no name and no size
            size = 0 if kind in _WITHOUT_DATA else _size(longer, size)
            name, whole = _name(block, longer), not any(key.startswith(b"GNU.sparse") for key in longer)
            if kind != _FOLDER and not name.endswith("/"):
                yield Entry(name, place, size, kind in _FILES and whole)
            longer = Longer()
        place += -(-size // BLOCK) * BLOCK


def _header(block: bytes, *, first: bool) -> tuple[bytes, int]:
    """The kind of an entry and its size; `DataError` for what is no header."""
    if not block:
        raise DataError("damaged shard: an empty file" if first else "truncated shard: its end is missing")
    if len(block) < BLOCK:
        raise DataError("damaged shard: no tar" if first else "truncated shard: it ends within a header")
    if first and not any(block):
        raise DataError("damaged shard: nothing is in it, it begins with zeros")
    said, counted = _number(block[_SUM]), block[: _SUM.start] + b" " * 8 + block[_SUM.stop :]
    if said not in (sum(counted), sum(memoryview(counted).cast("b"))):  # some old writers took bytes as signed
        what = "no tar (compressed ones are not read)" if first else "what follows is no header"
        raise DataError(f"damaged shard: {what}")
    size = _number(block[124:136])
    if size is None or size > _MOST:
        raise DataError("damaged shard: a size that cannot be")
    return block[156:157], size


def _number(field: bytes) -> int | None:
    """A number as headers hold it: octal digits, or 128 and bytes; None for any other."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    return None if digits.strip(b"01234567") else int(digits or b"0", 8)


def _name(block: bytes, longer: Longer) -> str:
    name, prefix = (block[place].partition(b"\0")[0] for place in (slice(100), slice(345, 500)))
    if block[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    return legible(longer.get(b"GNU.sparse.name", longer.get(b"path", name)))


def _size(longer: Longer, size: int) -> int:
    said = longer.get(b"size")
    if said is None:
        return size
    if not said.isdigit() or len(said) > 18:
        raise DataError("damaged shard: a size that cannot be")
    return int(said)


def _continued(file: BinaryIO, size: int) -> bytes:
    if size > _LONGEST:
        raise DataError(f"damaged shard: a header that goes on for {size} bytes")
    data = file.read(size)
    if len(data) < size:
        raise DataError("truncated shard: it ends within a header")
    return data


def _longer(kind: bytes, data: bytes) -> Longer:
    """What a header's continuation says: GNU's is a name, that of pax lines of `length key=value`."""
    if kind == b"L":
        return {b"path": data.partition(b"\0")[0]}
    found, place = Longer(), 0
    while place < len(data) and data[place]:
        digits, _, _ = data[place : place + 20].partition(b" ")
        end = place + int(digits) if digits.isdigit() else 0
        key, equals, value = data[place + len(digits) + 1 : end].partition(b"=")
        if not equals or not value.endswith(b"\n") or end > len(data):
            raise DataError("damaged shard: a header that cannot be read")
        found[key] = value[:-1]
        place = end
    return found

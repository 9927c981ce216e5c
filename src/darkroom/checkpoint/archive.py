"""The zip archive of a torch checkpoint: entries checked before anything is read, storages read only when asked for."""

import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from darkroom.checkpoint.header import refuse_other_than_files
from darkroom.core.errors import ModelFileError

ENTRY_LIMIT = 100_000
DIRECTORY_LIMIT = 8 * 2**20  # bytes; what Python makes of it takes thirteen times as many
PICKLE_LIMIT = 16 * 2**20  # a tensor takes about 200 bytes
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_END = b"PK\x05\x06"
_LONGEST_END = 22 + 65535 + 20  # bytes: the end of the directory, its comment, and where to find a large one
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, EOFError, struct.error, ValueError)  # as zipfile finds it
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9"


@final
@dataclass(frozen=True)
class Archive:
    """A checked archive: the pickle's text, and where each storage's bytes begin and how many there are."""

    path: Path
    pickle: bytes
    storages: Mapping[str, tuple[int, int]]

    def read(self, key: str, *, begin: int, count: int) -> bytearray:
        """`count` bytes of a storage from byte `begin` on; the caller stays within its length."""
        buffer = bytearray(count)
        with self.path.open("rb") as file:
            file.seek(self.storages[key][0] + begin)
            if file.readinto(buffer) != count:
                raise ModelFileError(f"{self.path}: truncated, storage {key!r} ends early")
        return buffer


def open_archive(path: Path) -> Archive:
    """Check the archive and read its pickle; `ModelFileError` for anything torch would not have written."""
    check_torch_file(path)
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as file:
            entries = _entries(path, file.infolist())
            root = _root(path, entries)
            names = entries.keys()
            if f"{root}byteorder" in names and _read(path, file, f"{root}byteorder", limit=16) != b"little":
                raise ModelFileError(f"{path}: its numbers are big-endian; save it again on a little-endian machine")
            pickle = _read(path, file, f"{root}data.pkl", limit=PICKLE_LIMIT)
        prefix = f"{root}data/"
        storages = {
            name.removeprefix(prefix): (_begin(path, entry), entry.file_size)
            for name, entry in entries.items()
            if name.startswith(prefix)
        }
    except _DAMAGED as error:
        raise ModelFileError(f"{path}: truncated or damaged ({error})") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from None
    return Archive(path, pickle, storages)


def check_torch_file(path: Path) -> None:
    """`ModelFileError` says what a file is that is no zip archive."""
    refuse_other_than_files(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such model file") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from None
    if start[:4] == b"PK\x03\x04":
        return
    if not start:
        raise ModelFileError(f"{path}: the file is empty")
    if start.startswith(_LEGACY) or start[257:262] == b"ustar":
        raise ModelFileError(
            f"{path}: written by torch before 1.6 in a format that is not read here; load it in a sandbox and save "
            "it again, best as .safetensors"
        )
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise ModelFileError(f"{path}: a bare pickle, not a torch checkpoint; bare pickles are not read")
    raise ModelFileError(f"{path}: not a torch checkpoint (it is no zip archive)")


def _check_directory(path: Path) -> None:
    """`ModelFileError` for a directory of entries that would take much memory to read; it is not read for that."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _LONGEST_END))
        end = file.read()
        plain = len(end) - 22  # where it stands in a file without a comment, which is looked at first
        place = plain if end[plain : plain + 4] == _END and end[-2:] == b"\0\0" else end.rfind(_END)
        declared = [int.from_bytes(end[place + 12 : place + 16], "little")] if place >= 0 else []
        if place >= 20 and end[place - 20 : place - 16] == b"PK\x06\x07":  # a large directory says it elsewhere
            begins = (int.from_bytes(end[place - 12 : place - 4], "little"), size - len(end) + place - 76)
            declared = []
            for begin in begins:
                file.seek(min(max(begin, 0), size))
                declared.append(int.from_bytes(file.read(48)[40:48], "little"))
    if max(declared, default=0) > DIRECTORY_LIMIT:
        raise ModelFileError(f"{path}: refused, the directory of its archive has {max(declared)} bytes")


def _entries(path: Path, listed: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    if len(listed) > ENTRY_LIMIT:
        raise ModelFileError(f"{path}: refused, its archive has {len(listed)} entries")
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in listed:
        name = entry.orig_filename
        if name in entries:
            raise ModelFileError(f"{path}: refused, its archive has two entries {name[:100]!r}")
        if re.search(r"(^|/)\.\.(/|$)|^/|\\|\0|^\w:", name):
            raise ModelFileError(f"{path}: refused, the entry name {name[:100]!r} leaves the archive")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ModelFileError(f"{path}: refused, entry {name[:100]!r} is compressed, which torch never does")
        if entry.flag_bits & 0x1:
            raise ModelFileError(f"{path}: refused, entry {name[:100]!r} is encrypted")
        entries[name] = entry
    size = path.stat().st_size
    declared = sum(entry.file_size for entry in entries.values())
    if declared > size:
        raise ModelFileError(
            f"{path}: truncated or crafted, its entries declare {declared} bytes and the file has {size}"
        )
    return entries


def _root(path: Path, entries: Mapping[str, zipfile.ZipInfo]) -> str:
    """The folder that holds `data.pkl`, with its slash."""
    roots = [name.removesuffix("data.pkl") for name in entries if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(roots) != 1:
        raise ModelFileError(f"{path}: not a torch checkpoint (a zip archive with {len(roots)} pickles data.pkl)")
    return roots[0]


def _read(path: Path, file: zipfile.ZipFile, name: str, *, limit: int) -> bytes:
    entry = file.getinfo(name)
    if entry.file_size > limit:
        raise ModelFileError(f"{path}: refused, its entry {name!r} has {entry.file_size} bytes, {limit} at most fit")
    return file.read(entry)


def _begin(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin: after its local header, which must agree with the directory."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        magic, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        name = file.read(name_length)
    if magic != b"PK\x03\x04" or name != entry.orig_filename.encode("utf-8"):
        raise ModelFileError(f"{path}: damaged, entry {entry.orig_filename[:100]!r} is not where its directory says")
    begin = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if begin + entry.file_size > path.stat().st_size:
        raise ModelFileError(f"{path}: truncated, entry {entry.orig_filename[:100]!r} ends after the file")
    return begin

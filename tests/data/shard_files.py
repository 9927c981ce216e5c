"""Shards made for tests, and damage done to them."""

import io
import tarfile
from pathlib import Path

from picture_folders import picture

from darkroom.data.place import Shard, facts_of


def png(number: int) -> bytes:
    data = io.BytesIO()
    picture(number).save(data, "png")
    return data.getvalue()


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def listed(path: Path) -> Shard:
    return Shard(str(path), facts_of(str(path)))


def spoil(path: Path, number: int, *, header: bytes = b"", bit: bool = False, cut: bool = False) -> None:
    """Damage one file of a shard: its header, a bit among its pixels, or the shard ends within it."""
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        info = tar.getmembers()[number]
    data[info.offset : info.offset + len(header)] = header
    data[info.offset_data + 700] ^= 16 * bit
    path.write_bytes(data[: info.offset_data + 700] if cut else data)


def header(name: bytes = b"a.png", *, size: bytes = b"0" * 11, kind: bytes = b"0") -> bytes:
    """A header as somebody would write it who means no good; its sum is right."""
    block = bytearray(512)
    block[: len(name)], block[124 : 124 + len(size)], block[156:157] = name, size, kind
    block[257:265], block[148:156] = b"ustar\x0000", b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def records(*lines: bytes) -> bytes:
    """A pax header with these `key=value` lines."""
    whole = b""
    for line in lines:
        length = len(line) + 3
        length += len(str(length)) - 1
        whole += b"%d %s\n" % (length, line)
        assert len(b"%d %s\n" % (length, line)) == length
    return header(b"pax", size=b"%011o" % len(whole), kind=b"x") + whole.ljust(-(-len(whole) // 512) * 512, b"\0")

"""Damage that decoders pass over in silence: they paint what is missing grey, or noise, and report success."""

import io
import re
import zlib
from typing import Final

from PIL import Image

from darkroom.data.place import Place, opened

_PNG_START: Final = 8  # bytes of the signature
_MARKER: Final = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")  # neither an escaped byte nor a restart
_RESTART: Final = re.compile(rb"(?=\xff[\xd0-\xd7])")
_PROGRESSIVE: Final = 0xC2
_HUFFMAN: Final = (0xC0, 0xC1, _PROGRESSIVE)  # arithmetic codes may leave out zeros at their end
_LARGE: Final = 2**18  # pixels
_SCAN, _END, _BARE = 0xDA, 0xD9, (0x01, 0xD8)
_NOISE: Final = bytes((83 * place + 29) % 251 for place in range(64))  # any bytes but 255, which begins a marker


def damage(place: Place, kind: str | None) -> str | None:
    """What is wrong inside a file that decodes (`kind` is Pillow's name for it); None where nothing shows."""
    if kind == "PNG":
        return _png(place)
    if kind not in ("JPEG", "MPO"):
        return None
    with opened(place) as file:
        return _jpeg(file.read())


def _png(place: Place) -> str | None:
    """Checksums of the chunks that a picture cannot do without; Pillow leaves those of the pixels unread."""
    with opened(place) as file:
        file.seek(_PNG_START)
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind[:1].islower():  # a chunk that may be ignored
                file.seek(length + 4, 1)
                continue
            body, checksum = file.read(length), file.read(4)
            if zlib.crc32(kind + body) != int.from_bytes(checksum, "big"):
                return "damaged: a checksum does not fit"
            if kind == b"IEND":
                return None
    return "truncated"


def _jpeg(data: bytes) -> str | None:
    """Do the pixels' bits last to the last pixel, and are they all used?

    A decoder that runs out of bits paints the rest grey, so bits added behind them show in the picture only when
    some were missing. One that lost its way ends too early, so that bits changed at the very end do not show.
    """
    kind, scans = _scans(data)
    if kind not in _HUFFMAN or not scans:
        return None
    seen = _decoded(data, kind)
    if _differ(seen, _changed(data, scans, longer=True), kind):
        return "damaged: pixels are missing"
    spoilt = _changed(data, scans, longer=False)
    if spoilt != data and seen.getcolors(1) is None and not _differ(seen, spoilt, kind):
        return "damaged: pixels are scrambled"
    return None


def _scans(data: bytes) -> tuple[int, list[tuple[int, int]]]:
    """The kind of a JPEG, and where its entropy-coded parts begin and end."""
    kind, scans, place = 0, list[tuple[int, int]](), 2
    while (found := _MARKER.search(data, place)) and (marker := found[1][0]) != _END:
        place = found.end()
        if marker in _BARE:
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            kind = marker
        place += int.from_bytes(data[place : place + 2], "big")
        if marker == _SCAN:
            after = _MARKER.search(data, place)
            scans.append((place, len(data) if after is None else after.start()))
            place = scans[-1][1]
    return kind, scans


def _changed(data: bytes, scans: list[tuple[int, int]], *, longer: bool) -> bytes:
    """The file with noise behind the bits of every scan and restart, or in place of the last ones of long scans."""
    parts, place = list[bytes](), 0
    for start, end in scans:
        bits = data[start:end]
        last = max(len(_NOISE), len(bits) // 50)
        if longer:
            bits = _RESTART.sub(lambda _: _NOISE, bits) + _NOISE
        elif len(bits) >= 2 * last:
            bits = bits[:-last] + (_NOISE * (last // len(_NOISE) + 1))[:last]
        parts += [data[place:start], bits]
        place = end
    return b"".join([*parts, data[place:]])


def _decoded(data: bytes, kind: int) -> Image.Image:
    """The picture; of a large one whose scans code whole blocks the averages of eight by eight are enough."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        if kind != _PROGRESSIVE and picture.width * picture.height > _LARGE:
            picture.draft("L", (picture.width // 8, picture.height // 8))
        picture.load()
        return picture


def _differ(seen: Image.Image, changed: bytes, kind: int) -> bool:
    try:
        return _decoded(changed, kind).tobytes() != seen.tobytes()
    except Exception:  # the change was met, or the decoder would not have stumbled
        return True

"""Which files are pictures: by the ends of their names, and what others are by their first bytes."""

import re
from pathlib import PurePath
from typing import Final

SUFFIXES: Final = frozenset(
    {
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".webp",
        ".avif",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
    }
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k"}
)
_OTHER_PICTURES: Final = frozenset(
    {
        ".heic",
        ".heif",
        ".hif",
        ".jxl",
        ".jxr",
        ".svg",
        ".svgz",
        ".eps",
        ".ai",
        ".wmf",
        ".emf",
        ".psd",
        ".psb",
        ".xcf",
        ".kra",
    }
    | {
        ".ico",
        ".icns",
        ".tga",
        ".pcx",
        ".exr",
        ".hdr",
        ".dds",
        ".qoi",
        ".raw",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
        ".rw2",
    }
    | {".raf", ".srw", ".pef"}
)
_VIDEOS: Final = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"})
_STARTS: Final = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a rar archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"8BPS", "a Photoshop file"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"RIFF", "a video or sound"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
)
_OURS: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM", b"\0\0\0\x0cjP  ")
_HEIC: Final = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # after the word `ftyp`
_AVIF: Final = (b"avif", b"avis")
CONTENT: Final = 64  # bytes that tell what a file is
_CONTROLS: Final = re.compile(r"[\0-\x1f\x7f-\x9f]")


def legible(name: bytes) -> str:
    """A file's name as text that can be written on a line anywhere: without what is no UTF-8 or steers a terminal."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], name.decode("utf-8", "backslashreplace"))


def is_picture(name: str) -> bool:
    """Does a name end like that of a picture that can be read?"""
    return PurePath(name).suffix.lower() in SUFFIXES


def foreign(name: str) -> str | None:
    """Why a picture or video of a kind that is not read here is left out; None for every other name."""
    suffix = PurePath(name).suffix.lower()
    if suffix in _OTHER_PICTURES:
        return f"{suffix} pictures cannot be read, PNG and JPEG can"
    return "a video" if suffix in _VIDEOS else None


def content(start: bytes) -> str:
    """What a file that cannot be opened as a picture is, as far as its first bytes tell."""
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    if start.startswith(_OURS) or brand in _AVIF or (start.startswith(b"RIFF") and start[8:12] == b"WEBP"):
        return "truncated or damaged"
    known = next((words for signature, words in _STARTS if start.startswith(signature)), None)
    if brand:
        known = "HEIC" if brand in _HEIC else "a video"
    elif known is None and not start.strip(b"\0"):
        known = "zeros"
    elif known is None and _is_text(start):
        known = "text"
    return f"not a picture but {known}" if known else "not a picture"


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8", errors="ignore")  # the last character may be cut
    return len(text.encode()) > len(start) - 4 and all(each.isprintable() or each.isspace() for each in text)

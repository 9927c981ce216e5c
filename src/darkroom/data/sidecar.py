"""Captions in text files beside the pictures: `a.txt` tells what `a.png` shows."""

import codecs
from pathlib import Path
from typing import Final

LONGEST: Final = 10_000  # characters; no tokenizer sees that many
_BYTES: Final = 4 * LONGEST  # a character has four at most, and a file may be of any size


def sidecar(picture: Path) -> tuple[str | None, str | None]:
    """The caption in the file beside a picture, and why the picture cannot be used with it; None where there is none
    (a blank file says nothing).

    A file that is not UTF-8 is a fault, as in metadata: read in a wrong encoding, it would teach wrong words unnoticed.
    """
    path = picture.with_suffix(".txt")
    try:
        if not path.is_file():
            return None, None
        with path.open("rb") as file:
            start = file.read(_BYTES)
    except OSError as error:
        return None, f"its caption cannot be read ({error.strerror or error})"
    whole = len(start) < _BYTES  # else the last character may be cut
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(start, whole).strip()[:LONGEST] or None, None
    except UnicodeDecodeError:
        return None, "its caption is not UTF-8 text"

"""Captions in text files beside the pictures: `a.txt`, or else `a.caption`, tells what `a.png` shows."""

import codecs
import re
from pathlib import Path
from typing import Final

ENDS: Final = (".txt", ".caption")  # the second is what captioning tools write
LONGEST: Final = 10_000  # characters; no tokenizer sees that many
_BYTES: Final = 4 * LONGEST  # a character has four at most, and a file may be of any size
_BOXES: Final = re.compile(  # a line of YOLO: class, then shares of the sides, one of them no whole number
    r"(?=.*\.\d)\d+([ \t]+\d*\.?\d+(e-\d+)?){4,}[ \t\r]*(\n|$)"
)


def sidecar(picture: Path) -> tuple[str | None, str | None]:
    """The caption in the file beside a picture, and why the picture cannot be used with it; None where there is none
    (a blank file says nothing).

    A file that is not UTF-8 is a fault, as in metadata: read in a wrong encoding, it would teach wrong words unnoticed.
    So are boxes, which would teach numbers.
    """
    try:
        path = next((path for end in ENDS if (path := picture.with_suffix(end)).is_file()), None)
        if path is None:
            return None, None
        with path.open("rb") as file:
            start = file.read(_BYTES)
    except OSError as error:
        return None, f"its caption cannot be read ({error.strerror or error})"
    whole = len(start) < _BYTES  # else the last character may be cut
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start, whole).strip()[:LONGEST]
    except UnicodeDecodeError:
        return None, "its caption is not UTF-8 text"
    if is_boxes(text):
        return None, "the text beside it is boxes as YOLO writes them, and those of other pictures are captions"
    return text or None, None


def is_boxes(text: str) -> bool:
    """Does a text begin with a line of numbers as YOLO writes them, and not with words?"""
    return _BOXES.match(text) is not None

"""Folders of pictures to vote on, and voters who know which they like."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.serve.ballot import Pair, Poll, Question, Side, find_pairs, hashes


def fill(folder: Path, *, count: int, level: int, side: int = 32, first: int = 0) -> Path:
    """Pictures of one grey level with a little pattern, `0.png`, `1.png`, ..."""
    folder.mkdir()
    for number in range(first, first + count):
        pixels = np.full((side, side, 3), level, np.uint8)
        pixels[number % side, :, 0] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def poll_of(pairs: Sequence[Pair], **others: object) -> Poll:
    values = {"first": "one", "second": "two", "question": "Which?", "pairs": hashes(pairs), **others}
    return Poll.model_validate(values)


def two_folders(place: Path, *, count: int = 6) -> tuple[Pair, ...]:
    """The first dark, the second bright."""
    return find_pairs(fill(place / "one", count=count, level=60), fill(place / "two", count=count, level=190))


def chance(*words: object) -> float:
    """A number in 0..1 for these words."""
    digest = hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def side_of(question: Question, shown: str) -> Side:
    return "left" if question.left == shown else "right"


def choice(question: Question, voter: int, *, likes_first: float, attentive: bool = True) -> Side:
    """What a voter who likes the first kind so often chooses; one who does not look chooses by chance."""
    draw = chance("choice", voter, question.number)
    if not attentive:
        return "left" if draw < 0.5 else "right"
    if question.check:
        return "left" if question.right.startswith("broken") else "right"
    return side_of(question, "first" if draw < likes_first else "second")

"""The errors a user can meet.

DarkroomError
├── InputError           what was asked for cannot be done: one sentence, exit code 2
│   ├── SpecError        a recipe, spec or option has a wrong key or value
│   ├── DataError        a folder, picture or metadata file is missing, empty or inconsistent
│   ├── ModelFileError   a model file is missing, foreign, corrupt or unsafe
│   ├── UnwritableError  a file or folder cannot be written
│   └── NotYetError      the part is planned and not there yet
└── TrainingError        a run had to stop (non-finite losses, ...); its last good state is kept
"""

import difflib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final

LONGEST_WORD: Final = 100  # characters that are compared; comparing longer words takes long


class DarkroomError(Exception):
    """Base of every error this package raises on purpose. told: another process has said it, so this one is silent."""

    told: bool = False


class InputError(DarkroomError):
    """Something given from outside does not fit; the message names the place, what came and what fits."""


class SpecError(InputError):
    """A recipe, spec or option has an unknown key or a value that does not fit."""


class DataError(InputError):
    """A data set, picture or metadata file is missing, empty, broken or inconsistent."""


class ModelFileError(InputError):
    """A model file is missing, of another kind, damaged, or refused because it is unsafe."""


class UnwritableError(InputError):
    """A file or folder cannot be written. reason: what the system says."""

    reason: str = ""


class NotYetError(InputError):
    """A part that is planned and not there yet."""


class TrainingError(DarkroomError):
    """A run had to stop; the last good state is kept."""


def unwritable(place: object, error: OSError, *, instead: str = "") -> UnwritableError:
    """What is to be raised where a place cannot be written. instead: what to do, where that is known."""
    reason = error.strerror or str(error)
    found = UnwritableError(f"{place}: cannot be written ({reason}){instead and f'; {instead}'}")
    found.reason = reason
    return found


def first_line(error: BaseException) -> str:
    """What an error of another library says, without its traces and lists."""
    return str(error).partition("\n")[0][:200]


def escaped(text: str) -> str:
    """Text that can be printed and kept, whatever bytes a file is named with: those that are no UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()


def harmless(text: str) -> str:
    """Words that a stranger's file may have a part in, for a terminal: lines stay lines, and nothing steers it.

    What would is escaped as JSON does it, so that JSON stays the same value.
    """
    return "".join(
        json.dumps(each)[1:-1] if unicodedata.category(each)[0] == "C" and each != "\n" else each for each in text
    )


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest option, or the sorted options when nothing is near."""
    names = sorted(set(options))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6) if len(word) <= LONGEST_WORD else []
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (known: {', '.join(names)})" if names else ""


def multiples_fit(size: Sequence[int], multiple: int) -> str:
    """`sides must be multiples of 8, the nearest that fits is 64x72`, for a size whose sides are none."""
    near = "x".join(str(max(1, round(Fraction(side, multiple))) * multiple) for side in size)
    return f"sides must be multiples of {multiple}, the nearest that fits is {near}"

"""Words for numbers: what labels, categories and map ids are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from darkroom.core.errors import InputError, did_you_mean


@final
@dataclass(frozen=True)
class Names:
    """Names of labels 0, 1, ..., of the categories of objects, and of the ids of maps; empty where none are known."""

    classes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    map_classes: tuple[str, ...] = ()


NAMELESS: Final = Names()


def numbers_of(words: Sequence[str], known: Sequence[str], *, what: str) -> list[int] | None:
    """The number that each word has among those known; `InputError` for a word that is not.

    None where either has no names, so that numbers stand for themselves.
    """
    if not words or not known:
        return None
    return [number_of(word, known, count=len(known), what=what) for word in words]


def number_of(word: int | str, names: Sequence[str], *, count: int, what: str) -> int:
    """The number of a name or a number written as one; `InputError` names what is unknown. what: e.g. `class`."""
    try:
        number = names.index(word) if isinstance(word, str) and word in names else int(word)
    except ValueError:
        hint = did_you_mean(str(word), names) if names else f"; this model knows numbers 0..{count - 1} only"
        raise InputError(f"unknown {what} {word!r:.60}{hint}") from None
    if not 0 <= number < count:
        raise InputError(f"{what} {word!r:.60} is out of range; this model has {count}, 0..{count - 1}")
    return number

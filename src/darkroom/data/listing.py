"""Rows that lie in shards, as many as there may be: in memory is what is known of each shard, and a bit for each row.

A row is read from its shard's index when somebody asks for it.
"""

import functools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final, final

import numpy as np

from darkroom.data.examples import Size
from darkroom.data.index import Index, in_memory, index_of
from darkroom.data.place import Shard
from darkroom.data.remote import Unreachable, shown
from darkroom.data.row import Kinds, Row

_OPEN: Final = 256  # indices that stay open


@final
@dataclass(frozen=True)
class Piece:
    """A shard's part of a listing. called: its name in the data set · rows: in its index, known by its digest · count:
    of them that are taken, by a bit each (None: all) · data: the index itself, where no file keeps it.
    """

    shard: Shard
    called: str
    caption_field: str
    rows: int
    digest: str
    count: int
    taken: bytes | None = None
    data: bytes | None = None

    def without(self, places: Sequence[int]) -> "Piece":
        """The same without some of the rows that it takes, by their places among these."""
        bits = np.zeros(self.rows, bool)
        bits[np.delete(self.places(), places)] = True
        return replace(self, count=int(bits.sum()), taken=np.packbits(bits).tobytes())

    def places(self) -> np.ndarray:
        """Where the rows that are taken stand in the index."""
        if self.taken is None:
            return np.arange(self.rows)
        return np.flatnonzero(np.unpackbits(np.frombuffer(self.taken, np.uint8), count=self.rows))

    @property
    def known(self) -> bytes:
        """Changes with anything that is known of its rows."""
        return repr((self.called, self.digest, self.taken)).encode(errors="backslashreplace")


@final
class Listing(Sequence[Row]):
    """The rows of shards, one shard after another. kinds: of those that there were before some were left out."""

    def __init__(self, pieces: Iterable[Piece], kinds: Kinds) -> None:
        self.pieces, self.kinds = tuple(pieces), kinds
        self._ends = list(accumulate(piece.count for piece in self.pieces))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        piece, place = self._at(index)
        found, places = _opened(piece)
        return found.row(int(places[place]), piece.shard, called=piece.called)

    def __iter__(self) -> Iterator[Row]:
        for piece in self.pieces:
            found, places = _opened(piece)
            for place in places.tolist():
                yield found.row(place, piece.shard, called=piece.called)

    def size(self, index: int) -> Size:
        """Width and height of a row's picture."""
        piece, place = self._at(index)
        found, places = _opened(piece)
        return found.size(int(places[place]))

    def without(self, rows: Iterable[int]) -> "Listing":
        """The same without these rows."""
        apart: dict[int, list[int]] = {}
        for row in rows:
            number = bisect_right(self._ends, row)
            apart.setdefault(number, []).append(row - self._ends[number] + self.pieces[number].count)
        pieces = (
            piece.without(apart[number]) if number in apart else piece for number, piece in enumerate(self.pieces)
        )
        return Listing(pieces, self.kinds)

    def shares(self, rows: Sequence[int]) -> list[int]:
        """How many of these rows, in ascending order, each shard has that has any."""
        if rows == range(len(self)):
            return [piece.count for piece in self.pieces if piece.count]
        owners = np.searchsorted(self._ends, np.asarray(rows, np.int64), side="right")
        return np.unique(owners, return_counts=True)[1].tolist()

    def _at(self, index: int) -> tuple[Piece, int]:
        """The piece of a row, and which one it is there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        piece = self.pieces[number]
        return piece, index - self._ends[number] + piece.count


@final
class Sizes(Sequence[Size]):
    """Widths and heights of a listing's pictures."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def __len__(self) -> int:
        return len(self._listing)

    def __getitem__(self, index: Any) -> Any:
        return self._listing.size(index)


def kinds_of(rows: Sequence[Row]) -> Kinds:
    """What rows have altogether; those of a listing were counted when it was made."""
    return rows.kinds if isinstance(rows, Listing) else Kinds.of(rows)


def reopen() -> None:
    """Forget which indices are open: by now their files may be others."""
    _opened.cache_clear()


@functools.lru_cache(maxsize=_OPEN)
def _opened(piece: Piece) -> tuple[Index, np.ndarray]:
    """The index of a piece, and where its rows stand there; an index that is gone, or on another machine, is made anew.

    `Unreachable` where the shard is not what was listed.
    """
    try:
        found = (
            index_of(piece.shard, caption_field=piece.caption_field) if piece.data is None else in_memory(piece.data)
        )
    except OSError as error:
        raise Unreachable(
            f"{shown(piece.shard.place)}: was there and cannot be opened any more ({error.strerror or error})"
        ) from None
    if found.told.digest != piece.digest:
        raise Unreachable(f"{shown(piece.shard.place)}: has changed since it was listed; run again with what is there")
    return found, piece.places()

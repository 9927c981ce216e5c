"""Parts of data sets, and data sets made of parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Integer

from darkroom.core.hashes import text_hash
from darkroom.data.examples import Example, Size, Source, Thing
from darkroom.data.folder import Folder
from darkroom.data.listing import Listing
from darkroom.data.place import Member


@final
@dataclass(frozen=True)
class Subset:
    """Some rows of another source, in the order given."""

    source: Source
    rows: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the whole."""
        return self.source.name

    @property
    def fields(self) -> frozenset[str]:
        """As in the whole."""
        return self.source.fields

    @property
    def classes(self) -> tuple[str, ...]:
        """As in the whole."""
        return self.source.classes

    @property
    def categories(self) -> tuple[str, ...]:
        """As in the whole."""
        return self.source.categories

    @property
    def map_classes(self) -> tuple[str, ...]:
        """As in the whole."""
        return self.source.map_classes

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """As in the whole."""
        return self.source.left_out

    def __len__(self) -> int:
        return len(self.rows)

    def example(self, index: int) -> Example:
        """The example of this row of the subset."""
        return self.source.example(self.rows[index])

    def size(self, index: int) -> Size:
        """Width and height."""
        return self.source.size(self.rows[index])

    def caption(self, index: int) -> str | None:
        """The caption."""
        return self.source.caption(self.rows[index])

    def label(self, index: int) -> int | None:
        """The label."""
        return self.source.label(self.rows[index])

    def objects(self, index: int) -> tuple[Thing, ...] | None:
        """The objects."""
        return self.source.objects(self.rows[index])

    def map(self, index: int) -> Integer[np.ndarray, "h w"] | None:
        """The map."""
        return self.source.map(self.rows[index])

    def fingerprint(self) -> str:
        """A hash of the whole and of the rows taken."""
        return text_hash(f"{self.source.fingerprint()}/{','.join(map(str, self.rows))}")


def subset(source: Source, rows: Sequence[int]) -> Subset:
    """Some rows of a source; of another subset's, the rows of what that one is of."""
    if isinstance(source, Subset):
        return Subset(source.source, tuple(source.rows[row] for row in rows))
    return Subset(source, tuple(rows))


@final
@dataclass(frozen=True)
class Joined:
    """The rows of two splits of one data set, one after the other."""

    first: Source
    second: Source

    @property
    def name(self) -> str:
        """The name of the data set."""
        return self.first.name

    @property
    def fields(self) -> frozenset[str]:
        """What all examples have."""
        return self.first.fields & self.second.fields

    @property
    def classes(self) -> tuple[str, ...]:
        """Shared by the splits."""
        return self.first.classes

    @property
    def categories(self) -> tuple[str, ...]:
        """Shared by the splits."""
        return self.first.categories

    @property
    def map_classes(self) -> tuple[str, ...]:
        """Shared by the splits."""
        return self.first.map_classes

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """Of both."""
        return self.first.left_out + self.second.left_out

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def _at(self, index: int) -> tuple[Source, int]:
        inside = index < len(self.first)
        return (self.first, index) if inside else (self.second, index - len(self.first))

    def example(self, index: int) -> Example:
        """The example of this row."""
        source, row = self._at(index)
        return source.example(row)

    def size(self, index: int) -> Size:
        """Width and height."""
        source, row = self._at(index)
        return source.size(row)

    def caption(self, index: int) -> str | None:
        """The caption."""
        source, row = self._at(index)
        return source.caption(row)

    def label(self, index: int) -> int | None:
        """The label."""
        source, row = self._at(index)
        return source.label(row)

    def objects(self, index: int) -> tuple[Thing, ...] | None:
        """The objects of this row."""
        source, row = self._at(index)
        return source.objects(row)

    def map(self, index: int) -> Integer[np.ndarray, "h w"] | None:
        """The map of this row."""
        source, row = self._at(index)
        return source.map(row)

    def fingerprint(self) -> str:
        """A hash of both."""
        return text_hash(f"{self.first.fingerprint()}/{self.second.fingerprint()}")


@final
class Part(NamedTuple):
    """A split of pictures in files: the folder, and which of its rows are used."""

    folder: Folder
    rows: Sequence[int]

    @property
    def shards(self) -> list[int] | None:
        """How many of the rows each shard has, one shard after another; None where they lie in no shards."""
        if isinstance(self.folder.rows, Listing):
            return self.folder.rows.shares(self.rows)
        counts, last = list[int](), None
        for row in self.rows:
            place = self.folder.rows[row].path
            if not isinstance(place, Member):
                return None
            if place.shard != last:
                counts.append(0)
            counts[-1] += 1
            last = place.shard
        return counts

    @property
    def remote(self) -> bool:
        """Must pictures be fetched?"""
        place = self.folder.rows[self.rows[0]].path if len(self.rows) else None
        return isinstance(place, Member) and place.shard.remote


def part_of(source: Source) -> Part | None:
    """The source as rows of a folder; None for one that is no such."""
    match source:
        case Folder():
            return Part(source, range(len(source)))
        case Subset(source=Folder() as folder, rows=rows):
            return Part(folder, rows)
        case _:
            return None

"""Rows of tensors on disk, in numbered files: made in any order, by several ranks, and never made twice."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from darkroom.core.parallel import on_first, rank, wait_for_all, world_size
from darkroom.core.record import atomic, forget_unfinished, writable_folder
from darkroom.core.writing import write_safetensors

Rows = Callable[[range], Mapping[str, Tensor]]
Progress = Callable[[int, int], None]


@final
@dataclass(frozen=True)
class Shards:
    """`total` rows in files of `size` rows, the last of what is left.

    A file appears when it is whole, so whoever is killed loses the rows of one file at most. What is in a file is a
    function of its number: a set that was interrupted ends as if it had not been.
    """

    folder: Path
    total: int
    size: int

    def __len__(self) -> int:
        return math.ceil(self.total / self.size)

    def rows(self, number: int) -> range:
        """The rows in a file."""
        return range(number * self.size, min(self.total, (number + 1) * self.size))

    def path(self, number: int) -> Path:
        """The file of that number."""
        return self.folder / f"{number:06}.safetensors"

    def have(self, number: int) -> bool:
        """Is the file there, whole and with its rows? One that a failing disk cut is as good as none."""
        try:
            with cast("Any", safe_open)(self.path(number), framework="pt") as file:
                lengths = {file.get_slice(name).get_shape()[0] for name in list(file.keys())}
                return lengths == {len(self.rows(number))}
        except (OSError, SafetensorError, IndexError):
            return False

    def fill(self, make: Rows, *, on_row: Progress | None = None) -> list[Path]:
        """Make what is missing, ranks in turn; all ranks have all files afterwards.

        Answers those that were there but not whole, and so were made anew.
        """
        missing, broken = on_first(self._missing)
        for number in missing[rank() :: world_size()]:
            rows = self.rows(number)
            forget_unfinished(self.path(number))
            tensors = {name: tensor.contiguous() for name, tensor in make(rows).items()}
            with atomic(self.path(number)) as temporary:
                write_safetensors(temporary, tensors)
            if on_row is not None:
                on_row(rows[-1] + 1, self.total)
        wait_for_all()
        return broken

    def _missing(self) -> tuple[list[int], list[Path]]:
        writable_folder(self.folder)
        numbers = [number for number in range(len(self)) if not self.have(number)]
        return numbers, [self.path(number) for number in numbers if self.path(number).exists()]

    def read(self, number: int) -> dict[str, Tensor]:
        """All that is in a file, mapped: what nobody looks at is not in memory."""
        return load_file(self.path(number))

    def each(self, name: str) -> Iterator[Tensor]:
        """One tensor of every file, in order."""
        for number in range(len(self)):
            yield self.read(number)[name]

    def take(self, name: str, rows: range | Int[Tensor, " n"]) -> Tensor:
        """Some rows, in the ascending order in which they are given."""
        wanted = torch.as_tensor(list(rows) if isinstance(rows, range) else rows)
        files = wanted // self.size
        return torch.cat(
            [
                self.read(number)[name][wanted[files == number] - number * self.size]
                for number in files.unique().tolist()
            ]
        )

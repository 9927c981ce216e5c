"""What a network sees in a set of pictures, kept on disk; and the statistics that are read from there in chunks."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from darkroom.core.pictures import from_bytes
from darkroom.core.shapes import Bytes
from darkroom.core.shards import Progress, Shards
from darkroom.evaluate.lots import Lot, digest
from darkroom.metrics.contributions import some_rows
from darkroom.metrics.extractors import FeatureNetwork
from darkroom.metrics.sets import Gaussian

FILE: Final = 256  # pictures
TOGETHER: Final = 32  # that a network is shown; never another number, for sums depend on it in their last digits


@final
@dataclass(frozen=True)
class Seen:
    """The features of a set through one network. hash: of all its pixels."""

    shards: Shards

    @property
    def hash(self) -> str:
        """Of the pixels of all pictures in order."""
        whole = hashlib.sha256()
        for part in self.shards.each("pixels"):
            whole.update(part.numpy().tobytes())
        return whole.hexdigest()[:16]

    @property
    def width(self) -> int:
        """Numbers a picture."""
        return next(self.shards.each("features")).shape[1]

    def gaussian(self) -> Gaussian:
        """Mean and covariance of all, file by file."""
        return reduce(add, (Gaussian.of(part) for part in self.shards.each("features")))

    def some(self, most: int) -> Tensor:
        """The features of at most so many pictures, drawn by a fixed seed."""
        return self.shards.take("features", some_rows(self.shards.total, most=most))

    def logits(self) -> Iterator[Tensor]:
        """Of all classes, file by file."""
        return self.shards.each("logits")


def see(lot: Lot, network: FeatureNetwork, *, folder: Path, on_row: Progress | None = None) -> Seen:
    """The features of a set through a network; pictures that were seen before are read from a folder named by both."""
    key = digest([lot.key(), dict(network.preprocessing)])
    shards = Shards(folder / f"features-{network.name}-{network.hash}-{key}", len(lot), FILE)

    def make(rows: range) -> dict[str, Tensor]:
        parts = (lot.pictures(rows[start : start + TOGETHER]) for start in range(0, len(rows), TOGETHER))
        looked = [{**network.look(from_bytes(part)), "pixels": _hashes(part)} for part in parts]
        return {name: torch.cat([each[name] for each in looked]) for name in looked[0]}

    shards.fill(make, on_row=on_row)
    return Seen(shards)


def _hashes(pictures: Bytes) -> Tensor:
    """(n, 32) bytes, the SHA-256 of each picture."""
    found = [hashlib.sha256(each.numpy().tobytes()).digest() for each in pictures]
    return torch.from_numpy(np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32).copy())

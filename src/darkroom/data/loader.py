"""Batches in a seeded order: sample k of a run is the same at any batch size, also after a resume."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from darkroom.core.errors import DataError
from darkroom.core.parallel import WHOLE, Share
from darkroom.core.seeds import generator
from darkroom.core.shapes import Bytes, Labels
from darkroom.data.examples import Source
from darkroom.data.transforms import Pixels, TransformSpec, finish, prepare, still

MEMORY: Final = 2**30  # bytes of prepared pictures that are kept
_AHEAD: Final = 3  # batches prepared ahead where pictures are not kept


@final
@dataclass(frozen=True)
class Batch:
    """Samples side by side.

    images: (b, c, h, w) uint8 · rows: in the source · indices: running numbers of the samples in the run ·
    captions, labels: None where the source has no such field.
    """

    images: Bytes
    rows: list[int]
    indices: list[int]
    captions: list[str] | None = None
    labels: Labels | None = None


@final
@dataclass(frozen=True)
class _Prepared:
    """A row ready for its draws."""

    pixels: Tensor
    caption: str | None
    label: int | None


@final
class Order:
    """Which row sample k of a run is: a new permutation each epoch, a function of (seed, epoch)."""

    def __init__(self, count: int, *, seed: int) -> None:
        self._count, self._seed = count, seed
        self._epoch, self._rows = -1, list[int]()

    def row(self, index: int) -> int:
        """The row of sample `index`."""
        epoch, place = divmod(index, self._count)
        if epoch != self._epoch:
            draw = generator(self._seed, epoch, purpose="order")
            self._epoch, self._rows = epoch, torch.randperm(self._count, generator=draw).tolist()
        return self._rows[place]


def batches(
    source: Source,
    spec: TransformSpec,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    memory: int = MEMORY,
    share: Share = WHOLE,
) -> Iterator[Batch]:
    """Endless training batches from sample `start` on (samples already consumed), across epochs.

    share: the part of every batch that is answered · memory: bytes of prepared pictures kept after first use; a larger
    set is decoded anew, ahead of time.
    """
    if len(source) == 0:
        raise DataError(f"{source.name}: no examples to train on")
    order = Order(len(source), seed=seed)
    kept = estimated_bytes(source, spec) <= memory
    make = _shelf(source, spec) if kept else _maker(source, spec)

    def collect(indices: Sequence[int], rows: Sequence[int]) -> Batch:
        prepared = [make(row) for row in rows]
        images = [
            finish(each.pixels, spec, seed=seed, index=index) for each, index in zip(prepared, indices, strict=True)
        ]
        return _batch(images, prepared, rows=rows, indices=indices)

    runs = ((indices, [order.row(index) for index in indices]) for indices in _runs(start, batch_size, share))
    yield from itertools.starmap(collect, runs) if kept else _ahead(collect, runs)


def still_batches(
    source: Source, spec: TransformSpec, *, batch_size: int, rows: Sequence[int] | None = None
) -> Iterator[Batch]:
    """Every row once (or those given), in order, centre crop, as it is; `indices` equal `rows`."""
    chosen = list(range(len(source))) if rows is None else list(rows)
    parts = (chosen[place : place + batch_size] for place in range(0, len(chosen), batch_size))

    def collect(indices: Sequence[int], part: Sequence[int]) -> Batch:
        examples = [source.example(row) for row in part]
        images = [still(example.picture, spec) for example in examples]
        known = [_Prepared(image, each.caption, each.label) for image, each in zip(images, examples, strict=True)]
        return _batch(images, known, rows=part, indices=indices)

    yield from _ahead(collect, ((part, part) for part in parts))


def estimated_bytes(source: Source, spec: TransformSpec) -> int:
    """Bytes of all prepared pictures."""
    square = spec.channels * spec.kept**2
    if not spec.random:
        return square * len(source)
    sizes = (source.size(row) for row in range(len(source)))
    return round(sum(square * max(size) / min(size) for size in sizes))


def _runs(start: int, batch_size: int, share: Share) -> Iterator[list[int]]:
    while True:
        yield list(share.taken(range(start, start + batch_size)))
        start += batch_size


def _ahead(
    collect: Callable[[Sequence[int], Sequence[int]], Batch],
    runs: Iterator[tuple[list[int], list[int]]],
) -> Iterator[Batch]:
    """Batches in order, a few of them already under way in threads (decoding releases the interpreter)."""
    waiting: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(max_workers=min(_AHEAD, os.cpu_count() or 1), thread_name_prefix="darkroom-data")
    try:
        for indices, rows in runs:
            waiting.append(pool.submit(collect, indices, rows))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _maker(source: Source, spec: TransformSpec) -> Callable[[int], _Prepared]:
    def make(row: int) -> _Prepared:
        example = source.example(row)
        return _Prepared(prepare(example.picture, spec), example.caption, example.label)

    return make


def _shelf(source: Source, spec: TransformSpec) -> Callable[[int], _Prepared]:
    """The maker, each row made once and kept."""
    make, shelf = _maker(source, spec), dict[int, _Prepared]()

    def take(row: int) -> _Prepared:
        if row not in shelf:
            shelf[row] = make(row)
        return shelf[row]

    return take


def _batch(
    images: Sequence[Pixels], known: Sequence[_Prepared], *, rows: Sequence[int], indices: Sequence[int]
) -> Batch:
    captions = [each.caption for each in known if each.caption is not None]
    labels = [each.label for each in known if each.label is not None]
    return Batch(
        images=torch.stack(list(images)),
        rows=list(rows),
        indices=list(indices),
        captions=captions if len(captions) == len(known) else None,
        labels=torch.tensor(labels) if len(labels) == len(known) else None,
    )

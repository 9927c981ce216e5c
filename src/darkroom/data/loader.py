"""Batches in a seeded order: sample k of a run is the same at any batch size, also after a resume."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from darkroom.core.errors import DataError
from darkroom.core.parallel import WHOLE, Share
from darkroom.core.shapes import Bytes, Labels
from darkroom.data.aspects import rows_by_shape
from darkroom.data.examples import Source
from darkroom.data.order import Order, OrderByGroups
from darkroom.data.parts import Part, part_of
from darkroom.data.transforms import Pixels, Shape, TransformSpec, finish, prepare, still

MEMORY: Final = 2**30  # bytes of prepared pictures that are kept
_AHEAD: Final = 3  # batches prepared ahead where pictures are not kept
_FETCHING: Final = 32  # pictures fetched at a time


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
    """A row ready for its draws. shape: of its samples."""

    pixels: Tensor
    shape: Shape
    caption: str | None
    label: int | None


Made = tuple[Pixels, _Prepared]
One = Callable[[int, int], Made]
Runs = Iterable[tuple[list[int], list[int]]]


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

    Where samples have several shapes each batch is of one, and `start` is a whole number of batches.
    share: the part of every batch that is answered · memory: bytes of prepared pictures kept after first use; a larger
    set is decoded anew, ahead of time.
    """
    if len(source) == 0:
        raise DataError(f"{source.name}: no examples to train on")
    part, order = part_of(source), _order(source, spec, batch_size=batch_size, seed=seed)
    kept = estimated_bytes(source, spec) <= memory
    make = _shelf(source, spec) if kept else _maker(source, spec)

    def one(index: int, row: int) -> Made:
        prepared = make(row)
        return finish(prepared.pixels, spec, seed=seed, index=index, shape=prepared.shape), prepared

    runs = ((indices, [order.row(index) for index in indices]) for indices in _runs(start, batch_size, share))
    at_hand = kept and not (part is not None and part.remote)
    yield from _at_once(one, runs) if at_hand else _ahead(one, runs, threads=threads_for(source))


def still_batches(
    source: Source, spec: TransformSpec, *, batch_size: int, rows: Sequence[int] | None = None
) -> Iterator[Batch]:
    """Every row once (or those given), in order, centre crop, as it is; `indices` equal `rows`.

    Where samples have several shapes, one shape comes after another.
    """
    chosen = list(range(len(source))) if rows is None else list(rows)
    alike = [chosen] if spec.shapes is None else _alike(source, spec, chosen)
    parts = (each[place : place + batch_size] for each in alike for place in range(0, len(each), batch_size))

    def one(index: int, row: int) -> Made:
        example = source.example(row)
        image = still(example.picture, spec)
        return image, _Prepared(image, (image.shape[1], image.shape[2]), example.caption, example.label)

    yield from _ahead(one, ((part, part) for part in parts), threads=threads_for(source))


def _alike(source: Source, spec: TransformSpec, rows: Sequence[int]) -> list[list[int]]:
    """These rows, those of one shape together."""
    chosen = set(rows)
    return [[row for row in each if row in chosen] for each in rows_by_shape(source, spec).values()]


def _order(source: Source, spec: TransformSpec, *, batch_size: int, seed: int) -> Order | OrderByGroups:
    part = part_of(source)
    if spec.shapes is None:
        return Order(len(source), seed=seed, shards=None if part is None else part.shards)
    groups = list(rows_by_shape(source, spec).values())
    shards = None if part is None else [Part(part.folder, [part.rows[row] for row in rows]).shards for rows in groups]
    return OrderByGroups(groups, batch_size=batch_size, seed=seed, shards=shards)


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


def threads_for(source: Source) -> int:
    """How many samples are made at a time: decoding keeps a processor busy, fetching waits."""
    part = part_of(source)
    return _FETCHING if part is not None and part.remote else min(_AHEAD, os.cpu_count() or 1)


def _at_once(one: One, runs: Runs) -> Iterator[Batch]:
    for indices, rows in runs:
        yield _batch(list(map(one, indices, rows)), rows=rows, indices=indices)


def _ahead(one: One, runs: Runs, *, threads: int) -> Iterator[Batch]:
    """The batches in order; the next ones are prepared ahead by threads (decoding releases the interpreter)."""
    waiting: deque[tuple[list[int], list[int], list[Future[Made]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="darkroom-data")

    def come() -> Batch:
        indices, rows, made = waiting.popleft()
        return _batch([each.result() for each in made], rows=rows, indices=indices)

    try:
        for indices, rows in runs:
            waiting.append((indices, rows, [pool.submit(one, *pair) for pair in zip(indices, rows, strict=True)]))
            if len(waiting) > _AHEAD:
                yield come()
        while waiting:
            yield come()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _maker(source: Source, spec: TransformSpec) -> Callable[[int], _Prepared]:
    def make(row: int) -> _Prepared:
        example = source.example(row)
        shape = spec.shape_of(example.picture.size)
        return _Prepared(prepare(example.picture, spec), shape, example.caption, example.label)

    return make


def _shelf(source: Source, spec: TransformSpec) -> Callable[[int], _Prepared]:
    """The maker, with a memory: each row is made once."""
    make, shelf = _maker(source, spec), dict[int, _Prepared]()

    def take(row: int) -> _Prepared:
        if row not in shelf:
            shelf[row] = make(row)
        return shelf[row]

    return take


def _batch(made: Sequence[Made], *, rows: Sequence[int], indices: Sequence[int]) -> Batch:
    known = [each for _, each in made]
    captions = [each.caption for each in known if each.caption is not None]
    labels = [each.label for each in known if each.label is not None]
    return Batch(
        images=torch.stack([image for image, _ in made]),
        rows=list(rows),
        indices=list(indices),
        captions=captions if len(captions) == len(known) else None,
        labels=torch.tensor(labels) if len(labels) == len(known) else None,
    )

"""What steers each sample of the second stage: a function of its row in the source and its number in the run.

A condition must show what the latent shows: the same centre crop, in the same view.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from darkroom.conditioning.boxes import drawn_boxes
from darkroom.conditioning.layout import WHOLE, LayoutTokensSpec, layout_ids
from darkroom.core.errors import DataError
from darkroom.core.pictures import from_bytes
from darkroom.core.seeds import generator
from darkroom.data.degrade import BicubicSpec, BlindSpec, degrade
from darkroom.data.examples import Box, Source, Thing
from darkroom.data.loader import MEMORY, estimated_bytes, threads_for
from darkroom.data.masks import MaskFilesSpec, MasksSpec, draw_masks
from darkroom.data.transforms import PLAIN, Shape, TransformSpec, View, Views, seen_of, still, still_map

MOST_IDS: Final = 2**15


@runtime_checkable
class Inputs(Protocol):
    """Ids, labels or planes of any samples."""

    def take(self, rows: Sequence[int], indices: Sequence[int], *, seed: int) -> Tensor:
        """One entry a sample, in order: a function of (row, seed, index)."""
        ...


@final
@dataclass(frozen=True)
class Fixed:
    """The same for a row each time it comes: caption ids (n, l), labels (n,)."""

    values: Tensor

    def take(self, rows: Sequence[int], indices: Sequence[int], *, seed: int) -> Tensor:
        """The values of these rows."""
        return self.values[list(rows)]


@final
@dataclass(frozen=True)
class Layouts:
    """Layout ids (b, l), objects in an order drawn anew for each sample.

    things: of each row, boxes in 0..1 of the whole picture where the scheme tells the crop, else of what is seen ·
    crops: what is seen of each row's picture.
    """

    things: Sequence[tuple[Thing, ...]]
    crops: Sequence[Box]
    scheme: LayoutTokensSpec
    views: Views = PLAIN

    def take(self, rows: Sequence[int], indices: Sequence[int], *, seed: int) -> Int[Tensor, "b l"]:
        """The ids of these rows."""
        drawn = self.views.drawn(indices, seed=seed)
        return torch.stack(
            [
                self._ids(row, view=self.views.each[number], draws=generator(seed, index, purpose="layout"))
                for row, index, number in zip(rows, indices, drawn, strict=True)
            ]
        )

    def _ids(self, row: int, *, view: View, draws: torch.Generator) -> Int[Tensor, " l"]:
        things = tuple(Thing(each.category, view.of_box(each.box)) for each in self.things[row])
        crop = view.of_box(self.crops[row])
        order = torch.randperm(len(things), generator=draws).tolist()
        categories = torch.tensor([things[place].category for place in order], dtype=torch.long)
        boxes = torch.tensor([things[place].box for place in order], dtype=torch.float64).reshape(-1, 4)
        return layout_ids(categories, boxes, scheme=self.scheme, crop=crop)


def layouts(
    source: Source, spec: TransformSpec, *, scheme: LayoutTokensSpec, numbers: Sequence[int] | None = None
) -> Layouts:
    """The layouts of a source: objects that its samples show, the largest `scheme.slots` of them.

    numbers: the model's number for each category of the source (None: its own).
    """
    known = list(range(len(source.categories))) if numbers is None else list(numbers)
    things: list[tuple[Thing, ...]] = []
    crops: list[Box] = []
    for row in range(len(source)):
        shown = _shown(source, row, _middle(source, row, spec))[: scheme.slots]
        things.append(tuple(Thing(known[thing.category], thing.box if scheme.crop else box) for thing, box in shown))
        crops.append(_middle(source, row, spec) if scheme.crop else WHOLE)
    return Layouts(things, crops, scheme, views=spec.views)


@final
@dataclass(frozen=True)
class DrawnBoxes:
    """Boxes drawn as planes (b, p, h, w) at the size of latents, see `conditioning.boxes`.

    things: of each row, boxes in 0..1 of what is seen · known: categories · sizes: of each row, height and width of the
    latents.
    """

    things: Sequence[tuple[Thing, ...]]
    known: int
    sizes: Sequence[Shape]
    views: Views = PLAIN

    def take(self, rows: Sequence[int], indices: Sequence[int], *, seed: int) -> Float[Tensor, "b p h w"]:
        """The planes of these rows."""
        views = self.views.each
        numbers = self.views.drawn(indices, seed=seed)
        return torch.stack([self._drawn(row, view=views[at]) for row, at in zip(rows, numbers, strict=True)])

    def _drawn(self, row: int, *, view: View) -> Float[Tensor, "p h w"]:
        things = self.things[row]
        boxes = [view.of_box(each.box) for each in things]
        return drawn_boxes([each.category for each in things], boxes, known=self.known, size=self.sizes[row])


def boxes_drawn(
    source: Source, spec: TransformSpec, *, known: int, factor: int, numbers: Sequence[int] | None = None
) -> DrawnBoxes:
    """The objects of a source that its samples show. factor: of the first stage · numbers: as for `layouts`."""
    of = list(range(len(source.categories))) if numbers is None else list(numbers)
    things: list[tuple[Thing, ...]] = []
    sizes: list[Shape] = []
    for row in range(len(source)):
        shown = _shown(source, row, _middle(source, row, spec))
        things.append(tuple(Thing(of[thing.category], box) for thing, box in shown))
        height, width = spec.shape_of(source.size(row))
        sizes.append((height // factor, width // factor))
    return DrawnBoxes(things, known, sizes, views=spec.views)


def captions(source: Source, *, most: int | None = None) -> Sequence[str]:
    """The captions of the first rows (None: of all); where there are only labels, the classes' names; else empty."""
    rows = range(len(source) if most is None else min(most, len(source)))
    if "caption" not in source.fields and "label" in source.fields:
        return [source.classes[label_of(source, row)] for row in rows]
    return [source.caption(row) or "" for row in rows]


def label_of(source: Source, row: int) -> int:
    """The label of a row; `DataError` where it has none."""
    label = source.label(row)
    if label is None:
        raise DataError(f"{source.name}: picture {row} has no label")
    return label


def seen_things(source: Source, row: int) -> tuple[Thing, ...]:
    """The objects that the centre square of a row's picture shows, the largest first, boxes in 0..1 of that square."""
    return tuple(Thing(thing.category, box) for thing, box in _shown(source, row, seen_of(source.size(row))))


def _middle(source: Source, row: int, spec: TransformSpec) -> Box:
    """What samples of a row show of its picture."""
    size = source.size(row)
    return seen_of(size, spec.shape_of(size))


def _shown(source: Source, row: int, crop: Box) -> list[tuple[Thing, Box]]:
    """Objects with their boxes within what is seen, the largest first; what lies outside is left out."""
    seen = [(thing, _within(thing.box, crop)) for thing in source.objects(row) or ()]
    return sorted((each for each in seen if each[1][2] * each[1][3] > 0), key=lambda each: -each[1][2] * each[1][3])


@final
@dataclass(frozen=True)
class Maps:
    """Class ids of each pixel, (b, h, w) int64."""

    kept: "Kept"
    views: Views = PLAIN

    def take(self, rows: Sequence[int], indices: Sequence[int], *, seed: int) -> Int[Tensor, "b h w"]:
        """The maps of these rows."""
        ids = torch.stack(self.kept.rows(rows))
        return self.views.taken(ids, indices, seed=seed).long()


def maps(source: Source, spec: TransformSpec, *, numbers: Sequence[int] | None = None) -> Maps:
    """The maps of a source, cut as its pictures are. numbers: the model's id for each id of the source."""
    table = None if numbers is None else torch.tensor(list(numbers), dtype=torch.int16)

    def make(row: int) -> Int[Tensor, "h w"]:
        ids = still_map(torch.from_numpy(_map(source, row)), spec)
        return ids if table is None else table[ids.long()]

    return Maps(_kept(make, source, bytes_of_all=2 * len(source) * spec.size**2), views=spec.views)


def check_maps(source: Source, *, classes: int, progress: Callable[[int, int], None] | None = None) -> None:
    """`DataError` naming the first map of a source that has an id beyond the classes."""
    for row in range(len(source)):
        low, high = _range(source, row)
        if low < 0 or high >= classes:
            raise DataError(
                f"{source.name}: the map of {source.example(row).name} has the id {low if low < 0 else high}; "
                f"there are {classes} classes, 0..{classes - 1}"
            )
        if progress is not None:
            progress(row + 1, len(source))


@functools.lru_cache(maxsize=4)
def highest_id(source: Source) -> int:
    """Of all maps of a source that can be read; those that cannot are left out when pictures are looked at."""
    highest = 0
    for row in range(len(source)):
        try:
            highest = max(highest, _range(source, row)[1])
        except DataError:
            continue
    return highest


def _map(source: Source, row: int) -> Integer[np.ndarray, "h w"]:
    found = source.map(row)
    if found is None:
        raise DataError(f"{source.name}: {source.example(row).name} has no map")
    return found


def _range(source: Source, row: int) -> tuple[int, int]:
    """The lowest and the highest id of a row's map; `DataError` for one that no map can mean."""
    ids = _map(source, row)
    low, high = int(ids.min()), int(ids.max())
    if high >= MOST_IDS:
        raise DataError(
            f"{source.name}: the map of {source.example(row).name} has the id {high}; at most {MOST_IDS - 1} fits"
        )
    return low, high


@final
@dataclass(frozen=True)
class LowRes:
    """Pictures made small, (b, c, h, w) in [-1, 1], degraded anew for each sample."""

    kept: "Kept"
    degradation: BicubicSpec | BlindSpec
    views: Views = PLAIN

    def take(self, rows: Sequence[int], indices: Sequence[int], *, seed: int) -> Float[Tensor, "b c h w"]:
        """The small pictures of these rows."""
        pictures = self.views.taken(torch.stack(self.kept.rows(rows)), indices, seed=seed)
        return from_bytes(degrade(pictures, self.degradation, seed=seed, indices=indices))


@final
@dataclass(frozen=True)
class Masked:
    """Pictures in [-1, 1] with the mask of what to paint as one more channel (1: paint), (b, c + 1, h, w)."""

    kept: "Kept"
    masks: MasksSpec | MaskFilesSpec
    views: Views = PLAIN

    def take(self, rows: Sequence[int], indices: Sequence[int], *, seed: int) -> Float[Tensor, "b c h w"]:
        """The pictures of these rows, each with a mask of its own sample."""
        pictures = self.views.taken(torch.stack(self.kept.rows(rows)), indices, seed=seed)
        height, width = pictures.shape[-2:]
        masks = draw_masks(self.masks, (height, width), seed=seed, indices=indices)
        return torch.cat([from_bytes(pictures), masks], dim=1)


@final
@dataclass(frozen=True)
class Kept:
    """What is made of each row. shelf: where it stays after first use (None: all do not fit into memory together, and
    it is made anew each time) · threads: that make several rows at a time.
    """

    make: Callable[[int], Tensor]
    shelf: dict[int, Tensor] | None
    threads: int

    def __call__(self, row: int) -> Tensor:
        """What is made of one row."""
        if self.shelf is None:
            return self.make(row)
        if row not in self.shelf:
            self.shelf[row] = self.make(row)
        return self.shelf[row]

    def rows(self, rows: Sequence[int]) -> list[Tensor]:
        """What is made of several rows, in order, by several threads at a time."""
        if self.shelf is not None and all(row in self.shelf for row in rows):
            return [self.shelf[row] for row in rows]
        with ThreadPoolExecutor(self.threads, "darkroom-inputs") as pool:
            return list(pool.map(self, rows))


def pictures(source: Source, spec: TransformSpec) -> Kept:
    """The middle of each row's picture, uint8 (c, h, w)."""
    return _kept(
        lambda row: still(source.example(row).picture, spec), source, bytes_of_all=estimated_bytes(source, spec)
    )


def _kept(make: Callable[[int], Tensor], source: Source, *, bytes_of_all: int) -> Kept:
    return Kept(make, {} if bytes_of_all <= MEMORY else None, threads_for(source))


def _within(box: Box, crop: Box) -> Box:
    """A box of the whole in 0..1 of the crop, cut at its edges."""
    left, top = ((box[at] - crop[at]) / crop[at + 2] for at in (0, 1))
    right, bottom = ((box[at] + box[at + 2] - crop[at]) / crop[at + 2] for at in (0, 1))
    left, top, right, bottom = (min(max(each, 0.0), 1.0) for each in (left, top, right, bottom))
    return left, top, right - left, bottom - top

"""Where examples come from, by one name: a folder of pictures, a COCO file, shards, or the built-in `shapes`."""

import functools
import hashlib
import heapq
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple, final

import numpy as np
from jaxtyping import Integer
from PIL import Image

from darkroom.core.errors import DataError, InputError, did_you_mean
from darkroom.core.hashes import text_hash
from darkroom.core.seeds import stream
from darkroom.data.coco import coco_file, coco_files, coco_rows
from darkroom.data.decode import printable
from darkroom.data.examples import Example, Size, Source, Thing
from darkroom.data.folder import Folder, checked, listed, name_classes
from darkroom.data.kinds import is_picture
from darkroom.data.metadata import (
    TEST_FOLDERS,
    TRAIN_FOLDERS,
    folders_shown,
    has_pictures,
    is_told,
    list_rows,
    metadata_file,
    sound,
    unread,
)
from darkroom.data.parts import Joined, Subset
from darkroom.data.place import called, folder_called
from darkroom.data.remote import is_remote, shown
from darkroom.data.row import Kinds, Row
from darkroom.data.shards import are_shards, shard_rows
from darkroom.data.yolo import PICTURES
from darkroom.scenes.draw import Kind, Scene, draw
from darkroom.scenes.vocabulary import CANVAS, SHAPES

__all__ = ["Example", "Folder", "Joined", "ShapesSource", "Source", "Splits", "Subset", "Thing", "open_data"]

SHAPES_COUNT: Final = 20_000  # training scenes unless a limit says otherwise
TEST_SHARE: Final = 0.05
TEST_MOST: Final = 1000
SPLITS: Final = (*TRAIN_FOLDERS, *TEST_FOLDERS)
SCENES: Final[dict[str, Kind]] = {"shapes": "captioned", "shapes:single": "single"}


@final
class Splits(NamedTuple):
    """What is trained on, and what is kept apart for measuring."""

    train: Source
    test: Source

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of all pictures left out, sorted; names are those of their own split."""
        return tuple(sorted((*self.train.left_out, *self.test.left_out)))


@final
@dataclass(frozen=True)
class ShapesSource:
    """The first `count` scenes of a seed of the built-in world; label only for `single` scenes."""

    seed: int = 0
    side: int = CANVAS
    count: int = SHAPES_COUNT
    kind: Kind = "captioned"

    @property
    def name(self) -> str:
        """The name that `open_data` takes."""
        return next(name for name, kind in SCENES.items() if kind == self.kind)

    @property
    def fields(self) -> frozenset[str]:
        """All fields; labels only where there is one object."""
        label = {"label"} if self.kind == "single" else set[str]()
        return frozenset({"caption", "objects", "map"} | label)

    @property
    def classes(self) -> tuple[str, ...]:
        """The eight shapes for `single` scenes."""
        return SHAPES if self.kind == "single" else ()

    @property
    def categories(self) -> tuple[str, ...]:
        """The eight shapes."""
        return SHAPES

    @property
    def map_classes(self) -> tuple[str, ...]:
        """Background, then the eight shapes."""
        return ("background", *SHAPES)

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """Nothing is ever left out."""
        return ()

    def __len__(self) -> int:
        return self.count

    def example(self, index: int) -> Example:
        """The scene drawn anew."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        scene = self.scene(index)
        return Example(
            picture=Image.fromarray(scene.image),
            name=f"{self.name}-{self.seed}-{index}",
            caption=scene.caption,
            label=None if scene.label is None else SHAPES.index(scene.label),
            objects=_things(scene),
            map=scene.map,
        )

    def scene(self, index: int) -> Scene:
        """All that is true of a scene, its colours and sizes too."""
        return draw(self.seed, index, size=self.side, kind=self.kind)

    def size(self, index: int) -> Size:
        """The canvas."""
        return self.side, self.side

    def caption(self, index: int) -> str | None:
        """The caption (the scene is drawn for it once: its words follow from the exact boxes)."""
        return _words(self, index)[0]

    def label(self, index: int) -> int | None:
        """The shape's number for `single` scenes."""
        return _words(self, index)[1] if self.kind == "single" else None

    def objects(self, index: int) -> tuple[Thing, ...] | None:
        """The things in the scene."""
        return _words(self, index)[2]

    def map(self, index: int) -> Integer[np.ndarray, "h w"] | None:
        """The map of the scene, drawn anew."""
        return self.scene(index).map

    def fingerprint(self) -> str:
        """A hash of seed, side, count and kind."""
        return text_hash(f"{self.kind}/{self.seed}/{self.side}/{self.count}")


@functools.lru_cache(maxsize=2**18)
def _words(source: ShapesSource, index: int) -> tuple[str | None, int | None, tuple[Thing, ...] | None]:
    example = source.example(index)
    return example.caption, example.label, example.objects


def _things(scene: Scene) -> tuple[Thing, ...]:
    return tuple(Thing(SHAPES.index(each.category), each.box) for each in scene.objects)


def open_data(
    place: str | Path,
    *,
    seed: int = 0,
    size: int = CANVAS,
    limit: int | None = None,
    caption_field: str = "caption",
    alpha: bool = False,
) -> Splits:
    """Training and test examples of a folder, of a COCO file, of shards, or of `shapes` / `shapes:single`.

    size: canvas of the built-in scenes · limit: at most so many of each split, chosen by `seed` ·
    alpha: decode to RGBA. Without a `test/` folder 5 % (1 to 1000) are kept apart, chosen by file name and
    seed. Files whose headers cannot be read are in `left_out`; `examine` looks at all pixels. `DataError` for what is
    missing, empty or broken. Shards: see `data/shards.py`.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit} leaves no examples; at least 1 is needed")
    if str(place) in SCENES:
        kind, count = SCENES[str(place)], limit or SHAPES_COUNT
        held_out = min(TEST_MOST, count)
        apart = stream(seed, 0, purpose="scenes/test")
        return Splits(ShapesSource(seed, size, count, kind), ShapesSource(apart, size, held_out, kind))
    if not str(place):  # a path of nothing would be the folder one stands in
        raise DataError("the data set has no name, as a variable that is not set leaves it; . is the folder here")
    read = _shards if are_shards(str(place)) else _files
    train, test = read(str(place), caption_field=caption_field, alpha=alpha)
    if test is None:
        train, test = _by_name(train, seed)
    return Splits(_limited(train, seed=seed, limit=limit), _limited(test, seed=seed, limit=limit))


def _shards(place: str, *, caption_field: str, alpha: bool) -> tuple[Folder, Folder | None]:
    """What shards have, and their own test split."""
    train, test, folder = shard_rows(place, caption_field=caption_field)
    tables = name_classes(folder, Kinds.together([train.rows.kinds, test.rows.kinds]))
    whole = listed(called(place), train, tables=tables, alpha=alpha)
    own = len(test.rows) or test.faults
    return whole, listed(called(place), test, tables=tables, alpha=alpha) if own else None


def _files(place: str, *, caption_field: str, alpha: bool) -> tuple[Folder, Folder | None]:
    """What a folder or a COCO file has, and its own test split."""
    if is_remote(place):
        raise DataError(f"{shown(place)}: what lies elsewhere has to be shards, e.g. .../{{000000..000199}}.tar")
    folder = _folder(Path(place))
    if folder.is_file():
        train, test, folder = coco_rows(folder), [], folder.parent
    else:
        train, test = _split_rows(folder, caption_field=caption_field)
        if not Kinds.of(sound([*train, *test])).fields:
            train = [*train, *unread(folder)]
    rows = sound([*train, *test])
    _check_pixels(folder, rows)
    tables = name_classes(folder, Kinds.of(rows))
    name = printable(Path(folder.name))
    whole = checked(name, train, tables=tables, alpha=alpha)
    return whole, checked(name, test, tables=tables, alpha=alpha) if test else None


def _check_pixels(folder: Path, rows: Sequence[Row]) -> None:
    """`DataError` for boxes in shares, each of which would be a corner of the first pixel."""
    boxes = (box for row in rows for _, box in row.objects or ())
    first = next(boxes, None)
    if first is not None and max(first) <= 1 and all(max(box) <= 1 for box in boxes):
        raise DataError(
            f"{printable(folder)}: no box reaches beyond the first pixel, as {list(first)} does not; "
            "boxes are [x, y, width, height] in pixels and not in shares of the picture"
        )


def _folder(place: Path) -> Path:
    if place.is_dir():
        return _unwrapped(place.resolve())
    if place.is_file() and place.suffix == ".json":
        return place.resolve()
    if place.exists():
        raise DataError(f"{place}: a folder of pictures is needed, this is a file")
    hint = did_you_mean(str(place), SCENES) if len(place.parts) == 1 else ""
    raise DataError(f"{place}: no such folder{hint if 'did you mean' in hint else ''}")


def _unwrapped(folder: Path) -> Path:
    """The data set in a folder whose pictures all lie in one inside, as archives unpack; else the folder itself."""
    inside = list(filter(has_pictures, folders_shown(folder)))
    if len(inside) != 1 or inside[0].name.lower() in SPLITS or is_told(folder) or _has_own_pictures(folder):
        return folder
    (inner,) = inside
    found = _unwrapped(inner)
    parted = folder_called(inner, TRAIN_FOLDERS) is not None or sum(map(has_pictures, folders_shown(inner))) > 1
    return found if found != inner or parted or is_told(inner) else folder


def _has_own_pictures(folder: Path) -> bool:
    return any(is_picture(name) and not name.startswith(".") for name in os.listdir(folder))


def _split_rows(folder: Path, *, caption_field: str) -> tuple[list[Row], list[Row]]:
    """Rows of the `train` and `test` (`val`, `validation`) folders; all and none where there are no such."""
    own = folder_called(folder, TRAIN_FOLDERS)
    if own is None or _has_classes_beside(folder, own):
        return _split_within(folder, caption_field=caption_field)
    if metadata_file(folder) is not None:  # one list for all splits
        return _apart(list_rows(folder, caption_field=caption_field))
    if metadata_file(own) is None and not coco_files(own) and (files := coco_files(folder)):
        return _listed_apart(folder, files)
    train, apart = list_rows(own, caption_field=caption_field), folder_called(folder, TEST_FOLDERS)
    if apart is None:
        return train, []
    labelled = all(row.label is not None for row in sound(train))
    test = list_rows(apart, caption_field=caption_field, by_class=labelled)
    if labelled and all(row.label is None for row in sound(test)):
        raise DataError(
            f"{printable(apart)}: these pictures have no class, and those in {own.name} have one; move this folder "
            f"away, and some of {own.name} are kept for testing"
        )
    return train, test


def _split_within(folder: Path, *, caption_field: str) -> tuple[list[Row], list[Row]]:
    """Rows of a folder without split folders; apart where COCO files are named after splits, or `images` has them."""
    files = [] if metadata_file(folder) is not None else coco_files(folder)
    if len(files) > 1:
        return _listed_apart(folder, files)
    rows, images = list_rows(folder, caption_field=caption_field), folder_called(folder, PICTURES)
    parted = images is not None and folder_called(images, TRAIN_FOLDERS) is not None
    return _apart(rows) if parted else (rows, [])


def _has_classes_beside(folder: Path, own: Path) -> bool:
    """Is `train` one class of several (car, bus, train), not a split? Other folders with pictures tell."""
    others = (each for each in folders_shown(folder) if each.name.lower() not in SPLITS)
    listed = any(metadata_file(place) is not None for place in (folder, own))
    return not listed and any(has_pictures(each) for each in others)


def _listed_apart(folder: Path, files: Sequence[Path]) -> tuple[list[Row], list[Row]]:
    """Rows of COCO files beside the folders of the splits: one for both, or of several those that are named so."""
    train = [path for path in files if any(name in path.stem.lower() for name in TRAIN_FOLDERS)]
    others = [path for path in files if path not in train]
    test = next((path for name in TEST_FOLDERS for path in others if name in path.stem.lower()), None)
    if len(train) != 1 or test is None:
        one = coco_file(folder)  # refuses several
        return _apart([] if one is None else coco_rows(one))
    return _there(train[0], test)


def _there(train: Path, test: Path) -> tuple[list[Row], list[Row]]:
    """Rows of both COCO files; where all pictures of one are elsewhere, those of the other, and the file with why."""
    rows, rows_apart = coco_rows(train), coco_rows(test)
    if bool(sound(rows)) == bool(sound(rows_apart)):
        return rows, rows_apart
    found, path = (rows, test) if sound(rows) else (rows_apart, train)
    return [*found, Row(path, printable(Path(path.name)), fault="none of the pictures that it names is there")], []


def _apart(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of one list, those in a test folder by themselves."""
    test = next((part for name in TEST_FOLDERS if sound(part := _below(rows, name))), [])
    names = {row.name for row in test}
    return [row for row in rows if row.name not in names], test


def _below(rows: Sequence[Row], folder: str) -> list[Row]:
    begins = tuple(f"{above}{folder}/" for above in ("", *(f"{each}/" for each in PICTURES)))
    return [row for row in rows if row.name.lower().startswith(begins)]


def _by_name(source: Folder, seed: int) -> tuple[Folder, Folder]:
    """Each picture's side follows from its own name, so that adding pictures moves none of the others."""
    count = len(source)
    if count < 2:
        without = f" ({': '.join(source.left_out[0])})" if source.left_out else ""
        raise DataError(f"{source.name}: only 1 picture{without}; at least 2 are needed, one of them for testing")
    nearest = heapq.nsmallest(TEST_MOST, ((_share(row.name, seed), place) for place, row in enumerate(source.rows)))
    wanted = sum(share < TEST_SHARE for share, _ in nearest)
    held_out = {place for _, place in nearest[: max(1, min(wanted, count // 2))]}
    return source.without(held_out), replace(source.part(sorted(held_out)), left_out=(), drawn=True)


def _limited(source: Folder, *, seed: int, limit: int | None) -> Source:
    """At most `limit` rows, chosen over the whole folder and kept in its order."""
    if limit is None or limit >= len(source):
        return source
    draws = ((_share(f"limit/{row.name}", seed), place) for place, row in enumerate(source.rows))
    return Subset(source, tuple(sorted(place for _, place in heapq.nsmallest(limit, draws))))


def _share(name: str, seed: int) -> float:
    digest = hashlib.blake2b(f"split/{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64

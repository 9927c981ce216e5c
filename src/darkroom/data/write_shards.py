"""A data set written as WebDataset shards, which `data/shards.py` and other tools read."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Final

import torch
from PIL import Image

from darkroom.core.errors import DataError, InputError
from darkroom.core.pictures import FORMATS
from darkroom.core.record import atomic_folder
from darkroom.core.seeds import generator
from darkroom.data.decode import printable
from darkroom.data.examples import Source
from darkroom.data.folder import CLASSES
from darkroom.data.kinds import SUFFIXES, is_picture
from darkroom.data.parts import Joined, Part, part_of
from darkroom.data.place import Place, opened
from darkroom.data.samples import MAP
from darkroom.data.sources import Splits

DIGITS: Final = 6


def write_shards(splits: Splits, folder: Path, *, samples: int = 1000, seed: int = 0) -> list[Path]:
    """Shards of at most so many samples in `folder`, which appears when all are whole; the bytes of pictures are kept.

    A data set's own test split goes into `test/` beside `train/`; without one the shards lie in `folder` itself.
    Samples are mixed by `seed`, so that each shard is one of all pictures (a folder's classes stand one after another).
    `InputError` when something is there already.
    """
    if samples < 1:
        raise InputError(f"shards of {samples} samples cannot be written; 1000 is usual")
    part = part_of(splits.test)
    drawn = part is not None and part.folder.drawn
    parts = {"": Joined(splits.train, splits.test)} if drawn else {"train": splits.train, "test": splits.test}
    with atomic_folder(folder) as temporary:
        for name, source in parts.items():
            (temporary / name).mkdir(exist_ok=True)
            _write(source, temporary / name, samples=samples, seed=seed)
        names = _names(splits.train)
        if names:
            (temporary / CLASSES).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
        written = sorted(path.relative_to(temporary) for path in temporary.rglob("*.tar"))
    return [folder / path for path in written]


def _names(source: Source) -> list[str]:
    """The table that ids refer to, as the data set gives it; without one words say all."""
    part = part_of(source)
    given = () if part is None else part.folder.tables.given
    return list(given or source.map_classes)


def _write(source: Source, folder: Path, *, samples: int, seed: int) -> None:
    order = torch.randperm(len(source), generator=generator(seed, 0, purpose="shards")).tolist()
    for number, start in enumerate(range(0, len(order), samples)):
        with tarfile.open(folder / f"{number:0{DIGITS}}.tar", "w") as tar:
            for place, row in enumerate(order[start : start + samples], start):
                for kind, data in _files(source, row):
                    info = tarfile.TarInfo(f"{place:0{DIGITS + 3}}.{kind}")
                    info.size = len(data)  # no clock, no owner: equal data, equal bytes
                    tar.addfile(info, io.BytesIO(data))


def _files(source: Source, row: int) -> Iterator[tuple[str, bytes]]:
    """What a sample is made of, by the ends of names."""
    place, mapped = _places(source, row)
    if place is None:
        yield "png", _png(source.example(row).picture)
    else:
        data = _bytes(place)
        yield _kind(place.name, data), data
    if mapped is not None and PurePath(mapped.name).suffix.lower() == ".png":
        yield MAP, _bytes(mapped)
    elif "map" in source.fields and (ids := source.map(row)) is not None:
        yield MAP, _png(Image.fromarray(ids))
    facts = _facts(source, row)
    if facts.get("caption"):
        yield "txt", facts["caption"].encode()
    yield "json", json.dumps(facts, ensure_ascii=False).encode()


def _places(source: Source, row: int) -> tuple[Place | None, Place | None]:
    """The files of a row's picture and map, where it has any."""
    if isinstance(source, Joined):
        inside = row < len(source.first)
        return _places(source.first, row) if inside else _places(source.second, row - len(source.first))
    match part_of(source):
        case Part(folder, rows):
            found = folder.rows[rows[row]]
            return found.path, found.map
        case _:
            return None, None


def _facts(source: Source, row: int) -> dict[str, Any]:
    """What is known of a sample, with the keys of `metadata.jsonl`; boxes in pixels."""
    label, things, (width, height) = source.label(row), source.objects(row), source.size(row)
    facts: dict[str, Any] = {}
    if "caption" in source.fields:
        facts["caption"] = source.caption(row)
    if label is not None:
        facts["label"] = source.classes[label]
    if things is not None:
        sides = (width, height, width, height)
        boxes = [[share * side for share, side in zip(each.box, sides, strict=True)] for each in things]
        facts["objects"] = {"bbox": boxes, "categories": [source.categories[each.category] for each in things]}
    return facts


def _kind(name: str, data: bytes) -> str:
    """How a sample's picture ends: as its file did, or, where that says nothing, as its bytes want."""
    if is_picture(name):
        return PurePath(name).suffix.lower().removeprefix(".")
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        known = picture.format
    ends = Image.registered_extensions()
    return next(end.removeprefix(".") for end, kind in ends.items() if kind == known and end in SUFFIXES)


def _bytes(place: Place) -> bytes:
    try:
        with opened(place) as file:
            return file.read()
    except OSError as error:  # not of the folder that is written
        raise DataError(f"{printable(place)}: was there and cannot be read ({error.strerror or error})") from None


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "png")
    return data.getvalue()

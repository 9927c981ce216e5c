"""WebDataset shards as rows of pictures: `.tar` files, here or elsewhere, of which an index is made once.

Files of a shard whose names agree up to the first dot are one sample: a picture; `.txt` (its caption); `.json` (with
keys of `metadata.jsonl`: `caption`, `label`, `objects`); `.cls` (its label); `.map.png` (its map). The index says where
each picture begins, so that any sample is read alone and a run goes on with the very next one. It is kept in
`$DARKROOM_CACHE/shards` and made anew for a shard whose size or date has changed.
"""

import errno
import hashlib
import json
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from darkroom.core.errors import DataError
from darkroom.core.fetch import cache
from darkroom.core.record import atomic, writable_folder
from darkroom.data.metadata import TEST_FOLDERS, has_pictures, sound
from darkroom.data.place import Member, Shard, facts_of, patterned
from darkroom.data.remote import Unreachable, is_remote, shown, whole
from darkroom.data.row import Row
from darkroom.data.samples import samples_in

SUFFIX: Final = ".tar"
LACKING: Final = 0.05  # of the samples may be without what all others have: they are left out, and no error
_VERSION: Final = 2  # of the index
_THREADS: Final = 8  # that fetch shards
_OURS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # faults of this machine
_LOOKING: Final = threading.Lock()  # many fetch, one looks: warnings of decoders are held back for the whole process
Listed = tuple[list[Row], list[Row], Path]
Plain = list[Any]  # a row of an index as JSON


def are_shards(place: str) -> bool:
    """Is a place a shard, a pattern of some, or a folder with some and without pictures?"""
    if is_remote(place):
        return shown(place).endswith(SUFFIX)
    folder = Path(place)
    if not folder.is_dir():
        return place.endswith(SUFFIX)
    return any(_in(folder / below) for below in ("", "train")) and not has_pictures(folder)


def shard_rows(place: str, *, caption_field: str = "caption") -> Listed:
    """Rows of all shards, those of a folder's own test split, and the folder where classes.json may lie.

    What is damaged is a row with a fault: a sample, or what is lost of a shard. `Unreachable` (a `DataError`) when a
    host does not answer; `DataError` when there is nothing at all.
    """
    if not is_remote(place) and Path(place).is_dir():
        folder = Path(place).resolve()
        parts = [_in(folder), []] if _in(folder) else [_in(folder / "train"), _tests(folder)]
        train, test = ([(str(path), path.relative_to(folder).as_posix()) for path in part] for part in parts)
    else:
        root = _root(shown(place))
        train, test = [(shard, shown(shard).removeprefix(root)) for shard in patterned(place)], []
        folder = Path(root or ".") if not is_remote(place) else Path(PurePosixPath(shown(place)).name)
    rows, test_rows = (_whole(_rows(part, caption_field=caption_field)) for part in (train, test))
    if not rows:
        raise DataError(f"{shown(place)}: no samples in {'these shards' if len(train) > 1 else 'this shard'}")
    return rows, test_rows, folder


def _in(folder: Path) -> list[Path]:
    """Shards that lie in a folder; not the hidden ones, which some systems write beside each file."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))


def _tests(folder: Path) -> list[Path]:
    return next((found for name in TEST_FOLDERS if (found := _in(folder / name))), [])


def _root(place: str) -> str:
    """What all shards of a pattern begin with, up to a slash; their names are told without it."""
    return place[: place.rfind("/", 0, place.find("{") if "{" in place else None) + 1]


def _rows(shards: list[tuple[str, str]], *, caption_field: str) -> list[Row]:
    """Samples of shards (where each is, what it is called) in order."""

    def rows(shard: tuple[str, str]) -> list[Row]:
        return _shard(*shard, caption_field=caption_field)

    pool = ThreadPoolExecutor(_THREADS if shards and is_remote(shards[0][0]) else 1, "darkroom-shards")
    try:
        return [row for found in pool.map(rows, shards) for row in found]
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops waits for no other shards


def _whole(rows: list[Row]) -> list[Row]:
    """Few samples without the label, or the map, that all others have are faults: a file of theirs was lost."""
    for key in ("label", "map"):
        good = sound(rows)
        lacking = sum(getattr(row, key) is None for row in good)
        if 0 < lacking <= LACKING * len(good):
            fault = f"without a {key}, which the others have"
            rows = [
                replace(row, fault=fault) if row.fault is None and getattr(row, key) is None else row for row in rows
            ]
    return rows


def _shard(place: str, name: str, *, caption_field: str) -> list[Row]:
    """The rows of a shard, from its index where that is there and fits."""
    try:
        shard = Shard(place, facts_of(place))
        index = _index(shard, caption_field)
        rows = _recalled(index, shard, name)
        if rows is None:
            known = [_plain(row) for row in _read(shard, caption_field=caption_field)]
            if shard.facts.tag:
                _remember(index, known)
            rows = [_row(each, shard, name) for each in known]
    except OSError as error:
        if error.errno in _OURS:
            raise DataError(f"{shown(place)}: no index can be made of it here ({error.strerror})") from None
        return [Row(Path(name), name, fault=f"a shard that cannot be read ({error.strerror or error})")]
    return rows


def _index(shard: Shard, caption_field: str) -> Path:
    """Where the index is kept; it belongs to a place, a size and a date."""
    place = shown(shard.place) if shard.remote else str(Path(shard.place).resolve())
    known = repr((place, shard.facts.size, shard.facts.tag, caption_field, _VERSION))
    return cache("shards") / hashlib.blake2b(known.encode(errors="backslashreplace"), digest_size=16).hexdigest()


def _recalled(index: Path, shard: Shard, name: str) -> list[Row] | None:
    """The rows in an index; None where there is none that can be read."""
    try:
        return [_row(each, shard, name) for each in json.loads(index.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return None


def _remember(index: Path, known: Sequence[Plain]) -> None:
    """An index is a convenience: where it cannot be kept it is made again."""
    try:
        with atomic(writable_folder(index.parent) / index.name) as temporary:
            temporary.write_text(json.dumps(known), encoding="utf-8")
    except (OSError, DataError):
        return


def _plain(row: Row) -> Plain:
    """A row without its shard, which may be called otherwise next time."""
    places = [[each.name, each.offset, each.size] if isinstance(each, Member) else None for each in (row.path, row.map)]
    return [row.name, *places, row.caption, row.label, row.objects, row.fault, row.size]


def _row(plain: Plain, shard: Shard, called: str) -> Row:
    name, path, mapped, caption, label, objects, fault, size = plain
    return Row(
        path=Path(called) if path is None else Member(shard, *path),
        name=f"{called}/{name}" if name else called,
        caption=caption,
        label=label,
        objects=None if objects is None else tuple((each, tuple(box)) for each, box in objects),
        map=None if mapped is None else Member(shard, *mapped),
        fault=fault,
        size=None if size is None else tuple(size),
    )


def _read(shard: Shard, *, caption_field: str) -> list[Row]:
    """The samples of a shard, looked at one by one; a remote one is read once from its beginning to its end."""
    if shard.remote:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "shard.tar")
            with path.open("wb") as file:
                file.writelines(whole(shard.place, facts=shard.facts))
            with _LOOKING:
                rows = samples_in(Shard(str(path), facts_of(str(path))), caption_field=caption_field)
    else:
        rows = samples_in(shard, caption_field=caption_field)
    if facts_of(shard.place) != shard.facts:
        raise Unreachable(f"{shown(shard.place)}: has changed while it was read; run again when it is whole")
    return rows

"""WebDataset shards as rows of pictures: `.tar` files, here or elsewhere, of which an index is made once.

Files of a shard whose names agree up to the first dot are one sample: a picture; `.txt` (its caption); `.json` (with
keys of `metadata.jsonl`: `caption`, `label`, `objects`); `.cls` (its label); `.map.png` (its map). The index says where
each picture begins, so that any sample is read alone and a run goes on with the very next one (`data/index.py`).
"""

import errno
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple, final

from darkroom.core.errors import DataError
from darkroom.data.index import sound_index
from darkroom.data.listing import Listing, Piece, reopen
from darkroom.data.metadata import LACKING, TEST_FOLDERS, has_pictures
from darkroom.data.place import Shard, facts_of, patterned
from darkroom.data.remote import is_remote, shown
from darkroom.data.row import Kinds

SUFFIX: Final = ".tar"
_THREADS: Final = 8  # that fetch shards
_OURS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # faults of this machine
Faults = tuple[tuple[str, str], ...]  # (name, reason)


@final
class Listed(NamedTuple):
    """What shards have: rows that can be looked at, and what cannot be used, each with its reason."""

    rows: Listing
    faults: Faults = ()


def are_shards(place: str) -> bool:
    """Is a place a shard, a pattern of some, or a folder with some and without pictures?"""
    if is_remote(place):
        return shown(place).endswith(SUFFIX)
    folder = Path(place)
    if not folder.is_dir():
        return place.endswith(SUFFIX)
    return any(_in(folder / below) for below in ("", "train")) and not has_pictures(folder)


def shard_rows(place: str, *, caption_field: str = "caption") -> tuple[Listed, Listed, Path]:
    """Rows of all shards, those of a folder's own test split, and the folder where classes.json may lie.

    Faults are samples that are damaged, and what is lost of a shard. `Unreachable` (a `DataError`) when a host does not
    answer; `DataError` when there is nothing at all.
    """
    if not is_remote(place) and Path(place).is_dir():
        folder = Path(place).resolve()
        parts = [_in(folder), []] if _in(folder) else [_in(folder / "train"), _tests(folder)]
        train, test = ([(str(path), path.relative_to(folder).as_posix()) for path in part] for part in parts)
    else:
        root = _root(shown(place))
        train, test = [(shard, shown(shard).removeprefix(root)) for shard in patterned(place)], []
        folder = Path(root or ".") if not is_remote(place) else Path(PurePosixPath(shown(place)).name)
    reopen()
    found, apart = (_listed(part, caption_field=caption_field) for part in (train, test))
    if not len(found.rows) and not found.faults:
        raise DataError(f"{shown(place)}: no samples in {'these shards' if len(train) > 1 else 'this shard'}")
    return found, apart, folder


def _in(folder: Path) -> list[Path]:
    """Shards that lie in a folder; not the hidden ones, which some systems write beside each file."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))


def _tests(folder: Path) -> list[Path]:
    return next((found for name in TEST_FOLDERS if (found := _in(folder / name))), [])


def _root(place: str) -> str:
    """What all shards of a pattern begin with, up to a slash; their names are told without it."""
    return place[: place.rfind("/", 0, place.find("{") if "{" in place else None) + 1]


def _listed(shards: list[tuple[str, str]], *, caption_field: str) -> Listed:
    """Shards (where each is, what it is called) in order."""

    def one(shard: tuple[str, str]) -> _Found:
        return _shard(*shard, caption_field=caption_field)

    pool = ThreadPoolExecutor(_THREADS if shards and is_remote(shards[0][0]) else 1, "darkroom-shards")
    try:
        return _whole(list(pool.map(one, shards)))
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops waits for no other shards


@final
class _Found(NamedTuple):
    """One shard; without a piece it could not be read."""

    piece: Piece | None
    kinds: Kinds
    faults: Faults


def _whole(found: Sequence[_Found]) -> Listed:
    """Few samples without the label, or the map, that all others have are faults: a file of theirs was lost."""
    for key, count in (("label", "labelled"), ("map", "mapped")):
        all_ = Kinds.together(each.kinds for each in found)
        lacking = all_.rows - getattr(all_, count)
        if 0 < lacking <= LACKING * all_.rows:
            found = [_without(each, key) if getattr(each.kinds, count) < each.kinds.rows else each for each in found]
    pieces = (each.piece for each in found if each.piece is not None)
    kinds = Kinds.together(each.kinds for each in found)
    return Listed(Listing(pieces, kinds), tuple(fault for each in found for fault in each.faults))


def _without(found: _Found, key: str) -> _Found:
    """A shard without the samples that lack something."""
    assert found.piece is not None
    listing = Listing([found.piece], found.kinds)
    lacking = {place: row.name for place, row in enumerate(listing) if getattr(row, key) is None}
    kept = listing.without(lacking)
    faults = ((name, f"without a {key}, which the others have") for name in lacking.values())
    return _Found(kept.pieces[0], Kinds.of(kept), (*found.faults, *faults))


def _shard(place: str, called: str, *, caption_field: str) -> _Found:
    """What a shard has, by its index."""
    try:
        shard = Shard(place, facts_of(place))
        index = sound_index(shard, caption_field=caption_field)
    except OSError as error:
        if error.errno in _OURS:
            raise DataError(f"{shown(place)}: no index can be made of it here ({error.strerror})") from None
        return _Found(None, Kinds(), ((called, f"a shard that cannot be read ({error.strerror or error})"),))
    kinds, digest, faults = index.told.kinds, index.told.digest, index.told.faults
    piece = Piece(shard, called, caption_field, kinds.rows, digest, count=kinds.rows, data=index.data)
    return _Found(piece, kinds, tuple((f"{called}/{name}" if name else called, reason) for name, reason in faults))

"""A look at every pixel before a run begins: what cannot be decoded, or is there twice, is left out with a reason."""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from jaxtyping import Int64, UInt64

from darkroom.core.errors import DataError, InputError
from darkroom.core.record import read_json, write_json
from darkroom.data.decode import check_map, check_pixels, quiet
from darkroom.data.examples import Source
from darkroom.data.folder import Folder
from darkroom.data.parts import Part, Subset, part_of
from darkroom.data.place import Place, fetched, opened
from darkroom.data.row import Row
from darkroom.data.sources import Splits

Progress = Callable[[int, int], None]
Places = Int64[np.ndarray, "_k"]
Prints = UInt64[np.ndarray, "_n _words"]
PRINT: Final = 16  # bytes by which a picture is known
_VERSION: Final = 1  # of the memo
_THREADS: Final = 8
_TOGETHER: Final = 256  # pictures handed to the threads at once
_LARGE: Final = 2**24  # pixels: larger pictures are decoded one at a time, for each takes hundreds of megabytes


@final
@dataclass(frozen=True)
class _Look:
    """What a picture turned out to be: unusable, or known by its bytes, and by these with its annotations."""

    fault: str | None
    content: bytes = bytes(PRINT)
    known: bytes = bytes(PRINT)


@final
class _Looks:
    """Those of so many rows, in a few bytes each. faults: by place · contents, known: prints, two numbers each."""

    def __init__(self, count: int) -> None:
        self.faults: dict[int, str] = {}
        self.contents, self.known = (np.zeros((count, PRINT // 8), np.uint64) for _ in range(2))

    def take(self, place: int, look: _Look) -> None:
        """Take in what a row turned out to be."""
        if look.fault is not None:
            self.faults[place] = look.fault
        self.contents[place] = np.frombuffer(look.content, np.uint64)
        self.known[place] = np.frombuffer(look.known, np.uint64)


@final
@dataclass
class _Verdict:
    """Rows of the two folders that are left out, with reasons; moved: a training row that became the test picture."""

    train: dict[int, str]
    test: dict[int, str]
    moved: int | None = None


def examine(splits: Splits, *, memo: Path | None = None, progress: Progress | None = None) -> Splits:
    """The splits without pictures that cannot be decoded and without copies; `left_out` names them and says why.

    A copy has the bytes and the annotations of an earlier picture of its split; a test picture goes when a training
    picture has its bytes. Were the test pictures drawn by us and none is left, a training picture takes their place.
    Sources that are no folders are answered untouched.
    memo: a file for the verdict, written once and only read from then on, so that a run goes on with the same rows ·
    progress: called with (pictures done, pictures). `DataError` when nothing is left, and when the pictures are not
    those that the memo was written for.
    """
    train, test = part_of(splits.train), part_of(splits.test)
    if train is None or test is None:
        return splits
    parts = train, test
    if memo is not None and memo.exists():
        return _without(splits, parts, _recalled(memo, splits, parts))
    verdict = _judge(train, test, _look(parts, progress))
    if memo is not None:
        write_json(memo, _told(verdict, splits, parts))
    return _without(splits, parts, verdict)


def _look(parts: Sequence[Part], progress: Progress | None) -> list[_Looks]:
    """A look at each row of the parts, in order; threads, for decoding releases the interpreter."""
    found, alone = [_Looks(len(part.rows)) for part in parts], threading.Lock()
    done, total = 0, sum(len(part.rows) for part in parts)

    def look(folder: Folder, row: int) -> _Look:
        width, height = folder.sizes[row]
        if width * height <= _LARGE:
            return _look_at(folder, row)
        with alone:
            return _look_at(folder, row)

    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="darkroom-examine")
    with quiet():
        try:
            for part, looks in zip(parts, found, strict=True):
                for start in range(0, len(part.rows), _TOGETHER):
                    rows = part.rows[start : start + _TOGETHER]
                    for place, each in enumerate(pool.map(look, repeat(part.folder), rows), start):
                        looks.take(place, each)
                        done += 1
                        if progress is not None:
                            progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def _look_at(folder: Folder, index: int) -> _Look:
    row, told = folder.rows[index], folder.sizes[index]
    try:
        place, mapped_at = fetched(row.path), None if row.map is None else fetched(row.map)
    except OSError as error:
        return _Look(f"not readable ({error.strerror or error})")
    found = check_pixels(place, alpha=folder.alpha)
    if isinstance(found, str):
        return _Look(found)
    if found != told:  # boxes would lie elsewhere
        return _Look(f"it is {found[0]} x {found[1]} pixels and says {told[0]} x {told[1]}")
    unfit = None if mapped_at is None else check_map(mapped_at, size=found)
    unfit = _box_outside(row, size=found) if unfit is None else unfit
    if unfit is not None:
        return _Look(unfit)
    try:
        content, mapped = _hash(place), None if mapped_at is None else _hash(mapped_at)
    except OSError as error:
        return _Look(f"not readable ({error.strerror})")
    known = repr((content, folder.caption(index), row.label, row.objects, mapped)).encode(errors="backslashreplace")
    return _Look(None, content, hashlib.blake2b(known, digest_size=PRINT).digest())


def _box_outside(row: Row, *, size: tuple[int, int]) -> str | None:
    """Which box shows nothing of the picture, if one does: it may belong to another. size: width, height."""
    width, height = size
    for name, (left, top, across, down) in row.objects or ():
        beside = left >= width or top >= height or left + across <= 0 or top + down <= 0
        if beside and across > 0 and down > 0:
            return f"a box of {name!r:.40} lies outside it: x {left:g}, y {top:g}, {across:g} x {down:g} pixels"
    return None


def _hash(place: Place) -> bytes:
    with opened(place) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=PRINT)).digest()


def _judge(train: Part, test: Part, looks: Sequence[_Looks]) -> _Verdict:
    """What is left out, by rules that know only rows in their order."""
    of_train, of_test = looks
    verdict = _Verdict(_unusable(train, of_train), _unusable(test, of_test))
    kept, asked = _left(train, verdict.train), _left(test, verdict.test)
    if not len(kept):
        raise DataError(f"{train.folder.name}: {_nothing(train, verdict.train, of='training')}")
    first = _first_of_equals(np.concatenate([of_train.contents[kept], of_test.contents[asked]]))[len(kept) :]
    for place, owner in zip(asked, first, strict=True):
        if owner < len(kept):
            name = train.folder.rows[train.rows[kept[owner]]].name
            verdict.test[test.rows[place]] = f"also in the training pictures, {name}"
    if len(verdict.test) == len(test.rows):
        if not test.folder.drawn:
            raise DataError(f"{test.folder.name}: {_nothing(test, verdict.test, of='test')}")
        _move(verdict, train, kept=kept, contents=of_train.contents)
    return verdict


def _unusable(part: Part, looks: _Looks) -> dict[int, str]:
    """Row -> reason of what cannot be decoded, and of copies."""
    sound = np.delete(np.arange(len(part.rows)), list(looks.faults))
    first = sound[_first_of_equals(looks.known[sound])]
    reasons = {part.rows[place]: fault for place, fault in looks.faults.items()}
    for place, earlier in zip(*(each[first != sound].tolist() for each in (sound, first)), strict=True):
        reasons[part.rows[place]] = f"the same picture as {part.folder.rows[part.rows[earlier]].name}"
    return reasons


def _left(part: Part, reasons: Mapping[int, str]) -> Places:
    """The places of a part's other rows."""
    rows = np.fromiter(part.rows, np.int64, len(part.rows))
    return np.flatnonzero(~np.isin(rows, list(reasons)))


def _first_of_equals(prints: Prints) -> Places:
    """For each print the place of the first that equals it."""
    order = np.lexsort(prints.T)  # stable: equal ones stay in their order
    ranked = prints[order]
    begins = np.flatnonzero(np.append(len(prints) > 0, (ranked[1:] != ranked[:-1]).any(axis=1)))
    found = np.empty(len(prints), np.int64)
    found[order] = np.repeat(order[begins], np.diff(np.append(begins, len(prints))))
    return found


def _nothing(part: Part, reasons: dict[int, str], *, of: str) -> str:
    row = part.rows[0]
    first = f"{part.folder.rows[row].name}: {reasons[row]}"
    return f"none of {len(part.rows)} {of} pictures can be used; first: {first}"


def _move(verdict: _Verdict, train: Part, *, kept: Places, contents: Prints) -> None:
    """Let one training picture become the test picture; what shares its bytes leaves training."""
    rows = train.folder.rows
    if (contents[kept] == contents[kept[0]]).all():
        raise DataError(
            f"{train.folder.name}: only 1 picture can be used; at least 2 are needed, one of them for testing"
        )
    moved = min(kept.tolist(), key=lambda place: hashlib.blake2b(rows[train.rows[place]].name.encode()).digest())
    verdict.moved = train.rows[moved]
    for place in kept[(contents[kept] == contents[moved]).all(axis=1)].tolist():
        if place != moved:
            verdict.train[train.rows[place]] = f"also the test picture, {rows[verdict.moved].name}"


def _without(splits: Splits, parts: Sequence[Part], verdict: _Verdict) -> Splits:
    (train, test), moved = parts, verdict.moved
    kept = _thinned(splits.train, train, reasons=verdict.train, moved=moved)
    if moved is None:
        return Splits(kept, _thinned(splits.test, test, reasons=verdict.test))
    apart = replace(train.folder.part([moved]), left_out=_left_out(test.folder, verdict.test), drawn=True)
    return Splits(kept, apart)


def _thinned(source: Source, part: Part, *, reasons: dict[int, str], moved: int | None = None) -> Source:
    """The source without these rows of its folder."""
    left_out = {*reasons, *([] if moved is None else [moved])}
    folder = replace(part.folder, left_out=_left_out(part.folder, reasons))
    if isinstance(source, Subset):
        return Subset(folder, tuple(row for row in part.rows if row not in left_out))
    return folder.without(left_out)


def _left_out(folder: Folder, reasons: dict[int, str]) -> tuple[tuple[str, str], ...]:
    return (*folder.left_out, *((folder.rows[row].name, reasons[row]) for row in sorted(reasons)))


def _told(verdict: _Verdict, splits: Splits, parts: Sequence[Part]) -> dict[str, Any]:
    """The verdict as JSON, with all that tells whether the pictures are still the same."""
    told: dict[str, Any] = {"version": _VERSION, "moved": verdict.moved}
    for key, source, part in zip(Splits._fields, splits, parts, strict=True):
        reasons = sorted(getattr(verdict, key).items())
        told[key] = {
            "fingerprint": source.fingerprint(),
            "unread": [{"name": name, "reason": why} for name, why in part.folder.left_out],
            "left_out": [{"row": row, "name": part.folder.rows[row].name, "reason": why} for row, why in reasons],
            "pictures": part.folder.hashes(),
        }
    return told


def _recalled(memo: Path, splits: Splits, parts: Sequence[Part]) -> _Verdict:
    """The verdict in a memo; `DataError` when it was reached on other pictures, or is not ours."""
    try:
        told = read_json(memo)
        if told["version"] != _VERSION:
            raise ValueError(f"version {told['version']}, {_VERSION} is known here")
        same = all(told[key]["fingerprint"] == getattr(splits, key).fingerprint() for key in Splits._fields)
        changes = "" if same else _changes([told[key]["pictures"] for key in Splits._fields], parts)
        left_out = [{each["row"]: each["reason"] for each in told[key]["left_out"]} for key in Splits._fields]
        verdict = _Verdict(*left_out, moved=told["moved"])
    except (OSError, InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{memo}: not a verdict on pictures that can be read ({error}); begin another run") from None
    if not same:
        raise DataError(f"{parts[0].folder.name}: {changes}")
    return verdict


def _changes(before: Sequence[dict[str, str]], parts: Sequence[Part]) -> str:
    """How pictures differ from those of a memo."""
    then = Counter(item for pictures in before for item in pictures.items())
    now = Counter(item for part in parts for item in part.folder.hashes().items())
    came, went = (Counter(name for name, _ in (one - other).elements()) for one, other in ((now, then), (then, now)))
    changed = came & went
    counts = {"came": (came - changed).total(), "went": (went - changed).total(), "changed": changed.total()}
    words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    what = f"pictures are not those the run began with ({words})" if words else "pictures are split or listed otherwise"
    return f"{what}; it can go on with the same ones only: put them back, or begin another run"

"""WebDataset shards as rows of pictures: `.tar` files, here or elsewhere, of which an index is made once.

Files of a shard whose names agree up to the first dot are one sample: a picture; `.txt` (its caption); `.json` (with
keys of `metadata.jsonl`: `caption`, `label`, `objects`); `.cls` (its label); `.map.png` (its map). The index says where
each picture begins, so that any sample is read alone and a run goes on with the very next one. It is kept in
`$DARKROOM_CACHE/shards` and made anew for a shard whose size or date has changed.
"""

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, cast, final

from darkroom.core.errors import DataError
from darkroom.core.fetch import cache
from darkroom.core.record import atomic, writable_folder
from darkroom.data.decode import check
from darkroom.data.kinds import foreign, is_picture
from darkroom.data.metadata import TEST_FOLDERS, caption_in, objects_in
from darkroom.data.place import Member, opened, patterned
from darkroom.data.remote import find, is_remote, whole
from darkroom.data.row import Name, Row, class_name

SUFFIX: Final = ".tar"
MAP: Final = "map.png"
_VERSION: Final = 1  # of the index
_TEXT: Final = 2**20  # bytes of a caption or of a JSON that are read at most
_THREADS: Final = 8  # that fetch shards
_BLOCK: Final = tarfile.BLOCKSIZE
Listed = tuple[list[Row], list[Row], Path]


def are_shards(place: str) -> bool:
    """Is a place a shard, a pattern of some, or a folder with some?"""
    if place.endswith(SUFFIX):
        return True
    return not is_remote(place) and any(_in(Path(place, below)) for below in ("", "train"))


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
        train, test = [(shard, shard.removeprefix(_root(place))) for shard in patterned(place)], []
        folder = Path(_root(place) or ".") if not is_remote(place) else Path(PurePosixPath(place).name)
    rows, test_rows = (_rows(part, caption_field=caption_field) for part in (train, test))
    if not rows:
        raise DataError(f"{place}: no samples in {'these shards' if len(train) > 1 else 'this shard'}")
    return rows, test_rows, folder


def _in(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []


def _tests(folder: Path) -> list[Path]:
    return next((found for name in TEST_FOLDERS if (found := _in(folder / name))), [])


def _root(place: str) -> str:
    """What all shards of a pattern begin with, up to a slash; their names are told without it."""
    return place[: place.rfind("/", 0, place.find("{") if "{" in place else None) + 1]


def _rows(shards: list[tuple[str, str]], *, caption_field: str) -> list[Row]:
    """Samples of shards (where each is, what it is called) in order."""

    def rows(shard: tuple[str, str]) -> list[Row]:
        return _shard(*shard, caption_field=caption_field)

    with ThreadPoolExecutor(_THREADS if shards and is_remote(shards[0][0]) else 1) as pool:
        return [row for found in pool.map(rows, shards) for row in found]


def _shard(shard: str, name: str, *, caption_field: str) -> list[Row]:
    """The rows of a shard, from its index where that is there and fits."""
    try:
        facts = _facts(shard)
        index = cache("shards") / f"{hashlib.blake2b(repr((facts, caption_field, _VERSION)).encode()).hexdigest()[:32]}"
        known = _recalled(index)
        if known is None:
            known = _indexed_here(shard, size=facts[1], caption_field=caption_field)
            _remember(index, known)
    except OSError as error:
        return [Row(Path(shard), name, fault=f"a shard that cannot be read ({error.strerror or error})")]
    return [_placed(each, shard, name) for each in known]


def _facts(shard: str) -> tuple[str, int, str]:
    """What an index belongs to: where the shard is, how large, and since when."""
    if is_remote(shard):
        found = find(shard)
        return shard, found.size, found.tag
    path = Path(shard).resolve()
    about = path.stat()
    return str(path), about.st_size, str(about.st_mtime_ns)


def _recalled(index: Path) -> list[Row] | None:
    try:
        return [_row(each) for each in json.loads(index.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(index: Path, rows: list[Row]) -> None:
    """An index is a convenience: where it cannot be kept it is made again."""
    try:
        with atomic(writable_folder(index.parent) / index.name) as temporary:
            temporary.write_text(json.dumps([_plain(row) for row in rows]), encoding="utf-8")
    except (OSError, DataError):
        return


def _plain(row: Row) -> list[Any]:
    """A row of an index as JSON, without the shard, which may be called otherwise next time."""
    places = [
        [each.inside, each.offset, each.size] if isinstance(each, Member) else None for each in (row.path, row.map)
    ]
    return [row.name, *places, row.caption, row.label, row.objects, row.fault, row.size]


def _row(plain: list[Any]) -> Row:
    name, path, mapped, caption, label, objects, fault, size = plain
    return Row(
        path=Path() if path is None else Member("", *path),
        name=name,
        caption=caption,
        label=label,
        objects=None if objects is None else tuple((each, tuple(box)) for each, box in objects),
        map=None if mapped is None else Member("", *mapped),
        fault=fault,
        size=None if size is None else tuple(size),
    )


def _placed(row: Row, shard: str, name: str) -> Row:
    """A row of an index, in its shard."""

    def at(place: object) -> Any:
        return replace(place, shard=shard) if isinstance(place, Member) else None

    return replace(
        row, path=at(row.path) or Path(shard), map=at(row.map), name=f"{name}/{row.name}" if row.name else name
    )


def _indexed_here(shard: str, *, size: int, caption_field: str) -> list[Row]:
    """The index of a shard; a remote one is read once from its beginning to its end."""
    if not is_remote(shard):
        return _Index(Path(shard), caption_field=caption_field).rows()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shard.tar")
        with path.open("wb") as file:
            file.writelines(whole(shard, size=size))
        return _Index(path, caption_field=caption_field).rows()


@final
class _Index:
    """What lies where in a shard."""

    def __init__(self, path: Path, *, caption_field: str) -> None:
        self.path, self.caption_field = path, caption_field
        self.samples: dict[str, dict[str, Member]] = {}
        self.faults: list[Row] = []

    def rows(self) -> list[Row]:
        """Samples in the order of their first files, then what is wrong besides."""
        with self.path.open("rb") as file:
            damage = self._list(file)
        rows = [self._sample(key, files) for key, files in self.samples.items()]
        whole = [] if damage is None else [Row(Path(), "", fault=damage)]
        return [*rows, *self.faults, *whole]

    def _list(self, file: BinaryIO) -> str | None:
        """Find all files; why there may have been more, if there may."""
        end = self.path.stat().st_size
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    tar.members = []  # or it would remember each
                    if info.size < 0 or info.offset_data + info.size > end:
                        return self._cut(info.name)
                    self._take(info)
                file.seek(tar.offset)
                block = file.read(_BLOCK)
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            packed = " (a compressed one?)" if not self.samples else ""
            self._doubt_last()
            what, _, _ = (str(error) or "no tar").partition("\n")
            how = "truncated" if "end of data" in what else "damaged"
            return f"{how} shard: {what}{packed}; {self._before()}"
        if len(block) == _BLOCK and not block.strip(b"\0"):
            return None
        self._doubt_last()
        what = "truncated shard: its end is missing" if not block else "damaged shard: what follows is no header"
        return f"{what}; {self._before()}"

    def _doubt_last(self) -> None:
        """Forget the last sample unless it has all that the first one has: some of its files may be lost."""
        first, last = (next(order, "") for order in (iter(self.samples), reversed(self.samples)))
        if first == last or not self.samples[first].keys() <= self.samples[last].keys():
            self.samples.pop(last, None)

    def _cut(self, name: str) -> str:
        self.samples.pop(_key(name)[0], None)  # of which another file was whole
        return f"truncated shard: it ends within {name!r:.80}; {self._before()}"

    def _before(self) -> str:
        return f"{len(self.samples)} samples before that are used"

    def _take(self, info: tarfile.TarInfo) -> None:
        key, kind = _key(info.name)
        if info.isdir() or PurePosixPath(info.name).name.startswith("."):
            return
        if not info.isreg() or info.issparse():
            self.faults.append(Row(Path(), info.name, fault="not a file but a link or a device"))
        elif kind in self.samples.setdefault(key, {}):
            self.faults.append(Row(Path(), info.name, fault="there twice in this shard; the first is used"))
        else:
            self.samples[key][kind] = Member(str(self.path), info.name, info.offset_data, info.size)

    def _sample(self, key: str, files: Mapping[str, Member]) -> Row:
        """One sample, looked at as far as its header."""
        picture = min((kind for kind in files if is_picture(f"x.{kind}") and kind != MAP), key=len, default=None)
        if picture is None:
            strange = next(filter(None, (foreign(f"x.{kind}") for kind in files)), "a sample without a picture")
            return Row(Path(), key, fault=strange)
        row = Row(files[picture], files[picture].inside, map=files.get(MAP))
        try:
            row = self._annotated(row, files)
        except (ValueError, RecursionError) as error:
            return replace(row, fault=f"its annotations cannot be read ({str(error).splitlines()[0]:.120})")
        except DataError as error:
            return replace(row, fault=f"its annotations: {error}")
        found = check(files[picture])
        return replace(row, fault=found) if isinstance(found, str) else replace(row, size=found)

    def _annotated(self, row: Row, files: Mapping[str, Member]) -> Row:
        told = _json(files.get("json"))
        caption = caption_in(told.get(self.caption_field), where=row.name, key=self.caption_field)
        if caption is None and self.caption_field == "caption":
            caption = _text(files.get("txt"))
        label = class_name(told.get("label"), key="label", where=row.name)
        if label is None:
            label = _class(_text(files.get("cls")))
        return replace(row, caption=caption, label=label, objects=objects_in(told.get("objects"), where=row.name))


def _key(name: str) -> tuple[str, str]:
    """Which sample a file belongs to, and what it is of it."""
    folder, slash, base = name.rpartition("/")
    stem, _, kind = base.partition(".")
    return folder + slash + stem, kind.lower()


def _json(member: Member | None) -> Mapping[str, Any]:
    text = _text(member)
    found = {} if text is None else json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"an object is needed, {type(found).__name__} came")
    return cast("dict[str, Any]", found)


def _text(member: Member | None) -> str | None:
    if member is None:
        return None
    if member.size > _TEXT:
        raise ValueError(f"{member.inside} has {member.size} bytes")
    with opened(member) as file:
        return file.read().decode("utf-8-sig").strip() or None


def _class(text: str | None) -> Name | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else text

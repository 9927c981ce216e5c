"""The samples in one shard: which of its files belong together, and what each sample is worth."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, cast, final

from darkroom.core.errors import DataError, first_line
from darkroom.data.decode import check
from darkroom.data.kinds import foreign, is_picture
from darkroom.data.metadata import CAPTION, caption_in, objects_in
from darkroom.data.place import Member, Shard, opened
from darkroom.data.remote import Unreachable
from darkroom.data.row import Name, Row, class_name
from darkroom.data.sidecar import LONGEST
from darkroom.data.tar import Entry, entries

MAP: Final = "map.png"
_TEXT: Final = 2**20  # bytes of a caption or of a JSON that are read at most


def samples_in(shard: Shard, *, caption_field: str) -> list[Row]:
    """Samples of a shard that is here in the order of their first files, then what is wrong besides, each with a fault.

    Names are those inside; that of a row about the shard as a whole is empty.
    """
    with open(shard.place, "rb") as file:
        return _Listing(shard, caption_field=caption_field).rows(file)


@final
class _Listing:
    """What lies where in a shard."""

    def __init__(self, shard: Shard, *, caption_field: str) -> None:
        self.shard, self.caption_field = shard, caption_field
        self.samples: dict[str, dict[str, Member]] = {}
        self.faults: list[Row] = []

    def rows(self, file: BinaryIO) -> list[Row]:
        """All of them."""
        damage = self._list(file)
        rows = [self._sample(key, files) for key, files in self.samples.items()]
        whole = [] if damage is None else [Row(Path(), "", fault=damage)]
        return [*rows, *self.faults, *whole]

    def _list(self, file: BinaryIO) -> str | None:
        """Find all files; why there may have been more, if there may."""
        try:
            for entry in entries(file):
                if entry.offset + entry.size > self.shard.facts.size:
                    self.samples.pop(_key(entry.name)[0], None)  # of which another file was whole
                    return self._with_count(f"truncated shard: it ends within {entry.name!r:.80}")
                self._take(entry)
        except DataError as error:
            self._doubt_last()
            return self._with_count(str(error))
        return None

    def _doubt_last(self) -> None:
        """Forget the last sample unless it has all that the first one has: some of its files may be lost."""
        first, last = (next(order, "") for order in (iter(self.samples), reversed(self.samples)))
        if first == last or not self.samples[first].keys() <= self.samples[last].keys():
            self.samples.pop(last, None)

    def _with_count(self, damage: str) -> str:
        return f"{damage}; {len(self.samples)} samples before that are used"

    def _take(self, entry: Entry) -> None:
        key, kind = _key(entry.name)
        if PurePosixPath(entry.name).name.startswith("."):
            return
        if not entry.plain:
            self.faults.append(Row(Path(), entry.name, fault="not a file but a link, a device or a file with holes"))
        elif kind in self.samples.setdefault(key, {}):
            self.faults.append(Row(Path(), entry.name, fault="there twice in this shard; the first is used"))
        else:
            self.samples[key][kind] = Member(self.shard, entry.name, entry.offset, entry.size)

    def _sample(self, key: str, files: Mapping[str, Member]) -> Row:
        """One sample, looked at as far as its header."""
        picture = self._picture(files)
        if picture is None:
            strange = next(filter(None, (foreign(f"x.{kind}") for kind in files)), "a sample without a picture")
            return Row(Path(), key, fault=strange)
        row = Row(picture, picture.name, map=files.get(MAP))
        try:
            row = self._annotated(row, files)
        except Unreachable:
            raise
        except (ValueError, RecursionError) as error:
            return replace(row, fault=f"its annotations cannot be read ({first_line(error):.120})")
        except DataError as error:
            return replace(row, fault=f"its annotations: {error}")
        found = check(picture)
        return replace(row, fault=found) if isinstance(found, str) else replace(row, size=found)

    def _picture(self, files: Mapping[str, Member]) -> Member | None:
        """The one with the shortest end, as `.jpg` beside `.depth.png`; others of an equally short one are faults."""
        kinds = [kind for kind in files if is_picture(f"x.{kind}") and kind != MAP]
        dots = min((kind.count(".") for kind in kinds), default=0)
        found = [files[kind] for kind in kinds if kind.count(".") == dots]
        for other in found[1:]:
            fault = f"of the sample of {found[0].name}: names up to the first dot are equal, and the first is used"
            self.faults.append(Row(Path(), other.name, fault=fault))
        return found[0] if found else None

    def _annotated(self, row: Row, files: Mapping[str, Member]) -> Row:
        told = _json(files.get("json"))
        caption = caption_in(told.get(self.caption_field), where=row.name, key=self.caption_field)
        if not caption and self.caption_field == CAPTION:
            caption = _text(files.get("txt")) or caption
        label = class_name(told.get("label"), key="label", where=row.name)
        if label is None:
            label = _class(_text(files.get("cls")))
        objects = objects_in(told.get("objects"), where=row.name)
        return replace(row, caption=caption and caption[:LONGEST], label=label, objects=objects)


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
        raise ValueError(f"{member.name} has {member.size} bytes")
    with opened(member) as file:
        return file.read().decode("utf-8-sig").strip() or None


def _class(text: str | None) -> Name | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else text

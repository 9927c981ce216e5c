"""Sets of pictures that are too many to hold: those of a data set, and those that a model draws."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, final, runtime_checkable

import torch

from darkroom import __version__
from darkroom.core.parallel import rank, wait_for_all
from darkroom.core.pictures import to_bytes
from darkroom.core.record import read_json, writable_folder, write_json
from darkroom.core.shapes import Bytes
from darkroom.core.shards import Progress, Shards
from darkroom.core.spec import parse
from darkroom.data.examples import Source
from darkroom.data.folder import Folder
from darkroom.data.inputs import captions, label_of
from darkroom.data.loader import still_batches
from darkroom.data.place import Member, Place, size_of
from darkroom.data.sources import Joined, Subset
from darkroom.data.transforms import TransformSpec
from darkroom.evaluate.protocol import about
from darkroom.metrics.contributions import some_rows
from darkroom.tasks.generate import generate
from darkroom.tasks.held_out import Spoiling, asked_of
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request
from darkroom.tasks.settle import settle

MANIFEST: Final = "set.json"
_TOGETHER: Final = 32  # pictures decoded ahead


@runtime_checkable
class Lot(Protocol):
    """Pictures by number, as bytes of one size."""

    def key(self) -> str:
        """Another one for other pictures, as far as that can be told without looking at all of them."""
        ...

    def __len__(self) -> int: ...

    def pictures(self, rows: range) -> Bytes:
        """Those of these rows."""
        ...


@final
@dataclass(frozen=True)
class OfSource:
    """The rows of a data set, each as training sees it: shorter side resized, the centre square."""

    source: Source
    transform: TransformSpec

    def key(self) -> str:
        """Of names, sizes and times of files, and of the transform."""
        return digest([_stamp(self.source), self.transform.plain()])

    def __len__(self) -> int:
        return len(self.source)

    def pictures(self, rows: range) -> Bytes:
        """Decoded anew."""
        parts = still_batches(self.source, self.transform, batch_size=_TOGETHER, rows=rows)
        return torch.cat([part.images for part in parts])


@final
@dataclass(frozen=True, eq=False)
class Asking:
    """What steers each picture that a model draws: a row of a data set, or nothing.

    sample: seed, solver, steps, eta, guidance, match; None for the model's own · source: None for a model that nothing
    steers.
    """

    model: Model
    sample: Mapping[str, Any]
    count: int
    source: Source | None = None
    spoiling: Spoiling = field(default_factory=Spoiling)

    @functools.cached_property
    def rows(self) -> tuple[int, ...]:
        """The row by which each picture is asked for; all in turn when there are fewer than pictures."""
        known = 0 if self.source is None else len(self.source)
        if self.count <= known:
            return tuple(some_rows(known, most=self.count, seed=self.sample.get("seed") or 0).tolist())
        return tuple(number % known for number in range(self.count)) if known else ()

    @functools.cached_property
    def captions(self) -> Sequence[str] | None:
        """The words by which each picture is asked for."""
        if self.source is None or "caption" not in self.model.fields:
            return None
        said = captions(self.source)
        return [said[row] for row in self.rows]

    @property
    def transform(self) -> TransformSpec:
        """How the model's pictures are cut from larger ones."""
        spec = self.model.spec
        values = {"size": spec.image_size, "channels": spec.first_stage.image_channels}
        return parse(TransformSpec, values, where="evaluation")

    def request(self, numbers: range) -> Request:
        """For these pictures of the set; each keeps its number in the seed."""
        given = {name: value for name, value in self.sample.items() if value is not None}
        asked: dict[str, Any] = {"first": numbers.start}
        if self.source is None:
            asked["count"] = len(numbers)
        else:
            rows = [self.rows[number] for number in numbers]
            asked |= asked_of(self.model, self.source, rows=rows, transform=self.transform, spoiling=self.spoiling)
            if self.captions is not None:
                asked["prompts"] = [self.captions[number] for number in numbers]
            if "label" in self.model.fields:
                asked["labels"] = [self.source.classes[label_of(self.source, row)] for row in rows]
        return settle(self.model, parse(Request, {**asked, **given}, where="what is asked for"))

    def sampling(self) -> dict[str, Any]:
        """How it is drawn, the model's own defaults filled in, as JSON values; an interval only where one is given."""
        told = {"seed", "size", "solver", "steps", "eta", "guidance", "match"}
        settled = self.request(range(1))
        return settled.model_dump(
            mode="json", include=told | ({"guidance_interval"} if settled.guidance_interval else set())
        )


@final
@dataclass(frozen=True, eq=False)
class Drawn:
    """Pictures that a model draws, in files of a folder named by the model and by all that is asked.

    pinned: what they depend on, as JSON values · folder: where that folder lies · batch: drawn together, and kept in
    one file. How many stays as it was when the first were drawn, so that a set that was interrupted ends bit for bit as
    it would have.
    """

    asking: Asking
    pinned: Mapping[str, Any]
    folder: Path
    batch: int

    @classmethod
    def of(cls, asking: Asking, *, folder: Path, batch: int) -> "Drawn":
        """A set of which nothing need be there yet."""
        pinned = {
            "model": about(asking.model),
            "sampling": asking.sampling(),
            "count": asking.count,
            "asked": None if asking.source is None else [_stamp(asking.source), asking.spoiling.plain()],
            "darkroom": __version__,
        }
        return cls(asking, pinned, folder, batch)

    def __len__(self) -> int:
        return self.asking.count

    def key(self) -> str:
        """Of the model and of all that is asked."""
        return digest(dict(self.pinned))

    def pictures(self, rows: range) -> Bytes:
        """Read from their files."""
        return self._shards.take("pictures", rows)

    def draw(self, on_row: Progress) -> None:
        """Draw what is not there yet."""
        if rank() == 0 and not ((self._place / MANIFEST).exists() and any(self._place.glob("*.safetensors"))):
            write_json(writable_folder(self._place) / MANIFEST, {**self.pinned, "together": self.batch})
        wait_for_all()
        self._shards.fill(self._make, on_row=on_row)

    @property
    def _place(self) -> Path:
        return self.folder / f"samples-{self.key()}"

    @functools.cached_property
    def _shards(self) -> Shards:
        return Shards(self._place, len(self), read_json(self._place / MANIFEST)["together"])

    def _make(self, rows: range) -> dict[str, torch.Tensor]:
        model, channels = self.asking.model, self.asking.transform.channels
        drawn = generate(model, self.asking.request(rows), batch=self._shards.size)
        return {"pictures": torch.stack([to_bytes(each.picture, channels) for each in drawn])}


def digest(values: object) -> str:
    """Twelve hexadecimal digits of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _stamp(source: Source) -> str:
    """A value that changes when a file of the data set does."""
    match source:
        case Folder():
            told = [_file_stamp(row.path) for row in source.rows]
            return digest([source.fingerprint(), told])
        case Subset():
            return digest([_stamp(source.source), source.rows])
        case Joined():
            return digest([_stamp(source.first), _stamp(source.second)])
        case _:
            return source.fingerprint()


def _file_stamp(place: Place) -> tuple[str | int, ...]:
    """Name, size and time; of a part of a shard what the shard was known by when it was listed."""
    match place:
        case Path():
            return str(place), size_of(place), place.stat().st_mtime_ns
        case Member():
            shard = place.shard
            return shard.place, shard.facts.size, str(shard.facts.tag), place.name, place.offset, place.size

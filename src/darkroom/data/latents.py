"""The latent cache: posterior moments of every training picture, computed once, in files that are memory-mapped."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from darkroom.autoencoder.statistics import LatentStatistics, LatentSums
from darkroom.core.errors import DataError, SpecError
from darkroom.core.hashes import text_hash
from darkroom.core.parallel import on_first, world_size
from darkroom.core.pictures import from_bytes
from darkroom.core.record import known_json, writable_folder, write_json
from darkroom.core.seeds import normal
from darkroom.core.shapes import Images, Latent
from darkroom.core.shards import Shards
from darkroom.data.examples import Source
from darkroom.data.loader import still_batches
from darkroom.data.transforms import PLAIN, TransformSpec, Views

Encode = Callable[[Images], tuple[Latent, Latent | None]]
Stored = Float[Tensor, "_n v c h w"]
INDEX: Final = "index.json"
BYTES, PICTURES = 2**28, 2**14  # of a file at most: what a process holds while it encodes, and loses when it is killed
_VERSION: Final = "2"
_OLD: Final = "latents.safetensors"  # all latents in one file, as version 1 had them
_SUMMED: Final = 1024  # pictures small enough to hold in float64


@final
@dataclass(frozen=True, eq=False)
class LatentTable:
    """Posterior moments of n pictures in the first stage's own units, in parts of equal size but for the last.

    mean, logvar: (n, v, c, h, w) each part, with each view in the order of `views`; without logvar the first stage is
    deterministic · remade: files that were damaged, and so were made anew.
    """

    mean: Sequence[Stored]
    logvar: Sequence[Stored] | None
    key: str
    views: Views = PLAIN
    remade: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if (known := self.mean[0].shape[1]) != len(self.views.each):
            raise DataError(f"latents of {known} views came where {len(self.views.each)} were asked for")

    def __len__(self) -> int:
        return sum(map(len, self.mean))

    def sample(self, rows: Sequence[int], indices: Sequence[int], *, seed: int, scale: Tensor | float = 1.0) -> Latent:
        """Latents (b, c, h, w) float32 times `scale`, one posterior draw and view per sample index."""
        views = self.views.drawn(indices, seed=seed)
        latents = _taken(self.mean, rows, views)
        if self.logvar is not None:
            noise = normal(latents.shape[1:], seed=seed, indices=indices, purpose="posterior")
            latents = latents + (0.5 * _taken(self.logvar, rows, views)).exp() * noise
        return latents * scale

    @property
    def groups(self) -> tuple[Sequence[int], ...]:
        """The rows of each shape: all of them."""
        return (range(len(self)),)

    def statistics(self) -> LatentStatistics:
        """Of posterior draws, over all views of all pictures."""
        return _statistics([self])


def _taken(parts: Sequence[Stored], rows: Sequence[int], views: Sequence[int]) -> Latent:
    """The rows in their views, as a float32 copy; nothing else is read."""
    size = len(parts[0])
    return torch.stack([parts[row // size][row % size, view] for row, view in zip(rows, views, strict=True)]).float()


@final
@dataclass(frozen=True)
class LatentTables:
    """The tables of pictures of several shapes, as one. groups: the rows of the source that each has, in order."""

    tables: tuple[LatentTable, ...]
    groups: tuple[Sequence[int], ...]

    @cached_property
    def _places(self) -> Int[np.ndarray, "_n 2"]:
        """Of each row the number of its table, and its place there."""
        found = np.empty((len(self), 2), np.int64)
        for number, rows in enumerate(self.groups):
            found[np.asarray(rows)] = np.stack([np.full(len(rows), number), np.arange(len(rows))], axis=1)
        return found

    def __len__(self) -> int:
        return sum(map(len, self.tables))

    @property
    def key(self) -> str:
        """Of all tables."""
        return " ".join(table.key for table in self.tables)

    @property
    def remade(self) -> Sequence[Path]:
        """Files that were damaged, and so were made anew."""
        return [path for table in self.tables for path in table.remade]

    def sample(self, rows: Sequence[int], indices: Sequence[int], *, seed: int, scale: Tensor | float = 1.0) -> Latent:
        """As `LatentTable.sample`, of rows of one shape."""
        numbers, places = self._places[list(rows)].T.tolist()
        (number,) = set(numbers)
        return self.tables[number].sample(places, indices, seed=seed, scale=scale)

    def statistics(self) -> LatentStatistics:
        """Of posterior draws, over all views of all pictures."""
        return _statistics(self.tables)


AnyLatents = LatentTable | LatentTables


def _statistics(tables: Sequence[LatentTable]) -> LatentStatistics:
    sums = LatentSums()
    for table in tables:
        for view in range(len(table.views.each)):
            for start in range(0, len(table), _SUMMED):
                rows = range(start, min(start + _SUMMED, len(table)))
                mean, logvar = (each and _taken(each, rows, [view] * len(rows)) for each in (table.mean, table.logvar))
                sums.add(mean, logvar)
    return sums.statistics().model_copy(update={"pictures": sum(map(len, tables))})


def cache_key(first_stage: str, *, source: Source, spec: TransformSpec) -> str:
    """A hash of what the table depends on. first_stage: a hash of its weights and spec."""
    facts = json.dumps([_VERSION, first_stage, source.fingerprint(), spec.plain()], sort_keys=True)
    return text_hash(facts)


def cache_latents(
    encode: Encode,
    source: Source,
    *,
    spec: TransformSpec,
    batch_size: int,
    folder: Path,
    key: str,
    stale: Literal["recompute", "refuse"] = "refuse",
    dtype: torch.dtype = torch.float16,
    progress: Callable[[int, int], None] | None = None,
) -> LatentTable:
    """The table of a source, mapped from files in `folder`; those that are missing or damaged are made first.

    encode: images (b, c, h, w) in [-1, 1] to (mean, logvar or None) · stale: what to do with files of another key ·
    dtype: float16 or float32 on disk · progress: called with (pictures done, pictures).
    `SpecError` for a transform that differs from sample to sample by more than the view. Files come one by one, in the
    batches that one process would encode, and several processes share them: what was interrupted goes on.
    """
    if spec.random:
        raise SpecError("latents of random crops or scales cannot be cached; use crop: centre without scale")
    coder = _Coder(encode, source, spec, batch_size, dtype, progress)
    shards = on_first(lambda: _place(coder, writable_folder(folder), key=key, stale=stale))
    remade = shards.fill(coder.moments)
    parts = [shards.read(number) for number in range(len(shards))]
    logvar = [part["logvar"] for part in parts] if "logvar" in parts[0] else None
    return LatentTable([part["mean"] for part in parts], logvar, key, spec.views, remade)


@final
@dataclass(frozen=True)
class _Coder:
    """Encodes the pictures of a source into files."""

    encode: Encode
    source: Source
    spec: TransformSpec
    batch: int
    dtype: torch.dtype
    progress: Callable[[int, int], None] | None

    def moments(self, rows: range) -> dict[str, Stored]:
        """Of these pictures, in all views."""
        found: dict[str, list[Tensor]] = {}
        for batch in still_batches(self.source, self.spec, batch_size=self.batch, rows=rows):
            for name, values in self._of(from_bytes(batch.images)).items():
                found.setdefault(name, []).append(values)
            if not found["mean"][-1].isfinite().all():
                raise DataError(
                    f"{self.source.name}: the first stage answers non-finite latents in rows {batch.rows[:3]}..."
                )
            if self.progress is not None:  # as if the other processes were as far in their files
                done = rows.start + (batch.rows[-1] + 1 - rows.start) * world_size()
                self.progress(min(done, len(self.source)), len(self.source))
        return {name: torch.cat(values) for name, values in found.items()}

    @torch.no_grad()
    def _of(self, images: Images) -> dict[str, Stored]:
        mean, logvar = zip(*(self.encode(view.of(images)) for view in self.spec.views.each), strict=True)
        kinds = {"mean": mean} if logvar[0] is None else {"mean": mean, "logvar": logvar}
        return {name: torch.stack([each.to("cpu", self.dtype) for each in views], 1) for name, views in kinds.items()}

    def pictures_a_file(self) -> int:
        """Whole batches, few enough for a file and for each process to have some; one picture is encoded to know."""
        (images,) = (from_bytes(part.images) for part in still_batches(self.source, self.spec, batch_size=1, rows=[0]))
        each = sum(values.nbytes for values in self._of(images).values())
        share = -(-len(self.source) // (self.batch * world_size()))
        return self.batch * max(1, min(BYTES // each // self.batch, PICTURES // self.batch, share))


def _place(coder: _Coder, folder: Path, *, key: str, stale: Literal["recompute", "refuse"]) -> Shards:
    """Where the files lie, by the index of those that are there; without one that fits, nothing is there."""
    count, path = len(coder.source), folder / INDEX
    made = {"format": _VERSION, "key": key, "pictures": count, "views": len(coder.spec.views.each)}
    made["type"] = str(coder.dtype).removeprefix("torch.")
    match known_json(path):
        case {"together": int(together), **found} if found == made:
            return Shards(folder, count, together)
        case {"key": found} if found != key and stale == "refuse":
            raise DataError(f"{folder}: made by another first stage, data set or transform; remove it to recompute")
        case _:
            pass
    for each in [path, folder / _OLD, *folder.glob(f"{'[0-9]' * 6}.safetensors")]:  # the index first
        each.unlink(missing_ok=True)
    together = coder.pictures_a_file()
    write_json(path, {**made, "together": together})
    return Shards(folder, count, together)

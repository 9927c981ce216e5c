"""The first stage's answers for every training picture, computed once: posterior moments in one file."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, cast, final

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from darkroom.autoencoder.statistics import LatentStatistics, LatentSums
from darkroom.core.errors import DataError, SpecError
from darkroom.core.parallel import gathered, on_first, rank, world_size
from darkroom.core.pictures import from_bytes
from darkroom.core.record import atomic, writable_folder
from darkroom.core.seeds import normal
from darkroom.core.shapes import Images, Latent
from darkroom.data.examples import Source
from darkroom.data.loader import still_batches
from darkroom.data.transforms import PLAIN, TransformSpec, Views

Encode = Callable[[Images], tuple[Latent, Latent | None]]
Stored = Float[Tensor, "v n c h w"]
FILE: Final = "latents.safetensors"
_VERSION: Final = "1"
_PART: Final = 1024  # pictures small enough to hold in float64


@final
@dataclass(frozen=True)
class LatentTable:
    """Posterior moments of n pictures in the first stage's own units.

    mean, logvar: (v, n, c, h, w), of each view in the order of `views`; without logvar the first stage is
    deterministic.
    """

    mean: Stored
    logvar: Stored | None
    key: str
    views: Views = PLAIN

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.views.each):
            raise DataError(f"latents of {len(self.mean)} views came where {len(self.views.each)} were asked for")

    def __len__(self) -> int:
        return self.mean.shape[1]

    def sample(self, rows: Sequence[int], indices: Sequence[int], *, seed: int, scale: Tensor | float = 1.0) -> Latent:
        """Latents (b, c, h, w) float32 times `scale`, one posterior draw and view per sample index."""
        at = torch.tensor(self.views.drawn(indices, seed=seed)), torch.tensor(rows, dtype=torch.long)
        latents = self.mean[at].float()
        if self.logvar is not None:
            noise = normal(latents.shape[1:], seed=seed, indices=indices, purpose="posterior")
            latents = latents + (0.5 * self.logvar[at].float()).exp() * noise
        return latents * scale

    @property
    def groups(self) -> tuple[Sequence[int], ...]:
        """The rows of each shape: all of them."""
        return (range(len(self)),)

    def statistics(self) -> LatentStatistics:
        """Of posterior draws, over all views of all pictures."""
        return _statistics([self])


@final
@dataclass(frozen=True)
class LatentTables:
    """The tables of pictures of several shapes, as one. groups: the rows of the source that each has, in order."""

    tables: tuple[LatentTable, ...]
    groups: tuple[Sequence[int], ...]

    @cached_property
    def _places(self) -> dict[int, tuple[int, int]]:
        return {row: (table, place) for table, rows in enumerate(self.groups) for place, row in enumerate(rows)}

    def __len__(self) -> int:
        return sum(map(len, self.tables))

    def sample(self, rows: Sequence[int], indices: Sequence[int], *, seed: int, scale: Tensor | float = 1.0) -> Latent:
        """As `LatentTable.sample`, of rows of one shape."""
        (number,) = {self._places[row][0] for row in rows}
        places = [self._places[row][1] for row in rows]
        return self.tables[number].sample(places, indices, seed=seed, scale=scale)

    def statistics(self) -> LatentStatistics:
        """Of posterior draws, over all views of all pictures."""
        return _statistics(self.tables)


AnyLatents = LatentTable | LatentTables


def _statistics(tables: Sequence[LatentTable]) -> LatentStatistics:
    sums = LatentSums()
    for table in tables:
        for view in range(table.mean.shape[0]):
            for start in range(0, len(table), _PART):
                part = slice(start, start + _PART)
                sums.add(table.mean[view, part], None if table.logvar is None else table.logvar[view, part])
    return sums.statistics().model_copy(update={"pictures": sum(map(len, tables))})


def cache_key(first_stage: str, *, source: Source, spec: TransformSpec) -> str:
    """A hash of what the table depends on. first_stage: a hash of its weights and spec."""
    facts = json.dumps([_VERSION, first_stage, source.fingerprint(), spec.plain()], sort_keys=True)
    return hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()


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
    """The table of a source, read from `folder` when its key fits, else computed and written.

    encode: images (b, c, h, w) in [-1, 1] to (mean, logvar or None) · stale: what to do with a file of
    another key (a damaged one is computed anew) · dtype: float16 or float32 on disk · progress: called with (pictures
    done, pictures).
    `SpecError` for a transform that differs from sample to sample by more than the view. Several processes encode a
    part each, in the batches that one would encode.
    """
    if spec.random:
        raise SpecError("latents of random crops or scales cannot be cached; use crop: centre without scale")
    path = on_first(lambda: writable_folder(folder)) / FILE
    if path.exists():
        found = _read(path)
        if found is not None and found.key == key and found.mean.shape[:2] == (len(spec.views.each), len(source)):
            return LatentTable(found.mean, found.logvar, key, spec.views)
        if found is not None and found.key != key and stale == "refuse":
            raise DataError(f"{path}: made by another first stage, data set or transform; remove it to recompute")
    mean, logvar = _compute(encode, source, spec=spec, batch_size=batch_size, dtype=dtype, progress=progress)
    on_first(lambda: _save(mean, logvar, path=path, key=key))
    return LatentTable(mean, logvar, key, spec.views)


def _save(mean: Stored, logvar: Stored | None, *, path: Path, key: str) -> None:
    tensors = {"mean": mean} | ({} if logvar is None else {"logvar": logvar})
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"format": _VERSION, "key": key})


@final
@dataclass(frozen=True)
class _Found:
    """What a file holds."""

    mean: Stored
    logvar: Stored | None
    key: str


def _read(path: Path) -> _Found | None:
    """The moments in a file, or None when it is damaged."""
    try:
        with cast("Any", safe_open)(path, "pt") as file:
            key = (file.metadata() or {}).get("key", "")
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError):
        return None
    mean = tensors.get("mean")
    if mean is None or mean.ndim != 5:
        return None
    return _Found(mean, tensors.get("logvar"), key)


def _compute(
    encode: Encode,
    source: Source,
    *,
    spec: TransformSpec,
    batch_size: int,
    dtype: torch.dtype,
    progress: Callable[[int, int], None] | None,
) -> tuple[Stored, Stored | None]:
    means: list[Tensor] = []
    logvars: list[Tensor] = []
    rows = _own_rows(len(source), batch_size)
    done = 0
    for batch in still_batches(source, spec, batch_size=batch_size, rows=rows):
        images = from_bytes(batch.images)
        variants = [view.of(images) for view in spec.views.each]
        with torch.no_grad():
            answers = [encode(variant) for variant in variants]
        means.append(_stored([mean for mean, _ in answers], dtype))
        if answers[0][1] is not None:
            logvars.append(_stored([logvar for _, logvar in answers if logvar is not None], dtype))
        if not means[-1].isfinite().all():
            raise DataError(f"{source.name}: the first stage answers non-finite latents in rows {batch.rows[:3]}...")
        done += len(batch.rows)
        if progress is not None:
            progress(done * len(source) // len(rows), len(source))
    return _whole(means, len(source)), _whole(logvars, len(source)) if logvars else None


def _own_rows(count: int, batch_size: int) -> range:
    """The rows that this process encodes, in whole batches; where there are too few of these, each encodes all."""
    batches = -(-count // batch_size)
    if batches < world_size():
        return range(count)
    first, end = (batches * each // world_size() * batch_size for each in (rank(), rank() + 1))
    return range(first, min(count, end))


def _whole(parts: Sequence[Tensor], count: int) -> Stored:
    """Parts (v, n, c, h, w) one after another, and those of other processes, for so many pictures."""
    mine = torch.cat(list(parts), 1)
    return mine if mine.shape[1] == count else gathered(mine.transpose(0, 1)).transpose(0, 1).contiguous()


def _stored(variants: Sequence[Tensor], dtype: torch.dtype) -> Stored:
    return torch.stack([each.detach().to("cpu", dtype) for each in variants]).contiguous()

"""The latents that a run's denoiser trains on and is validated with: encoded once, kept in the run's folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from darkroom.autoencoder.statistics import LatentStatistics
from darkroom.core.compute import Compute
from darkroom.core.hashes import weights_hash
from darkroom.core.parallel import on_first
from darkroom.core.record import known_json, write_json
from darkroom.core.spec import parse
from darkroom.data.aspects import rows_by_shape
from darkroom.data.examples import Source
from darkroom.data.latents import AnyLatents, Encode, LatentTable, LatentTables, cache_key, cache_latents
from darkroom.data.parts import subset
from darkroom.data.sources import Splits
from darkroom.data.transforms import TransformSpec
from darkroom.diffusion.model import LatentDiffusion
from darkroom.recipes.resolve import Resolved, inputs
from darkroom.train.denoiser import Latents

Progress = Callable[[int, int], None]


def cached(
    model: LatentDiffusion,
    splits: Splits,
    *,
    resolved: Resolved,
    transform: TransformSpec,
    folder: Path,
    compute: Compute,
    progress: Progress | None,
) -> Latents:
    """Posterior moments of all pictures, cut from their centre, for a table holds one crop of each; where samples have
    several shapes, each has a table.
    """
    compute.host(model).eval()
    transform = transform.model_copy(update={"crop": "centre", "scale": None})
    unturned = transform.model_copy(update={"turn": False})
    weights = weights_hash(model.first_stage.state_dict().items())
    cache = _Cache(lambda images: _moments(model, images, compute=compute), weights, folder, progress)
    train, test = splits
    return Latents(
        train=cache.of(train, "train", transform=transform),
        train_inputs=inputs(resolved, train, transform=transform),
        test=cache.of(test, "test", transform=unturned),
        test_inputs=inputs(resolved, test, transform=unturned),
    )


def statistics_of(table: AnyLatents, folder: Path) -> LatentStatistics:
    """Those of a table, which is read through for them once; `folder` keeps them."""

    def known() -> LatentStatistics:
        path = folder / "statistics.json"
        match known_json(path):
            case {"key": table.key, "statistics": found}:
                return parse(LatentStatistics, found, where=str(path))
            case _:
                found = table.statistics()
                write_json(path, {"key": table.key, "statistics": found.plain()})
                return found

    return on_first(known)


@final
@dataclass(frozen=True)
class _Cache:
    """Tables in a folder. weights: a hash of the first stage that encodes."""

    encode: Encode
    weights: str
    folder: Path
    progress: Progress | None

    def of(self, source: Source, name: str, *, transform: TransformSpec) -> AnyLatents:
        """The table of a source, or those of its shapes."""
        if transform.shapes is None:
            return self._table(source, self.folder / name, transform=transform, progress=self.progress)
        groups, done, tables = rows_by_shape(source, transform), 0, list[LatentTable]()
        for (height, width), rows in groups.items():
            place, told = self.folder / name / f"{height}x{width}", _further(self.progress, done, len(source))
            alike = transform.only((height, width))
            tables.append(self._table(subset(source, rows), place, transform=alike, progress=told))
            done += len(rows)
        return LatentTables(tuple(tables), tuple(groups.values()))

    def _table(
        self, source: Source, place: Path, *, transform: TransformSpec, progress: Progress | None
    ) -> LatentTable:
        key = cache_key(self.weights, source=source, spec=transform)
        return cache_latents(
            self.encode, source, spec=transform, batch_size=64, folder=place, key=key, progress=progress
        )


def _further(progress: Progress | None, done: int, of: int) -> Progress | None:
    """Progress that goes on where it stands, in a larger whole."""
    return None if progress is None else lambda more, _: progress(done + more, of)


@torch.no_grad()
def _moments(model: LatentDiffusion, images: Tensor, *, compute: Compute) -> tuple[Tensor, Tensor | None]:
    with compute.autocast():
        mean, log_variance = model.first_stage.moments(compute.place(images))
    return mean.float().cpu(), None if log_variance is None else log_variance.float().cpu()

"""The latents that a run's denoiser trains on and is validated with: encoded once, kept in the run's folder."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from darkroom.core.compute import Compute
from darkroom.core.hashes import weights_hash
from darkroom.data.aspects import rows_by_shape
from darkroom.data.examples import Source
from darkroom.data.latents import AnyLatents, LatentTable, LatentTables, cache_key, cache_latents
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

    def table(source: Source, place: Path, transform: TransformSpec, progress: Progress | None) -> LatentTable:
        return cache_latents(
            lambda images: _moments(model, images, compute=compute),
            source,
            spec=transform,
            batch_size=64,
            folder=place,
            key=cache_key(weights, source=source, spec=transform),
            progress=progress,
        )

    def tables(source: Source, name: str, transform: TransformSpec) -> AnyLatents:
        if transform.shapes is None:
            return table(source, folder / name, transform, progress)
        found: list[LatentTable] = []
        groups, done = rows_by_shape(source, transform), 0
        for (height, width), rows in groups.items():
            place, told = folder / name / f"{height}x{width}", _further(progress, done, len(source))
            found.append(table(subset(source, rows), place, transform.only((height, width)), told))
            done += len(rows)
        return LatentTables(tuple(found), tuple(groups.values()))

    train, test = splits
    return Latents(
        train=tables(train, "train", transform),
        train_inputs=inputs(resolved, train, transform=transform),
        test=tables(test, "test", unturned),
        test_inputs=inputs(resolved, test, transform=unturned),
    )


def _further(progress: Progress | None, done: int, of: int) -> Progress | None:
    """Progress that goes on where it stands, in a larger whole."""
    return None if progress is None else lambda more, _: progress(done + more, of)


@torch.no_grad()
def _moments(model: LatentDiffusion, images: Tensor, *, compute: Compute) -> tuple[Tensor, Tensor | None]:
    with compute.autocast():
        mean, log_variance = model.first_stage.moments(compute.place(images))
    return mean.float().cpu(), None if log_variance is None else log_variance.float().cpu()

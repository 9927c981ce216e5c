"""The latents that a run's denoiser trains on and is validated with: encoded once, kept in the run's folder."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from darkroom.core.compute import Compute
from darkroom.core.hashes import weights_hash
from darkroom.data.examples import Source
from darkroom.data.latents import LatentTable, cache_key, cache_latents
from darkroom.data.sources import Splits
from darkroom.data.transforms import TransformSpec
from darkroom.diffusion.model import LatentDiffusion
from darkroom.recipes.resolve import Resolved, inputs
from darkroom.train.denoiser import Latents


def cached(
    model: LatentDiffusion,
    splits: Splits,
    *,
    resolved: Resolved,
    transform: TransformSpec,
    folder: Path,
    compute: Compute,
    progress: Callable[[int, int], None] | None,
) -> Latents:
    """Posterior moments of all pictures, cut from their centre, for a table holds one crop of each."""
    compute.host(model).eval()
    transform = transform.model_copy(update={"crop": "centre", "scale": None})
    unturned = transform.model_copy(update={"turn": False})

    def table(source: Source, name: str, transform: TransformSpec) -> LatentTable:
        return cache_latents(
            lambda images: _moments(model, images, compute=compute),
            source,
            spec=transform,
            batch_size=64,
            folder=folder / name,
            key=cache_key(weights_hash(model.first_stage.state_dict().items()), source=source, spec=transform),
            progress=progress,
        )

    train, test = splits
    return Latents(
        train=table(train, "train", transform),
        train_inputs=inputs(resolved, train, transform=transform),
        test=table(test, "test", unturned),
        test_inputs=inputs(resolved, test, transform=unturned),
    )


@torch.no_grad()
def _moments(model: LatentDiffusion, images: Tensor, *, compute: Compute) -> tuple[Tensor, Tensor | None]:
    with compute.autocast():
        mean, log_variance = model.first_stage.moments(compute.place(images))
    return mean.float().cpu(), None if log_variance is None else log_variance.float().cpu()

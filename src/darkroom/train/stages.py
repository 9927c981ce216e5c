"""What each stage minimises on a batch; every draw is a function of (seed, sample index), made on the CPU."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from darkroom.autoencoder.losses import FirstStageLossSpec, first_stage_loss
from darkroom.autoencoder.model import Autoencoder
from darkroom.core import seeds
from darkroom.core.compute import Compute
from darkroom.core.pictures import from_bytes
from darkroom.core.shapes import Choice, Latent, Time
from darkroom.data.latents import LatentTable
from darkroom.data.loader import Batch, Order
from darkroom.diffusion.model import LatentDiffusion
from darkroom.process.schedule import Schedule


@final
@dataclass(frozen=True)
class FirstStageObjective:
    """The losses of a first stage on a batch of pictures: `loss`, `pixel`, `regularizer`."""

    model: Autoencoder
    loss: FirstStageLossSpec
    compute: Compute
    seed: int

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        images = self.compute.place(from_bytes(batch.images))
        height, width = images.shape[-2:]
        noise = seeds.normal(
            self.model.latent_shape((height, width)),
            seed=self.seed,
            indices=batch.indices,
            purpose="posterior",
        )
        made = self.model.reconstruct(images, noise=self.compute.place(noise))
        terms = first_stage_loss(images, made, spec=self.loss, model=self.model.spec)
        return {
            "loss": terms.total.mean(),
            "pixel": terms.pixel.mean(),
            "regularizer": terms.regularizer.mean(),
        }


@final
@dataclass(frozen=True)
class LatentBatch:
    """Latents in the denoiser's units, what steers them (ids, labels), and the sample indices."""

    latents: Latent
    inputs: Mapping[str, Tensor]
    indices: Sequence[int]


def latent_batches(
    table: LatentTable,
    inputs: Mapping[str, Tensor],
    *,
    scale: float,
    batch_size: int,
    seed: int,
    start: int = 0,
) -> Iterator[LatentBatch]:
    """Endless batches from cached moments, from sample `start` on; `inputs` holds a row per picture."""
    order = Order(len(table), seed=seed)
    while True:
        indices = list(range(start, start + batch_size))
        rows = [order.row(index) for index in indices]
        latents = table.sample(rows, indices, seed=seed, scale=scale)
        yield LatentBatch(latents, {field: values[rows] for field, values in inputs.items()}, indices)
        start += batch_size


@final
@dataclass(frozen=True)
class DenoiserObjective:
    """The diffusion loss on a batch of latents: `loss`."""

    model: LatentDiffusion
    compute: Compute
    seed: int

    def __call__(self, batch: LatentBatch) -> dict[str, Tensor]:
        noise = seeds.normal(batch.latents.shape[1:], seed=self.seed, indices=batch.indices, purpose="diffusion")
        t = draw_times(self.model.schedule, seed=self.seed, indices=batch.indices)
        place = self.compute.place
        loss = self.model.training_loss(
            place(batch.latents),
            t=place(t),
            noise=place(noise),
            inputs={field: place(values) for field, values in batch.inputs.items()},
            dropped={field: place(choice) for field, choice in self._dropped(batch.indices).items()},
        )
        return {"loss": loss.mean()}

    def _dropped(self, indices: Sequence[int]) -> dict[str, Choice]:
        return {
            spec.field: seeds.uniform(seed=self.seed, indices=indices, purpose=f"drop {spec.field}") < spec.drop
            for spec in self.model.spec.conditioners
            if spec.drop > 0
        }


def draw_times(schedule: Schedule, *, seed: int, indices: Sequence[int]) -> Time:
    """A uniform time per sample: an integer 0..T-1, or a number in (0, 1] for a continuous schedule."""
    share = seeds.uniform(seed=seed, indices=indices, purpose="time")
    if schedule.steps is None:
        return ((1 - share) * schedule.noisiest).float()
    return (share * schedule.steps).long()


@torch.no_grad()
def validation_loss(objective: DenoiserObjective, batch: LatentBatch) -> float:
    """The loss on a fixed batch with times spread evenly instead of drawn, nothing dropped; float."""
    model, place = objective.model, objective.compute.place
    schedule, count = model.schedule, len(batch.indices)
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    t = (share * schedule.noisiest).float() if schedule.steps is None else (share * schedule.steps).long()
    noise = seeds.normal(batch.latents.shape[1:], seed=0, indices=batch.indices, purpose="validation")
    with objective.compute.autocast():
        conditions = model.condition({field: place(values) for field, values in batch.inputs.items()})
        loss = model.loss(place(batch.latents), t=place(t), noise=place(noise), conditions=conditions)
    return float(loss.mean())

"""What the denoiser is trained on and minimises: batches of latents, with times, noise and condition dropout drawn.

Every draw is a function of (seed, sample index), made on the CPU.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast, final

import torch
from torch import Tensor

from darkroom.core import seeds
from darkroom.core.compute import Compute
from darkroom.core.parallel import WHOLE, Share
from darkroom.core.shapes import Choice, Latent, PerSample, Time
from darkroom.data.inputs import Inputs
from darkroom.data.latents import AnyLatents
from darkroom.data.order import Order, OrderByGroups, spread
from darkroom.diffusion.denoiser import Network
from darkroom.diffusion.model import LatentDiffusion
from darkroom.network.unet import UNet
from darkroom.nn.dropout import share_dropout
from darkroom.process.objective import TimesSpec, way_to_noise
from darkroom.process.schedule import Schedule
from darkroom.train.optim import TrainSpec


@final
@dataclass(frozen=True)
class LatentBatch:
    """Latents in the denoiser's units, what steers them (ids, labels, maps, pictures), and the sample indices."""

    latents: Latent
    inputs: Mapping[str, Tensor]
    indices: Sequence[int]


def latent_batches(
    table: AnyLatents,
    inputs: Mapping[str, Inputs],
    *,
    scale: Tensor,
    batch_size: int,
    seed: int,
    start: int = 0,
    share: Share = WHOLE,
) -> Iterator[LatentBatch]:
    """Endless batches of latents drawn from cached moments, each of one shape, with what steers them by field.

    start: the number of the first sample · share: the part of every batch that this process takes.
    """
    several = len(table.groups) > 1
    by_shape = OrderByGroups(table.groups, batch_size=batch_size, seed=seed) if several else None
    order = by_shape or Order(len(table), seed=seed)
    while True:
        indices = list(share.taken(range(start, start + batch_size)))
        rows = [order.row(index) for index in indices]
        latents = table.sample(rows, indices, seed=seed, scale=scale)
        yield LatentBatch(latents, _taken(inputs, rows, indices, seed=seed), indices)
        start += batch_size


def still_batches(
    table: AnyLatents, inputs: Mapping[str, Inputs], *, scale: Tensor, count: int, batch_size: int
) -> Iterator[LatentBatch]:
    """Batches for measuring: at most `count` rows, evenly chosen, each of one shape, with the same draws every time."""
    chosen = spread(len(table), most=count)
    for group in table.groups:
        known = [row for row in group if row in chosen]
        for start in range(0, len(known), batch_size):
            rows = known[start : start + batch_size]
            yield LatentBatch(table.sample(rows, rows, seed=0, scale=scale), _taken(inputs, rows, rows, seed=0), rows)


def _taken(
    inputs: Mapping[str, Inputs], rows: Sequence[int], indices: Sequence[int], *, seed: int
) -> dict[str, Tensor]:
    return {field: each.take(rows, indices, seed=seed) for field, each in inputs.items()}


@final
@dataclass(frozen=True)
class NoisyBatch:
    """What a training loss is asked about: clean latents, and the time and noise that were drawn for each of them.

    t: on the CPU, where schedules answer; asked from a GPU, every question would wait for its work · inputs: by field,
    as conditioners read them, already null where condition dropout chose so.
    """

    latents: Latent
    t: Time
    noise: Latent
    inputs: Mapping[str, Tensor]


TrainingLoss: TypeAlias = Callable[[NoisyBatch], PerSample]


@final
@dataclass(frozen=True)
class DenoiserObjective:
    """Draws time, noise and condition dropout for a batch of latents, and asks `loss` about it."""

    model: LatentDiffusion
    compute: Compute
    seed: int
    loss: TrainingLoss

    def pieces(self, batch: LatentBatch, shares: Sequence[Share]) -> Iterator[dict[str, Tensor]]:
        """The loss of each piece of this process's part of a batch; shares: the pieces, of the whole batch."""
        for number, share in enumerate(shares):
            mine = Share(number, len(shares))
            rows = mine.taken(range(len(batch.indices)))
            inputs = {field: values[rows[0] : rows[-1] + 1] for field, values in batch.inputs.items()}
            share_dropout(self.model.network, share)
            yield self(LatentBatch(batch.latents[rows[0] : rows[-1] + 1], inputs, mine.taken(batch.indices)))

    def __call__(self, batch: LatentBatch) -> dict[str, Tensor]:
        return {"loss": self.loss(self._noisy(batch)).mean()}

    def _noisy(self, batch: LatentBatch) -> NoisyBatch:
        model, place, indices = self.model, self.compute.place, batch.indices
        noise = seeds.normal(batch.latents.shape[1:], seed=self.seed, indices=indices, purpose="diffusion")
        t = draw_times(model.schedule, times=model.spec.objective.times, seed=self.seed, indices=indices)
        dropped = {field: place(choice) for field, choice in self._dropped(indices).items()}
        inputs = model.prepared({field: place(values) for field, values in batch.inputs.items()})
        return NoisyBatch(place(batch.latents), t, place(noise), model.conditioning.drop(inputs, dropped))

    def _dropped(self, indices: Sequence[int]) -> dict[str, Choice]:
        return {
            spec.field: seeds.uniform(seed=self.seed, indices=indices, purpose=f"drop {spec.field}") < spec.drop
            for spec in self.model.spec.conditioners
            if spec.drop > 0
        }


def denoiser_objective(model: LatentDiffusion, *, train: TrainSpec, compute: Compute, seed: int) -> DenoiserObjective:
    """The diffusion loss, on a compiled network if the spec says so; the model itself stays as it is."""
    network = as_called(model.network, train=train)

    def loss(batch: NoisyBatch) -> PerSample:
        conditions = model.condition(batch.inputs)
        return model.loss(batch.latents, t=batch.t, noise=batch.noise, conditions=conditions, network=network)

    return DenoiserObjective(model, compute, seed, loss)


def as_called(network: UNet, *, train: TrainSpec) -> Network:
    """The network, or a compiled form of it with the same weights."""
    return cast("Network", torch.compile(network)) if train.compiled else network


def draw_times(schedule: Schedule, *, times: TimesSpec, seed: int, indices: Sequence[int]) -> Time:
    """A time per sample: an integer 0..T-1, or a number in (0, t_max] for a continuous schedule."""
    share = seeds.uniform(seed=seed, indices=indices, purpose="time")
    if schedule.steps is None:
        return (way_to_noise(times, 1 - share) * schedule.noisiest).float()
    return (way_to_noise(times, share) * schedule.steps).long().clamp(max=schedule.steps - 1)


def even_times(model: LatentDiffusion, *, count: int) -> Time:
    """`count` times, evenly from clean data to noise; for a regression all are the noisiest, the only one it knows."""
    schedule = model.schedule
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if model.spec.regresses:
        share = torch.ones_like(share)
    if schedule.steps is None:
        return (share * schedule.noisiest).float()
    return (share * schedule.steps).long().clamp(max=schedule.steps - 1)


def validation_loss(model: LatentDiffusion, batches: Sequence[LatentBatch], *, compute: Compute) -> float:
    """The mean loss on fixed batches, with evenly spread times instead of drawn ones and no condition dropped."""
    return float(torch.cat([_validated(model, batch, compute=compute) for batch in batches]).mean())


@torch.no_grad()
def _validated(model: LatentDiffusion, batch: LatentBatch, *, compute: Compute) -> PerSample:
    place, t = compute.place, even_times(model, count=len(batch.indices))
    noise = seeds.normal(batch.latents.shape[1:], seed=0, indices=batch.indices, purpose="validation")
    with compute.autocast():
        given = {field: place(values) for field, values in batch.inputs.items()}
        conditions = model.condition(model.prepared(given))
        return model.loss(place(batch.latents), t=t, noise=place(noise), conditions=conditions)

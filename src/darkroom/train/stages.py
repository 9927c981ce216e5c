"""What each stage minimises on a batch; every draw is a function of (seed, sample index), made on the CPU."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast, final, runtime_checkable

import torch
from torch import Tensor, nn

from darkroom.autoencoder.adversary import Adversary, adaptive_weight, at_kernel, carry, weight_between
from darkroom.autoencoder.bottleneck import KLSpec
from darkroom.autoencoder.losses import FirstStageLoss, FirstStageLossSpec, first_stage_loss
from darkroom.autoencoder.model import Autoencoder, Reconstruction
from darkroom.autoencoder.revival import Revival
from darkroom.core import seeds
from darkroom.core.compute import Compute
from darkroom.core.parallel import WHOLE, Share
from darkroom.core.pictures import from_bytes
from darkroom.core.shapes import Choice, Images, Latent, PerSample, Time
from darkroom.data.inputs import Inputs
from darkroom.data.latents import AnyLatents
from darkroom.data.loader import Batch
from darkroom.data.order import Order, OrderByGroups, spread
from darkroom.diffusion.denoiser import Network
from darkroom.diffusion.model import LatentDiffusion
from darkroom.network.unet import UNet
from darkroom.nn.dropout import share_dropout
from darkroom.nn.features import PerceptualDistance, perceptual
from darkroom.process.objective import TimesSpec, way_to_noise
from darkroom.process.schedule import Schedule
from darkroom.train.optim import TrainSpec, build_optimizer
from darkroom.train.state import Training


@final
@dataclass(frozen=True)
class FirstStageObjective:
    """The losses of a first stage on a batch of pictures: `loss`, its terms, and what its `opponent` minimises.

    distance: the perceptual term's network · adversary, revival: what else training needs, each with a memory of its
    own that belongs to the run's state.
    """

    model: Autoencoder
    loss: FirstStageLossSpec
    compute: Compute
    seed: int
    distance: PerceptualDistance | None = None
    adversary: Adversary | None = None
    revival: Revival | None = None

    @property
    def beside(self) -> nn.ModuleDict:
        """What belongs to the run's state and not to the model."""
        parts = {"adversary": self.adversary, "revival": self.revival}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a step's whole batch."""
        (values,) = self.pieces(batch, [WHOLE])
        return values

    def pieces(self, batch: Batch, shares: Sequence[Share]) -> Iterator[dict[str, Tensor]]:
        """Those of each piece of this process's part, one after another; shares: of the batch of all processes.

        Whether and how much an adversary plays follows from the whole batch: of several pieces all are looked at first.
        """
        parts = [_piece(batch, number, len(shares)) for number in range(len(shares))]
        play = self._play(parts, shares) if self.adversary is not None and len(parts) > 1 else None
        for number, (part, share) in enumerate(zip(parts, shares, strict=True)):
            share_dropout(self.model, share)
            images, made = self._reconstructed(part)
            values = self._losses(images, made, play)
            if self.revival is not None and made.latents is not None and made.indices is not None:
                self.revival.watch(made.latents, made.indices, of=len(parts))
                if number == len(parts) - 1:
                    values |= {"perplexity": self.revival.perplexity, "revived": self.revival.revived.float()}
            yield values

    def _reconstructed(self, batch: Batch) -> tuple[Images, Reconstruction]:
        images = self.compute.place(from_bytes(batch.images))
        return images, self.model.reconstruct(images, noise=self._noise(batch))

    def _losses(self, images: Images, made: Reconstruction, play: "_Play | None") -> dict[str, Tensor]:
        leaf = made if self.adversary is None else replace(made, images=made.images.detach().requires_grad_())
        terms = first_stage_loss(images, leaf, spec=self.loss, model=self.model.spec, distance=self.distance)
        values = {"pixel": terms.pixel.mean(), "regularizer": terms.regularizer.mean()}
        if terms.perceptual is not None:
            values["perceptual"] = terms.perceptual.mean()
        if self.adversary is None:
            return {"loss": terms.total.mean()} | values
        against = self._against(self.adversary, images, made=made.images, leaf=leaf.images, terms=terms, play=play)
        return against | values

    def _play(self, parts: Sequence[Batch], shares: Sequence[Share]) -> "_Play":
        """The adversary's part in a step of several pieces, which all go through once more for it."""
        assert self.adversary is not None
        if self.adversary.waits:
            return _Play(self.adversary.watch(torch.zeros(())))  # the loss does not matter
        looks = [self._look(part, share) for part, share in zip(parts, shares, strict=True)]
        reconstructions, pulls, pushes = ([torch.as_tensor(each[at]) for each in looks] for at in range(3))
        begun = self.adversary.watch(torch.stack(reconstructions).mean())
        return _Play(begun, weight_between(torch.stack(pulls).mean(0), torch.stack(pushes).mean(0)))

    def _look(self, batch: Batch, share: Share) -> tuple[Tensor, Tensor, Tensor]:
        """A piece's reconstruction loss, and its two gradients at the decoder's last kernel."""
        assert self.adversary is not None
        share_dropout(self.model, share)
        with self.compute.same_draws():
            images, made = self._reconstructed(batch)
        leaf = replace(made, images=made.images.detach().requires_grad_())
        terms = first_stage_loss(images, leaf, spec=self.loss, model=self.model.spec, distance=self.distance)
        reconstruction = terms.reconstruction.mean()
        (pull,) = torch.autograd.grad(reconstruction, leaf.images)
        (push,) = torch.autograd.grad(self.adversary.scores(images, leaf.images)[0], leaf.images)
        return reconstruction.detach(), *at_kernel(pull, push, made=made.images, last_layer=self.model.last_layer)

    def after(self, training: Training) -> None:
        """Dead codes are revived, their averages and moments with them."""
        codebook = self.model.codebook
        if self.revival is None or codebook is None:
            return
        rows, codes = self.revival.revive(codebook.codes.weight), codebook.codes.weight
        if len(rows) and training.ema is not None:
            training.ema.forget(codes, rows)
        if len(rows) and training.averages is not None:
            training.averages.forget(codes, rows)
        for name, moment in training.optimizer.state.get(codes, {}).items():
            if len(rows) and name != "step":
                moment[rows] = 0

    def _noise(self, batch: Batch) -> Tensor | None:
        """Of the posterior, a draw for each sample of the run; None where there is none."""
        if not isinstance(self.model.spec.bottleneck, KLSpec):
            return None
        height, width = batch.images.shape[-2:]
        shape = self.model.latent_shape((height, width))
        return self.compute.place(seeds.normal(shape, seed=self.seed, indices=batch.indices, purpose="posterior"))

    def _against(
        self,
        adversary: Adversary,
        images: Tensor,
        *,
        made: Tensor,
        leaf: Tensor,
        terms: FirstStageLoss,
        play: "_Play | None",
    ) -> dict[str, Tensor]:
        """`loss` with the adversary's part once it has begun, and then its own.

        Every gradient at the pictures is worked out once, on a leaf, and then carried into the first stage: neither
        side can leave anything in the other. play: known already, of a batch in several pieces.
        """
        reconstruction = terms.reconstruction.mean()
        (pull,) = torch.autograd.grad(reconstruction, leaf)
        if not (adversary.watch(reconstruction) if play is None else play.begun):
            return {"loss": carry(reconstruction, made, gradient=pull) + terms.penalty.mean()}
        fooled, judged = adversary.scores(images, leaf)
        (push,) = torch.autograd.grad(fooled, leaf, retain_graph=True)
        weight = None if play is None else play.weight
        if weight is None:
            weight = adaptive_weight(pull, push, made=made, last_layer=self.model.last_layer)
        share = adversary.spec.weight * weight
        against = carry(reconstruction + share * fooled, made, gradient=pull + share * push)
        return {
            "loss": against + terms.penalty.mean(),
            "fooled": fooled,
            "adaptive_weight": weight,
            "opponent": judged,
        }


@final
@dataclass(frozen=True)
class _Play:
    """An adversary's part in a step: whether it has begun, and what it weighs."""

    begun: bool
    weight: Tensor | None = None


def _piece(batch: Batch, number: int, of: int) -> Batch:
    """One of `of` equal parts of a batch; objectives read pictures and indices alone."""
    share = Share(number, of)
    count = len(batch.rows) // of
    images = batch.images[number * count : (number + 1) * count]
    return Batch(images, list(share.taken(batch.rows)), list(share.taken(batch.indices)))


def first_stage_objective(
    model: Autoencoder,
    loss: FirstStageLossSpec,
    *,
    train: TrainSpec,
    compute: Compute,
    seed: int,
) -> FirstStageObjective:
    """The objective with all that its terms need; fresh weights of an adversary are a function of the seed."""
    adversary = revival = None
    if loss.adversary is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.stream(seed, 0, purpose="adversary"))
            adversary = Adversary(loss.adversary, image_channels=model.spec.image_channels, steps=train.steps)
    codebook = model.codebook
    if codebook is not None and codebook.codes.weight.requires_grad and loss.revival is not None:
        revival = Revival(loss.revival, codes=codebook.spec.codes, steps=train.steps, seed=seed)
    return FirstStageObjective(
        model,
        loss,
        compute,
        seed,
        distance=compute.host(perceptual(loss.perceptual)) if loss.perceptual_weight else None,
        adversary=None if adversary is None else compute.host(adversary),
        revival=None if revival is None else compute.host(revival),
    )


def opponent_of(objective: FirstStageObjective, train: TrainSpec) -> torch.optim.Optimizer | None:
    """The optimiser of the objective's adversary, with the moments' decay that Isola et al. train by."""
    adversary, spec = objective.adversary, objective.loss.adversary
    if adversary is None or spec is None:
        return None
    share = 1.0 if spec.learning_rate is None else spec.learning_rate / train.learning_rate
    plain = train.model_copy(update={"weight_decay": 0.0, "optimizer": "adamw"})
    return build_optimizer(list(adversary.parameters()), plain, betas=(0.5, 0.9), share=share)


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
    """Endless batches from cached moments, from sample `start` on, and what steers them by field; each of one shape.

    share: the part of every batch that is answered.
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
    """At most `count` rows, evenly chosen, with draws that never change, in batches of one shape each."""
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


@runtime_checkable
class TrainingLoss(Protocol):
    """A loss of each sample at its time and noise; each field may be dropped on its own."""

    def __call__(
        self,
        latents: Latent,
        *,
        t: Time,
        noise: Latent,
        inputs: Mapping[str, Tensor],
        dropped: Mapping[str, Choice],
    ) -> PerSample: ...


@final
@dataclass(frozen=True)
class DenoiserObjective:
    """What a denoiser minimises on a batch of latents: `loss`, by which each sample is judged."""

    model: LatentDiffusion
    compute: Compute
    seed: int
    judge: TrainingLoss

    def pieces(self, batch: LatentBatch, shares: Sequence[Share]) -> Iterator[dict[str, Tensor]]:
        """The losses of each piece of this process's part; shares: of the batch of all processes."""
        for number, share in enumerate(shares):
            mine = Share(number, len(shares))
            rows = mine.taken(range(len(batch.indices)))
            inputs = {field: values[rows[0] : rows[-1] + 1] for field, values in batch.inputs.items()}
            share_dropout(self.model.network, share)
            yield self(LatentBatch(batch.latents[rows[0] : rows[-1] + 1], inputs, mine.taken(batch.indices)))

    def __call__(self, batch: LatentBatch) -> dict[str, Tensor]:
        noise = seeds.normal(batch.latents.shape[1:], seed=self.seed, indices=batch.indices, purpose="diffusion")
        t = draw_times(
            self.model.schedule, times=self.model.spec.objective.times, seed=self.seed, indices=batch.indices
        )
        place = self.compute.place
        loss = self.judge(
            place(batch.latents),
            t=t,  # stays here, where schedules are asked: from a device every question waits for all its work
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


def denoiser_objective(model: LatentDiffusion, *, train: TrainSpec, compute: Compute, seed: int) -> DenoiserObjective:
    """The diffusion loss, on a compiled network if the spec says so; what else the model does stays as it is."""
    network = as_called(model.network, train=train)
    return DenoiserObjective(model, compute, seed, functools.partial(model.training_loss, network=network))


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
    """So many times from clean data to noise; of a model that regresses the noisiest, for others are never trained."""
    schedule = model.schedule
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if model.spec.regresses:
        share = torch.ones_like(share)
    if schedule.steps is None:
        return (share * schedule.noisiest).float()
    return (share * schedule.steps).long().clamp(max=schedule.steps - 1)


def validation_loss(model: LatentDiffusion, batches: Sequence[LatentBatch], *, compute: Compute) -> float:
    """The mean loss on fixed batches with times spread evenly instead of drawn, nothing dropped; float."""
    return float(torch.cat([_validated(model, batch, compute=compute) for batch in batches]).mean())


@torch.no_grad()
def _validated(model: LatentDiffusion, batch: LatentBatch, *, compute: Compute) -> PerSample:
    place, t = compute.place, even_times(model, count=len(batch.indices))
    noise = seeds.normal(batch.latents.shape[1:], seed=0, indices=batch.indices, purpose="validation")
    with compute.autocast():
        given = {field: place(values) for field, values in batch.inputs.items()}
        conditions = model.condition(model.prepared(given))
        return model.loss(place(batch.latents), t=t, noise=place(noise), conditions=conditions)

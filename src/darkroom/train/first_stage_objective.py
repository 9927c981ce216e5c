"""What a first stage minimises on a batch of pictures (paper, appendix G), and its adversary's part in that.

Every draw is a function of (seed, sample index), made on the CPU.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

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
from darkroom.core.shapes import Images
from darkroom.data.loader import Batch
from darkroom.nn.dropout import share_dropout
from darkroom.nn.features import PerceptualDistance, perceptual
from darkroom.train.optim import TrainSpec, build_optimizer
from darkroom.train.state import Training


@final
@dataclass(frozen=True)
class FirstStageObjective:
    """The losses of a first stage on a batch: `loss`, its terms for the log, and `opponent`, the discriminator's loss.

    distance: the network of the perceptual term · adversary, revival: optional parts with a memory of their own, which
    is saved with the run's state.
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
        """The modules that are saved with the run's state and are no part of the model."""
        parts = {"adversary": self.adversary, "revival": self.revival}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a step's whole batch."""
        (values,) = self.pieces(batch, [WHOLE])
        return values

    def pieces(self, batch: Batch, shares: Sequence[Share]) -> Iterator[dict[str, Tensor]]:
        """The losses of each piece of this process's part of a batch; shares: the pieces, of the whole batch.

        Whether the adversary has begun, and its weight, follow from the whole batch. With several pieces these two are
        worked out first, in a pass of their own over all of them.
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
        """The adversary's part in a step of several pieces: a pass over all of them that only measures."""
        assert self.adversary is not None
        if self.adversary.waits:
            return _Play(self.adversary.watch(torch.zeros(())))  # before its first step the loss decides nothing
        looks = [self._look(part, share) for part, share in zip(parts, shares, strict=True)]
        reconstructions, pulls, pushes = ([torch.as_tensor(each[at]) for each in looks] for at in range(3))
        begun = self.adversary.watch(torch.stack(reconstructions).mean())
        return _Play(begun, weight_between(torch.stack(pulls).mean(0), torch.stack(pushes).mean(0)))

    def _look(self, batch: Batch, share: Share) -> tuple[Tensor, Tensor, Tensor]:
        """Of one piece: the reconstruction loss, and its gradient and the adversary's at the decoder's last kernel."""
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
        """After the optimiser's step: move dead codes, and forget the averages and moments of the rows that moved."""
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
        """The noise that draws the posterior, a function of the sample's index; None without a KL bottleneck."""
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
        """`loss` with the adversary's part in it once it has begun; then also the discriminator's own loss.

        made: the reconstructions · leaf: the same values, cut off from the first stage. All gradients at the pictures
        are worked out once, on the leaf, and then carried into `made`: so neither player leaves a gradient in the
        other, and features and discriminator are not differentiated again for the adaptive weight. play: for a batch
        in several pieces, what was worked out for the whole.
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
    """The adversary's part in a step: whether it has begun, and its adaptive weight."""

    begun: bool
    weight: Tensor | None = None


def _piece(batch: Batch, number: int, of: int) -> Batch:
    """Piece `number` of `of` equal pieces of a batch."""
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
    """The objective with the modules that its terms need; an adversary's first weights are a function of the seed."""
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
    """The discriminator's optimiser, with the betas of Isola et al. 2017; None without an adversary."""
    adversary, spec = objective.adversary, objective.loss.adversary
    if adversary is None or spec is None:
        return None
    share = 1.0 if spec.learning_rate is None else spec.learning_rate / train.learning_rate
    plain = train.model_copy(update={"weight_decay": 0.0, "optimizer": "adamw"})
    return build_optimizer(list(adversary.parameters()), plain, betas=(0.5, 0.9), share=share)

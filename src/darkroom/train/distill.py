"""Few-step distillation: a denoiser learns to say at once where the guided paths of another, its teacher, end."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from darkroom.conditioning.conditioner import Conditioning
from darkroom.core import seeds
from darkroom.core.compute import Compute
from darkroom.core.conditions import Conditions
from darkroom.core.shapes import Choice, Latent, PerSample, Time
from darkroom.core.spec import Spec
from darkroom.diffusion.consistency import Answer, consistency_loss, path_end
from darkroom.diffusion.denoiser import Denoise, Denoiser, Network
from darkroom.diffusion.guidance import Guided
from darkroom.diffusion.model import LatentDiffusion
from darkroom.diffusion.residual import with_known
from darkroom.network.unet import UNet
from darkroom.process.schedule import add_noise
from darkroom.process.times import earlier
from darkroom.train.optim import TrainSpec
from darkroom.train.stages import LatentBatch, as_called, even_times
from darkroom.train.state import Training

FOLLOWED: Final = 64  # held-out pictures whose paths are walked
PATH: Final = 16  # steps of such a path
Distance = Annotated[float, Field(gt=0, le=1)]


@final
class DistillSpec(Spec):
    """How a model of few steps is made of its teacher (`diffusion.consistency`).

    guidance: scale of the teacher's guidance; the student knows it by heart and is sampled without · distance: between
    the two times whose answers shall agree, at the first and at the last step of training, as shares of the way from
    noise to clean data; it shrinks evenly in its logarithm, for long ones carry far soon and short ones are exact
    (Geng et al. 2024) · follow: decay of the student's average, which answers at the earlier time (0: as the student is
    now) · width: of the pseudo-Huber loss, in latents' units, which are deviations.
    """

    guidance: float = 1.0
    distance: tuple[Distance, Distance] = (0.25, 0.025)
    follow: float = Field(default=0.95, ge=0, lt=1)
    width: float = Field(default=1e-3, gt=0)

    @model_validator(mode="after")
    def _shrinks(self) -> "DistillSpec":
        if self.distance[0] < self.distance[1]:
            raise ValueError(
                f"distance shrinks in training, from {self.distance[0]:g} it cannot to {self.distance[1]:g}"
            )
        return self


@final
class Still(nn.Module):
    """Network and conditioners of a model which nothing trains."""

    def __init__(self, network: UNet, conditioning: Conditioning) -> None:
        super().__init__()
        self.network, self.conditioning = network, conditioning
        self.requires_grad_(False).eval()


@final
@dataclass(frozen=True, eq=False)
class Lesson:
    """What a student learns: from whom, and how."""

    teacher: Still
    spec: DistillSpec


@final
@dataclass(frozen=True, eq=False)
class Voice:
    """One of those that are asked for x0: its conditioners, and its network in whatever form."""

    conditioning: Conditioning
    network: Network
    guidance: float = 1.0

    def told(self, inputs: Mapping[str, Tensor], *, model: LatentDiffusion) -> tuple[Conditions, Answer]:
        """Its own conditions of prepared inputs, and what it answers under them. model: says what answers mean."""
        conditions = self.conditioning(inputs)
        denoise: Denoise = Denoiser(model.whole(self.network), model.schedule, model.prediction)
        if self.guidance != 1:
            denoise = Guided(denoise, null=self.conditioning.null(conditions), scale=self.guidance)

        def answer(x_t: Latent, t: Time) -> Latent:
            return denoise(x_t, t, conditions)

        return conditions, answer


@final
@dataclass(frozen=True, eq=False)
class Distillation:
    """The consistency loss of each sample (`train.stages.TrainingLoss`), and the average that it is measured with.

    average: the student's, which `follower` speaks for; it belongs to the run's state · done: the share of training
    that is behind.
    """

    model: LatentDiffusion
    spec: DistillSpec
    student: Voice
    teacher: Voice
    follower: Voice
    average: Still
    done: Callable[[], float]

    @property
    def distance(self) -> float:
        """Between the two times, now."""
        first, last = self.spec.distance
        return first * (last / first) ** self.done()

    @property
    def beside(self) -> nn.ModuleDict:
        """What belongs to the run's state and not to the model."""
        return nn.ModuleDict({"follower": self.average})

    def __call__(
        self,
        latents: Latent,
        *,
        t: Time,
        noise: Latent,
        inputs: Mapping[str, Tensor],
        dropped: Mapping[str, Choice],
    ) -> PerSample:
        """Fields are dropped for all three alike, and where nothing is left there is nothing to guide to."""
        model = self.model
        given = model.conditioning.drop(model.prepared(inputs), dropped)
        conditions, student = self.student.told(given, model=model)
        with torch.no_grad():
            (_, teacher), (_, follower) = (each.told(given, model=model) for each in (self.teacher, self.follower))
        return consistency_loss(
            student,
            with_known(latents, conditions),
            t=t,
            to=earlier(model.schedule, t, distance=self.distance),
            noise=noise,
            teacher=teacher,
            follower=follower,
            schedule=model.schedule,
            prediction=model.prediction,
            width=self.spec.width,
        )

    @torch.no_grad()
    def after(self, training: Training) -> None:
        """The average takes in the student's present weights."""
        present = [
            each.detach() for part in (self.model.network, self.model.conditioning) for each in part.parameters()
        ]
        torch._foreach_lerp_(list(self.average.parameters()), present, 1 - self.spec.follow)


def distillation(
    model: LatentDiffusion, lesson: Lesson, *, train: TrainSpec, compute: Compute, done: Callable[[], float]
) -> Distillation:
    """Of a model that has its weights and place already. A learnt log-variance stays, for it counts nothing."""
    teacher, spec = compute.host(lesson.teacher), lesson.spec
    average = Still(copy.deepcopy(model.network), copy.deepcopy(model.conditioning))
    if model.log_variance is not None:
        model.log_variance.requires_grad_(False)
    return Distillation(
        model,
        spec,
        student=Voice(model.conditioning, as_called(model.network, train=train)),
        teacher=Voice(teacher.conditioning, as_called(teacher.network, train=train), spec.guidance),
        follower=Voice(average.conditioning, as_called(average.network, train=train)),
        average=average,
        done=done,
    )


def off_the_end(learnt: Distillation, batches: Sequence[LatentBatch], *, compute: Compute) -> Callable[[], float]:
    """Asked again and again: how far is what the student says at once from where its teacher's paths end?

    Root mean square of each sample, and the mean of those. Paths begin at times spread evenly, nothing is dropped, and
    they are walked once, at the first call.
    """
    each = [_off(learnt, batch, compute=compute) for batch in batches]
    return lambda: float(torch.cat([off() for off in each]).mean())


def _off(learnt: Distillation, batch: LatentBatch, *, compute: Compute) -> Callable[[], PerSample]:
    model, place = learnt.model, compute.place
    t = even_times(model, count=len(batch.indices))
    noise = place(seeds.normal(batch.latents.shape[1:], seed=0, indices=batch.indices, purpose="validation"))

    @functools.cache
    def walked() -> tuple[Mapping[str, Tensor], Latent, Latent]:
        given = model.prepared({field: place(values) for field, values in batch.inputs.items()})
        conditions, teacher = learnt.teacher.told(given, model=model)
        x_t = add_noise(model.schedule, with_known(place(batch.latents), conditions), noise=noise, t=t)
        return given, x_t, path_end(teacher, x_t, t=t, steps=PATH, schedule=model.schedule)

    @torch.no_grad()
    def off() -> PerSample:
        with compute.autocast():
            given, x_t, end = walked()
            _, student = Voice(model.conditioning, model.network).told(given, model=model)
            return (student(x_t, t) - end).square().mean(dim=(1, 2, 3)).sqrt()

    return off

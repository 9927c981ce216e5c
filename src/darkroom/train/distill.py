"""Consistency distillation: a student learns to answer at once where its teacher's guided sampling paths end."""

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
from darkroom.core.shapes import Latent, PerSample, Time
from darkroom.core.spec import Spec
from darkroom.diffusion.consistency import Answer, consistency_loss, path_end
from darkroom.diffusion.denoiser import Denoise, Denoiser, Network
from darkroom.diffusion.guidance import Guided
from darkroom.diffusion.model import LatentDiffusion
from darkroom.diffusion.residual import with_known
from darkroom.network.unet import UNet
from darkroom.process.schedule import add_noise
from darkroom.process.times import earlier
from darkroom.train.denoiser_objective import LatentBatch, NoisyBatch, as_called, even_times
from darkroom.train.optim import TrainSpec
from darkroom.train.state import Training

FOLLOWED: Final = 64  # held-out pictures that the teacher's paths are walked for
PATH: Final = 16  # steps of such a path
Distance = Annotated[float, Field(gt=0, le=1)]


@final
class DistillSpec(Spec):
    """How a few-step student is made of its teacher (`diffusion.consistency`).

    guidance: the scale of the teacher's guidance; the student learns guided answers and is sampled without guidance ·
    distance: how far apart the two times lie whose answers shall agree, at the first and at the last step of training,
    as shares of the way from noise to clean data. It shrinks geometrically: long distances teach fast, short ones
    exactly (Geng et al. 2024) · follow: decay of the student's average, which answers at the earlier time (0: the
    student itself answers) · width: of the pseudo-Huber loss, in units of the latents' deviation.
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
class FrozenDenoiser(nn.Module):
    """The network and conditioners of a model, which no gradient reaches."""

    def __init__(self, network: UNet, conditioning: Conditioning) -> None:
        super().__init__()
        self.network, self.conditioning = network, conditioning
        self.requires_grad_(False).eval()


@final
@dataclass(frozen=True, eq=False)
class Lesson:
    """Whom a student learns from, and how."""

    teacher: FrozenDenoiser
    spec: DistillSpec


@final
@dataclass(frozen=True, eq=False)
class ConditionedDenoiser:
    """Conditioners, a network in whatever form (compiled, say), and the scale of guidance that it is asked with."""

    conditioning: Conditioning
    network: Network
    guidance: float = 1.0

    def under(self, inputs: Mapping[str, Tensor], *, model: LatentDiffusion) -> tuple[Conditions, Answer]:
        """The conditions it makes of prepared inputs, and its x0 under them. model: whose schedule and prediction."""
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
    """The consistency loss of each sample: a `TrainingLoss`, with the student's average that it is measured with.

    average: of the student's weights; `follower` answers with them, and they are saved with the run's state · done: the
    share of training that is behind.
    """

    model: LatentDiffusion
    spec: DistillSpec
    student: ConditionedDenoiser
    teacher: ConditionedDenoiser
    follower: ConditionedDenoiser
    average: FrozenDenoiser
    done: Callable[[], float]

    @property
    def distance(self) -> float:
        """Between the two times, at this point of training."""
        first, last = self.spec.distance
        return first * (last / first) ** self.done()

    def __call__(self, batch: NoisyBatch) -> PerSample:
        """Dropped fields are null for all three alike; where nothing steers, guidance adds nothing."""
        model = self.model
        conditions, student = self.student.under(batch.inputs, model=model)
        with torch.no_grad():
            _, teacher = self.teacher.under(batch.inputs, model=model)
            _, follower = self.follower.under(batch.inputs, model=model)
        return consistency_loss(
            student,
            with_known(batch.latents, conditions),
            t=batch.t,
            to=earlier(model.schedule, batch.t, distance=self.distance),
            noise=batch.noise,
            teacher=teacher,
            follower=follower,
            schedule=model.schedule,
            prediction=model.prediction,
            width=self.spec.width,
        )

    @torch.no_grad()
    def after(self, training: Training) -> None:
        """After an optimiser's step: the average takes in the student's weights."""
        present = [
            each.detach() for part in (self.model.network, self.model.conditioning) for each in part.parameters()
        ]
        torch._foreach_lerp_(list(self.average.parameters()), present, 1 - self.spec.follow)


def begin_student(model: LatentDiffusion) -> FrozenDenoiser:
    """Ready a model that has its teacher's weights, and its place, for distillation; answers its average.

    A learnt log-variance is frozen, for the consistency loss has no use for it.
    """
    if model.log_variance is not None:
        model.log_variance.requires_grad_(False)
    return FrozenDenoiser(copy.deepcopy(model.network), copy.deepcopy(model.conditioning))


def distillation(
    model: LatentDiffusion,
    lesson: Lesson,
    *,
    average: FrozenDenoiser,
    train: TrainSpec,
    compute: Compute,
    done: Callable[[], float],
) -> Distillation:
    """The loss of a student `model` with its `average` (`begin_student`)."""

    def asked(part: FrozenDenoiser | LatentDiffusion, guidance: float = 1.0) -> ConditionedDenoiser:
        return ConditionedDenoiser(part.conditioning, as_called(part.network, train=train), guidance)

    return Distillation(
        model,
        lesson.spec,
        student=asked(model),
        teacher=asked(compute.host(lesson.teacher), lesson.spec.guidance),
        follower=asked(average),
        average=average,
        done=done,
    )


def off_the_end(learnt: Distillation, batches: Sequence[LatentBatch], *, compute: Compute) -> Callable[[], float]:
    """A question to be asked at every look: how far off the end of its teacher's paths are the student's answers?

    The mean over samples of each one's root mean square. The paths begin at evenly spread times with nothing dropped,
    and are walked once, at the first call.
    """
    paths = [_Path(learnt, batch, compute) for batch in batches]
    return lambda: float(torch.cat([path.off() for path in paths]).mean())


@final
@dataclass(frozen=True, eq=False)
class _Path:
    """The teacher's paths from the held-out latents of a batch, noised."""

    learnt: Distillation
    batch: LatentBatch
    compute: Compute

    @torch.no_grad()
    def off(self) -> PerSample:
        """How far the student's answer at the beginning of each path is from its end."""
        model = self.learnt.model
        with self.compute.autocast():
            inputs, x_t, end = self._walked
            _, student = ConditionedDenoiser(model.conditioning, model.network).under(inputs, model=model)
            return (student(x_t, self._t) - end).square().mean(dim=(1, 2, 3)).sqrt()

    @functools.cached_property
    def _t(self) -> Time:
        return even_times(self.learnt.model, count=len(self.batch.indices))

    @functools.cached_property
    def _walked(self) -> tuple[Mapping[str, Tensor], Latent, Latent]:
        """What steers each path, its beginning x_t and its end."""
        model, batch, place, t = self.learnt.model, self.batch, self.compute.place, self._t
        noise = seeds.normal(batch.latents.shape[1:], seed=0, indices=batch.indices, purpose="validation")
        inputs = model.prepared({field: place(values) for field, values in batch.inputs.items()})
        conditions, teacher = self.learnt.teacher.under(inputs, model=model)
        x_t = add_noise(model.schedule, with_known(place(batch.latents), conditions), noise=place(noise), t=t)
        return inputs, x_t, path_end(teacher, x_t, t=t, steps=PATH, schedule=model.schedule)

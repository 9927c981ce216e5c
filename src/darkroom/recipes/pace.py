"""How long a step of each stage takes on this machine: a few are made, none is kept."""

import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch

from darkroom.autoencoder.losses import FirstStageLossSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.conditioning.boxes import PLANES, BoxesSpec
from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.embedding import EmbeddingSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.conditioning.text import TextSpec
from darkroom.core.compute import training_compute
from darkroom.core.parallel import own_share
from darkroom.data.loader import Batch
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.recipes.length import trained
from darkroom.recipes.schema import FirstStageRecipe, Recipe
from darkroom.train.denoiser_objective import DenoiserObjective, LatentBatch, denoiser_objective
from darkroom.train.distill import DistillSpec, FrozenDenoiser, Lesson, begin_student, distillation
from darkroom.train.first_stage import only_decoder
from darkroom.train.first_stage_objective import FirstStageObjective, first_stage_objective, opponent_of
from darkroom.train.loop import train
from darkroom.train.optim import TrainSpec, optimizer_of
from darkroom.train.state import Training

WARM: Final = 2
TIMED: Final = 7
BUSY: Final = 0.6  # of all cores, over the last minute
OVERHEAD: Final = 0.08  # of the time goes into looking, saving, caching
Pace = Mapping[str, float]  # seconds of a step, by stage


def pace(recipe: Recipe, *, device: str) -> Pace:
    """Seconds of a step of each stage that is trained; the recipe must have met its data (`resolve`)."""
    found: dict[str, float] = {}
    for stage, spec in trained(recipe).items():
        timed = spec.model_copy(update={"steps": WARM + TIMED})
        if stage == "first_stage":
            found[stage] = _time_first_stage(recipe.first_stage, timed, size=recipe.data.size, device=device)
        else:
            found[stage] = denoiser_pace(recipe, device=device)
    return found


def denoiser_pace(recipe: Recipe, *, device: str) -> float:
    """Seconds of a step of the denoiser alone; found once in a process, for compiling may take a minute."""
    model, part = recipe.model_spec(), recipe.denoiser
    assert model is not None
    assert part is not None
    assert part.train is not None
    timed = part.train.model_copy(update={"steps": WARM + TIMED})
    return _time_denoiser(model, timed, distill=part.distill, device=device)


def _time_first_stage(part: FirstStageRecipe, spec: TrainSpec, *, size: int, device: str) -> float:
    """Seconds of a mean step: those before an adversary begins and those after it cost differently."""
    adversary = part.loss.adversary
    if adversary is None or part.train is None:
        return _time_first_stage_with(part.loss, part, spec=spec, size=size, device=device)
    alone, against = (
        _time_first_stage_with(
            part.loss.model_copy(update={"adversary": each}), part, spec=spec, size=size, device=device
        )
        for each in (None, adversary.model_copy(update={"start": 0}))
    )
    start = adversary.begins(part.train.steps).start
    share = min(1.0, start / part.train.steps) if isinstance(start, int) else 0.0  # a plateau may come at once
    return share * alone + (1 - share) * against


def _time_first_stage_with(
    loss: FirstStageLossSpec, part: FirstStageRecipe, *, spec: TrainSpec, size: int, device: str
) -> float:
    assert isinstance(part.model, AutoencoderSpec)
    compute = training_compute(device, spec.precision)
    model = compute.host(Autoencoder(part.model))
    if part.only is not None:
        only_decoder(model)
    indices = list(own_share().taken(range(spec.batch)))
    images = torch.randint(256, (len(indices), part.model.image_channels, size, size), dtype=torch.uint8)
    batch = Batch(images, indices, indices)
    losses = first_stage_objective(model, loss, train=spec, compute=compute, seed=0)
    opponent = opponent_of(losses, spec)
    return _time(model, lambda: batch, losses=losses, spec=spec, device=device, opponent=opponent)


@functools.lru_cache(maxsize=4)
def _time_denoiser(model_spec: ModelSpec, spec: TrainSpec, *, distill: DistillSpec | None, device: str) -> float:
    compute = training_compute(device, spec.precision)
    model = compute.host(LatentDiffusion(model_spec))
    model.first_stage.requires_grad_(False)  # no rank waits for a gradient of it
    model.scale = torch.where(model.scale.isnan(), 1.0, model.scale)  # not measured yet, and masked pictures need one
    side = model_spec.image_size
    indices = own_share().taken(range(spec.batch))
    latents = torch.randn(len(indices), *model.latent_shape((side, side)))
    shape = model.latent_shape((side, side))
    fields = {each.field: like(each, model_spec, batch=len(indices), latent=shape) for each in model_spec.conditioners}
    batch = LatentBatch(latents, fields, indices)
    losses = denoiser_objective(model, train=spec, compute=compute, seed=0)
    if distill is not None:
        other = LatentDiffusion(model_spec)
        told = distill if model_spec.guided else distill.model_copy(update={"guidance": 1.0})  # a student may know none
        lesson = Lesson(FrozenDenoiser(other.network, other.conditioning), told)
        average = begin_student(model)
        learnt = distillation(model, lesson, average=average, train=spec, compute=compute, done=lambda: 0.0)
        losses = replace(losses, loss=learnt)
    return _time(model, lambda: batch, losses=losses, spec=spec, device=device)


def like(each: ConditionerSpec, model: ModelSpec, *, batch: int, latent: tuple[int, int, int]) -> torch.Tensor:
    """A batch of inputs for this condition, all zeros."""
    side, channels = model.image_size, model.first_stage.image_channels
    shape: tuple[int, ...]
    match each:
        case TextSpec() | LayoutSpec():
            shape = (each.encoder.length,)
        case ClassSpec():
            shape = ()
        case EmbeddingSpec():
            shape = (each.length, each.width)
        case BoxesSpec():
            shape = (PLANES * each.categories, *latent[1:])
        case MapSpec():
            shape = (side, side)
        case LowResSpec():
            shape = (each.channels // each.patch**2, *(side * each.patch // each.enlarge for side in latent[1:]))
        case MaskedSpec():
            shape = (channels + 1, side, side)
    ids = isinstance(each, TextSpec | LayoutSpec | ClassSpec | MapSpec)
    return torch.zeros(batch, *shape, dtype=torch.long if ids else torch.float32)


def _time(
    model: torch.nn.Module,
    batch: Callable[[], Any],
    *,
    losses: FirstStageObjective | DenoiserObjective,
    spec: TrainSpec,
    device: str,
    opponent: torch.optim.Optimizer | None = None,
) -> float:
    """Seconds of a step after warm-up, a quick one of several, so that other work of a moment does not count."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    compute = training_compute(device, spec.precision)
    optimizer = optimizer_of(model, parameters, spec=spec, compute=compute)
    training = Training(model.train(), optimizer, None, opponent)
    ends = [time.perf_counter()]
    stream = iter(batch, None)
    for _ in train(training, stream, losses=losses, spec=spec, compute=compute, pieces=losses.pieces):
        ends.append(time.perf_counter())
    steps = sorted(after - before for before, after in zip(ends[WARM:-1], ends[WARM + 1 :], strict=True))
    return steps[len(steps) // 4]


def busy() -> str | None:
    """A sentence when other work takes this machine's processors, which makes all that is measured here slower."""
    cores = os.cpu_count() or 1
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # not every system tells
        return None
    if load < BUSY * cores:
        return None
    return (
        f"other work has kept this machine busy for the last minute ({load:.1f} of {cores} cores); "
        "alone, training may be several times as fast"
    )

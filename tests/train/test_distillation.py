"""Distillation: a student learns to say at once where its teacher's guided paths end, whatever steers both."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.spatial import LowResSpec, MaskedSpec, PlanesConditioner
from darkroom.core.compute import Compute
from darkroom.core.parallel import Share
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.process.objective import ObjectiveSpec
from darkroom.process.schedule import FlowSpec
from darkroom.recipes.pace import like
from darkroom.tasks.model import Model
from darkroom.train.denoiser_objective import DenoiserObjective, LatentBatch, NoisyBatch
from darkroom.train.distill import (
    Distillation,
    DistillSpec,
    FrozenDenoiser,
    Lesson,
    begin_student,
    distillation,
    off_the_end,
)
from darkroom.train.loop import train
from darkroom.train.optim import TrainSpec, build_optimizer
from darkroom.train.state import Training

Small = Callable[[str], Model]
EXACT = Compute(torch.device("cpu"), torch.float64)
PLAIN = Compute(torch.device("cpu"))
WHOLE = DistillSpec(guidance=3.0, distance=(1.0, 1.0), width=1e-9)  # every step ends at clean data
PLAN = TrainSpec(steps=80, batch=8, learning_rate=2e-3, warmup=1, clip=1e9)
KINDS = ["plain", "pixels", "class", "vector", "text", "map", "low-res", "layout", "boxes", "inpaint", "text-map"]
GUESSING = {  # what is beyond a guess is learnt, as folders' models for enlarging and for holes do
    "guessed-low-res": LowResSpec(channels=3, guesses=3),
    "guessed-inpaint": MaskedSpec(channels=4, shrink="any", fill="inward", guesses=True),
}


def teacher_of(small: Small, kind: str) -> LatentDiffusion:
    """One that says something, of any kind of steering."""
    if kind not in GUESSING:
        return copy.deepcopy(small(kind).diffusion)
    return with_conditioner(small("low-res" if "low" in kind else "inpaint").diffusion, GUESSING[kind])


def with_conditioner(model: LatentDiffusion, conditioner: ConditionerSpec) -> LatentDiffusion:
    torch.manual_seed(5)
    made = LatentDiffusion(model.spec.model_copy(update={"conditioners": (conditioner,)}))
    made.load_state_dict(model.state_dict(), strict=False)
    for each in made.conditioning.by_field.values():
        if isinstance(each, PlanesConditioner) and each.guess is not None:
            each.guess.kernel.normal_(std=0.1)
    return made.eval()


def taught(
    teacher: LatentDiffusion,
    spec: DistillSpec,
    *,
    compute: Compute = EXACT,
    done: Callable[[], float] = lambda: 0.0,
) -> DenoiserObjective:
    """A student that has its teacher's weights, and what it minimises."""
    student = compute.host(copy.deepcopy(teacher)).train()
    lesson = Lesson(FrozenDenoiser(teacher.network, teacher.conditioning), spec)
    average = begin_student(student)
    learnt = distillation(student, lesson, average=average, train=PLAN, compute=compute, done=done)
    return DenoiserObjective(student, compute, 0, learnt)


def learnt_by(objective: DenoiserObjective) -> Distillation:
    assert isinstance(objective.loss, Distillation)
    return objective.loss


def batch_for(spec: ModelSpec, *, count: int = 4, first: int = 0) -> LatentBatch:
    """Latents and what steers them, drawn; holes of one half of the picture."""
    draw = torch.Generator().manual_seed(first)
    side = spec.image_size // spec.first_stage.factor
    shape = (spec.first_stage.latent_channels, side, side)
    inputs = {each.field: like(each, spec, batch=count, latent=shape) for each in spec.conditioners}
    for each in inputs.values():
        if each.is_floating_point():
            each.normal_(generator=draw)
    if "masked" in inputs:
        inputs["masked"][:, -1] = 0
        inputs["masked"][:, -1, :, : spec.image_size // 2] = 1
    if "label" in inputs:
        inputs["label"] = torch.arange(count) % 3
    latents = torch.randn(count, *shape, generator=draw)
    return LatentBatch(latents, inputs, range(first, first + count))


@pytest.mark.parametrize("kind", [*KINDS, *GUESSING])
def test_all_that_is_trained_has_a_part_in_it_and_pieces_are_the_whole(small: Small, kind: str) -> None:
    teacher = teacher_of(small, kind)
    guidance = 2.0 if teacher.spec.guided else 1.0
    objective = taught(teacher, DistillSpec(guidance=guidance, distance=(0.3, 0.1)))
    batch = batch_for(objective.model.spec)
    whole = objective(batch)["loss"]
    whole.backward()
    assert torch.isfinite(whole)
    assert all(each.grad is not None for each in objective.model.denoising_parameters)
    assert all(each.grad is None for part in (teacher, learnt_by(objective).average) for each in part.parameters())
    pieces = [float(each["loss"].detach()) for each in objective.pieces(batch, [Share(0, 2), Share(1, 2)])]
    assert sum(pieces) / 2 == pytest.approx(float(whole.detach()), rel=1e-9)


@pytest.mark.parametrize("kind", ["class", "text-map", "vector"])
def test_guidance_is_learnt(small: Small, kind: str) -> None:
    """At the whole distance a fresh student is off by what guidance adds: scale - 1 times asked less nothing."""
    teacher = teacher_of(small, kind)
    objective = taught(teacher, WHOLE)
    model, batch = objective.model, batch_for(objective.model.spec)
    placed = {field: EXACT.place(values) for field, values in batch.inputs.items()}
    conditions = model.condition(model.prepared(placed))
    t, noise = torch.tensor([20, 300, 700, 999]), torch.randn(batch.latents.shape, dtype=torch.float64)
    alpha, sigma = (each(t).view(-1, 1, 1, 1) for each in (model.schedule.alpha, model.schedule.sigma))
    x_t = alpha * batch.latents + sigma * noise

    def said(given):  # eps, as all of these predict: x0 = (x_t - sigma eps) / alpha
        return (x_t - sigma * model.network(x_t, t, given)) / alpha

    added = 2 * (said(conditions) - said(model.null(conditions)))
    wanted = added.square().mean(dim=(1, 2, 3)).sqrt() / (sigma / alpha).flatten().clamp(min=1)
    asked = NoisyBatch(EXACT.place(batch.latents), t, noise, model.prepared(placed))
    found = learnt_by(objective)(asked)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    plain = learnt_by(taught(teacher_of(small, kind), WHOLE.model_copy(update={"guidance": 1.0})))
    assert float(plain(asked).detach().max()) < 1e-8


def test_of_nothing_nothing_is_learnt_beyond_it(small: Small) -> None:
    """Where every field is dropped guidance adds nothing, so the student still knows what to draw of nothing."""
    objective = taught(teacher_of(small, "text-map"), WHOLE)
    model, batch = objective.model, batch_for(objective.model.spec)
    dropped = {field: torch.tensor([True, True, False, False]) for field in ("caption", "map")}
    inputs = model.prepared({field: EXACT.place(values) for field, values in batch.inputs.items()})
    noise = torch.randn(batch.latents.shape, dtype=torch.float64)
    asked = NoisyBatch(
        EXACT.place(batch.latents), torch.full((4,), 400), noise, model.conditioning.drop(inputs, dropped)
    )
    found = learnt_by(objective)(asked)
    assert float(found[:2].detach().max()) < 1e-8 < float(found[2:].detach().min())


def test_what_is_known_around_a_hole_stays(small: Small) -> None:
    """There x0 is the guess, for all three, and only the hole is learnt."""
    teacher = teacher_of(small, "guessed-inpaint")
    objective = taught(teacher, DistillSpec(distance=(0.2, 0.2)))
    model, batch = objective.model, batch_for(objective.model.spec)
    batch.inputs["masked"][:, -1] = 0  # no hole at all
    for parameter in model.network.parameters():
        parameter.data += 0.05
    assert float(objective(batch)["loss"].detach()) < 1e-6
    batch.inputs["masked"][:, -1, :, :8] = 1
    assert float(objective(batch)["loss"].detach()) > 1e-2


def stream(spec: ModelSpec) -> Iterator[LatentBatch]:
    return (batch_for(spec, count=PLAN.batch, first=PLAN.batch * step) for step in range(PLAN.steps))


def test_a_student_comes_nearer_and_its_teacher_never_moves(small: Small) -> None:
    teacher = teacher_of(small, "class")
    before = copy.deepcopy(teacher.state_dict())
    spec = DistillSpec(guidance=2.0)
    objective = taught(teacher, spec, compute=PLAIN, done=lambda: training.step / PLAN.steps)
    model, learnt = objective.model, learnt_by(objective)
    beside = nn.ModuleDict({"follower": learnt.average})
    training = Training(model, build_optimizer(model.denoising_parameters, PLAN), None, beside=beside)
    off = off_the_end(learnt, [batch_for(model.spec, count=16, first=10_000)], compute=PLAIN)
    far, expected = off(), {name: each.clone() for name, each in learnt.average.named_parameters()}
    steps = train(
        training,
        stream(model.spec),
        losses=objective,
        spec=PLAN,
        compute=PLAIN,
        after=learnt.after,
        pieces=objective.pieces,
    )
    for _ in steps:
        for part in ("network", "conditioning"):
            for name, each in getattr(model, part).named_parameters():
                expected[f"{part}.{name}"].lerp_(each.detach(), 1 - 0.95)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    for name, each in learnt.average.named_parameters():
        torch.testing.assert_close(each, expected[name])
    print(f"\noff the end by {far:.4f}, after {PLAN.steps} steps by {off():.4f}")
    assert off() < 0.7 * far
    assert learnt.distance == pytest.approx(0.025)


def test_the_distance_shrinks_evenly_in_its_logarithm(small: Small) -> None:
    share = [0.0]
    spec = DistillSpec(distance=(0.4, 0.1))
    learnt = learnt_by(taught(teacher_of(small, "plain"), spec, done=lambda: share[0]))
    found = [learnt.distance for share[0] in (0.0, 0.5, 1.0)]
    assert found == pytest.approx([0.4, 0.2, 0.1])


@pytest.mark.parametrize(
    "changes",
    [
        {"prediction": "v", "schedule": FlowSpec()},
        {"prediction": "velocity", "schedule": FlowSpec()},
        {"prediction": "x0"},
        {"objective": ObjectiveSpec(learn_log_variance=True)},
    ],
)
def test_any_prediction_and_schedule(small: Small, changes: dict[str, object]) -> None:
    """From pure noise too; and a learnt log-variance stays as it is, without a gradient to wait for."""
    torch.manual_seed(2)
    model = LatentDiffusion(small("plain").spec.model_copy(update=changes))
    model.scale.fill_(1.0)
    objective = taught(model.eval(), DistillSpec())
    loss = objective(batch_for(model.spec))["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    trained = [each for each in objective.model.denoising_parameters if each.requires_grad]
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in trained)
    if objective.model.log_variance is not None:
        assert objective.model.log_variance.grad is None

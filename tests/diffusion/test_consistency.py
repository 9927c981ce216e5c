"""Consistency distillation against a Gaussian, whose consistency function is known in closed form."""

import itertools
import math

import pytest
import torch
from oracle import Consistent, Perfect, gaussian, three_lumps

from darkroom.core.conditions import Conditions
from darkroom.diffusion.consistency import along, consistency_loss, consistent_end, path_end
from darkroom.diffusion.denoiser import Denoiser
from darkroom.diffusion.walk import sample_latents
from darkroom.process.prediction import build_prediction
from darkroom.process.schedule import CosineFlowSchedule, CosineSpec, FlowSchedule, LinearSpec, build_schedule
from darkroom.process.times import Times, earlier

SCHEDULES = {"flow": FlowSchedule(), "cosine-flow": CosineFlowSchedule(), "linear": build_schedule(LinearSpec())}
CONTINUOUS = ("flow", "cosine-flow")


def answer(model):
    denoise = Denoiser(model.network, model.schedule, model.prediction)
    return lambda x, t: denoise(x, t, Conditions())


def unasked(x, t):
    raise AssertionError("nobody should be asked")


def drawn(shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss_at(distance, schedule, student, *, count=256):
    """The mean loss over times in 0.1 .. 0.9 and samples of the Gaussian, width next to nothing: a distance."""
    mixture = gaussian()
    latents = mixture.means + mixture.variances.sqrt() * drawn((count, 4, 1, 1))
    t = torch.linspace(0.1, 0.9, count, dtype=torch.float64)
    losses = consistency_loss(
        student,
        latents,
        t=t,
        to=earlier(schedule, t, distance=distance),
        noise=drawn(latents.shape, 1),
        teacher=answer(Perfect(mixture, schedule)),
        follower=student,
        schedule=schedule,
        prediction=build_prediction("x0"),
        width=1e-12,
    )
    return losses.mean().item()


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize(("model", "order"), [(Consistent, 2), (Perfect, 1)])
def test_the_loss_of_the_consistency_function_vanishes_with_the_distance(name, model, order):
    """By the square, which is the error of one step of DDIM; that of any other function, such as the mean, evenly."""
    schedule = SCHEDULES[name]
    student = answer(model(gaussian(), schedule))
    distances = (0.04, 0.02, 0.01, 0.005)
    losses = [loss_at(each, schedule, student) for each in distances]
    slopes = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(losses)]
    print(f"\n{name} {model.__name__}: {losses[-1]:.2e}, slopes {', '.join(f'{each:.3f}' for each in slopes)}")
    assert slopes[-1] == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_what_the_network_predicts_changes_nothing_but_the_divisor(prediction):
    schedule, mixture = build_schedule(CosineSpec()), gaussian()
    t = torch.tensor([999, 700, 300, 40])
    wrong = answer(Perfect(mixture, schedule, build_prediction("x0")))
    losses = consistency_loss(
        wrong,
        mixture.means.expand(4, -1, -1, -1),
        t=t,
        to=earlier(schedule, t, distance=0.1),
        noise=drawn((4, 4, 1, 1)),
        teacher=answer(Perfect(mixture, schedule)),
        follower=answer(Consistent(mixture, schedule)),
        schedule=schedule,
        prediction=build_prediction(prediction),
        width=1e-3,
    )
    x_t = schedule.alpha(t).view(-1, 1, 1, 1) * mixture.means + schedule.sigma(t).view(-1, 1, 1, 1) * drawn(
        (4, 4, 1, 1)
    )
    end = consistent_end(
        answer(Perfect(mixture, schedule)),
        x_t,
        follower=answer(Consistent(mixture, schedule)),
        t=t,
        to=earlier(schedule, t, distance=0.1),
        schedule=schedule,
    )
    off = ((wrong(x_t, t) - end).square().mean(dim=(1, 2, 3)) + 1e-6).sqrt() - 1e-3
    levels = schedule.sigma(t) / schedule.alpha(t)
    divisor = levels.clamp(min=1) if prediction == "eps" else torch.ones(4)
    assert levels[0] > 1000
    torch.testing.assert_close(losses.double(), (off / divisor).double(), rtol=1e-4, atol=1e-9)


def test_every_sample_pulls_alike_however_far_it_is_off():
    schedule = FlowSchedule()
    said = torch.tensor([0.1, 10.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4).clone().requires_grad_()
    losses = consistency_loss(
        lambda x, t: said,
        torch.zeros(2, 3, 4, 4),
        t=torch.tensor([0.5, 0.5]),
        to=torch.tensor([0.0, 0.0]),
        noise=torch.zeros(2, 3, 4, 4),
        teacher=lambda x, t: torch.zeros_like(x),
        follower=unasked,
        schedule=schedule,
        prediction=build_prediction("v"),
        width=1e-3,
    )
    (pull,) = torch.autograd.grad(losses.sum(), said)
    one, other = pull.flatten(1).norm(dim=1)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=0)
    torch.testing.assert_close(losses, torch.tensor([0.1 - 1e-3, 10.0 - 1e-3]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_network_is_asked_at_the_clean_time(name):
    """There a step ends at the teacher's own x0, and the follower's answer at another time does not count."""
    schedule, mixture = SCHEDULES[name], three_lumps()
    times = torch.tensor([0, 10, 400]) if schedule.steps else torch.tensor([0.01, 0.02, 0.9], dtype=torch.float64)
    to, x = earlier(schedule, times, distance=0.05), drawn((3, 2, 1, 1))
    asked = []

    def follower(x, t):
        asked.extend(t.tolist())
        return torch.full_like(x, 7.0)

    teacher = answer(Perfect(mixture, schedule))
    end = consistent_end(teacher, x, follower=follower, t=times, to=to, schedule=schedule)
    assert min(asked) > schedule.clean
    torch.testing.assert_close(end[:2], teacher(x, times)[:2])
    assert torch.equal(end[2:], torch.full_like(end[2:], 7.0))
    whole = torch.full_like(times, schedule.clean)
    alone = consistent_end(teacher, x, follower=unasked, t=times, to=whole, schedule=schedule)
    torch.testing.assert_close(alone, teacher(x, times))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_step_of_the_teacher_is_one_of_ddim(name):
    schedule = SCHEDULES[name]
    model, x = Perfect(three_lumps(), schedule), drawn((5, 2, 1, 1))
    t, to = (800, 300) if schedule.steps else (0.8, 0.3)
    visited = torch.tensor([t])
    wanted = sample_latents(model, x, solver="ddim", times=Times(visited, end=to))
    here, there = (torch.full((5,), each, dtype=visited.dtype) for each in (t, to))
    torch.testing.assert_close(along(answer(model), x, t=here, to=there, schedule=schedule), wanted)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_paths_end_where_the_consistency_function_says(name):
    schedule, mixture = SCHEDULES[name], gaussian()
    t = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    x, teacher = drawn((3, 4, 1, 1)), answer(Perfect(mixture, schedule))
    exact = answer(Consistent(mixture, schedule))(x, t)
    errors = [
        (path_end(teacher, x, t=t, steps=steps, schedule=schedule) - exact).abs().max().item() for steps in (50, 400)
    ]
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 6


def test_paths_from_times_with_fewer_steps_than_asked_for():
    schedule, model = SCHEDULES["linear"], Perfect(three_lumps(), SCHEDULES["linear"])
    t, x = torch.tensor([0, 3, 999]), drawn((3, 2, 1, 1))
    ends = path_end(answer(model), x, t=t, steps=16, schedule=schedule)
    torch.testing.assert_close(ends[:1], answer(model)(x[:1], t[:1]))
    every = sample_latents(model, x[1:2], solver="ddim", times=torch.tensor([3, 2, 1, 0]))
    torch.testing.assert_close(ends[1:2], every)
    grid = torch.tensor([round(1000 * k / 16) - 1 for k in range(16, 0, -1)])
    torch.testing.assert_close(ends[2:], sample_latents(model, x[2:], solver="ddim", times=grid), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_lcm_draws_the_gaussian_with_its_consistency_function(name, steps):
    """20,000 samples, brought to mean 0 and variance 1: chance alone moves a moment by 0.01."""
    mixture, count, schedule = gaussian(), 20_000, SCHEDULES[name]
    draw = torch.Generator().manual_seed(1)
    first = torch.tensor(schedule.noisiest)
    alpha, sigma = schedule.alpha(first), schedule.sigma(first)
    noise = torch.randn(count, 4, 1, 1, dtype=torch.float64, generator=draw)
    found = sample_latents(
        Consistent(mixture, schedule, build_prediction("v")),
        alpha * mixture.means + (alpha**2 * mixture.variances + sigma**2).sqrt() * noise,
        solver="lcm",
        steps=steps,
        step_noise=lambda _: torch.randn(count, 4, 1, 1, dtype=torch.float64, generator=draw),
    )
    found = ((found - mixture.means) / mixture.variances.sqrt()).flatten(1)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(4, dtype=torch.float64), atol=0.04, rtol=0)
    torch.testing.assert_close(found.T.cov(), torch.eye(4, dtype=torch.float64), atol=0.05, rtol=0)


def test_of_a_model_that_is_not_distilled_one_step_draws_the_mean():
    mixture = gaussian()
    found = sample_latents(Perfect(mixture, FlowSchedule()), drawn((200, 4, 1, 1)), solver="lcm", steps=1)
    torch.testing.assert_close(found, mixture.means.expand(200, -1, -1, -1))

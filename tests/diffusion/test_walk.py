"""The loop: counts, order of events, noise, constraints, and what it refuses."""

import math

import pytest
import torch
from oracle import Perfect, three_lumps

from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError
from darkroom.diffusion.denoiser import Diffusion
from darkroom.diffusion.solvers.choose import SOLVERS, build_solver
from darkroom.diffusion.solvers.ddim import noise_amplitude
from darkroom.diffusion.solvers.plms import Plms
from darkroom.diffusion.solvers.solver import Evaluation, Moment, Point, Solver
from darkroom.diffusion.walk import sample_latents, seeded_noise, walk
from darkroom.process.prediction import build_prediction
from darkroom.process.schedule import FlowSchedule, LinearSpec, build_schedule
from darkroom.process.times import Times

TWENTY = build_schedule(LinearSpec(steps=20, start=0.01, end=0.5))
NOISE = torch.randn(2, 2, 1, 1, generator=torch.Generator().manual_seed(0))


def perfect(schedule=TWENTY, prediction="eps") -> Perfect:
    mixture = three_lumps()
    floats = type(mixture)(mixture.weights.float(), mixture.means.float(), mixture.variances.float())
    return Perfect(floats, schedule, build_prediction(prediction))


def point_at(t: int) -> Point:
    return Point(t, TWENTY.alpha(torch.tensor(t)).item(), TWENTY.sigma(torch.tensor(t)).item())


class Counting:
    """A model that writes down the times its network is asked for."""

    def __init__(self, model: Perfect) -> None:
        self.schedule, self.prediction, self.times = model.schedule, model.prediction, []
        self._network = model.network

    def network(self, x_t, t, conditions):
        assert not torch.is_grad_enabled()
        assert t.dtype == torch.int64 if self.schedule.steps else x_t.dtype
        self.times.append((t[0].item(), len(t)))
        return self._network(x_t, t, conditions)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 13, 19, 20])
def test_any_count_of_steps_works_for_every_solver(solver, steps):
    found = list(walk(perfect(), NOISE, solver=solver, steps=steps))
    assert [step.index for step in found] == list(range(steps))
    assert found[0].t == 19
    assert all(torch.isfinite(step.x).all() and torch.isfinite(step.x0).all() for step in found)
    torch.testing.assert_close(found[-1].x, found[-1].x0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_pure_noise_at_the_last_time_is_no_obstacle(solver):
    schedule = build_schedule(LinearSpec(steps=20, start=0.01, end=0.5, zero_terminal_snr=True))
    for steps in (1, 2, 5, 20):
        assert torch.isfinite(sample_latents(perfect(schedule, "v"), NOISE, solver=solver, steps=steps)).all()


@pytest.mark.parametrize(("solver", "evaluations"), [("ddim", 5), ("plms", 6), ("heun", 9), ("unipc", 5)])
def test_evaluations_are_what_the_solver_promises(solver, evaluations):
    model = Counting(perfect())
    assert isinstance(model, Diffusion)
    sample_latents(model, NOISE, solver=solver, steps=5)
    assert len(model.times) == evaluations


def test_plms_evaluates_ahead_once_and_at_the_same_time_when_alone():
    model = Counting(perfect())
    sample_latents(model, NOISE, solver="plms", times="original", steps=4)
    assert [t for t, _ in model.times] == [16, 11, 11, 6, 1]
    model = Counting(perfect())
    sample_latents(model, NOISE, solver="plms", times=torch.tensor([16]))
    assert [t for t, _ in model.times] == [16, 16]


def test_plms_formulas():
    """With eps 1, 2, 3, 4 in a row the four formulas give what is written in the paper (eq. 12)."""
    now, following = Point(2, 0.6, 0.8), Point(1, 0.8, 0.6)
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)

    def evaluation(eps: float) -> Evaluation:
        return Evaluation(now, x, x - eps * now.sigma / now.alpha)

    for count, expected in [
        (1, (3 * 4 - 3) / 2),
        (2, (23 * 4 - 16 * 3 + 5 * 2) / 12),
        (3, 95 / 24 + 1 - 1 / 3),
    ]:
        history = tuple(evaluation(e) for e in (1.0, 2.0, 3.0))[-count:]
        moment = Moment(x, now, following, False, history, None, lambda *_: evaluation(4.0), lambda at: at)
        eps = expected if count < 3 else (55 * 4 - 59 * 3 + 37 * 2 - 9 * 1) / 24
        advance = Plms().step(moment)
        assert advance.x0.item() == pytest.approx(-0.8 * eps / 0.6)
        assert advance.x.item() == pytest.approx(0.8 * advance.x0.item() + 0.6 * eps)


@pytest.mark.parametrize("steps", [20, 6])
def test_ddpm_is_ddim_with_eta_one(steps):
    noises = torch.randn(steps, *NOISE.shape, generator=torch.Generator().manual_seed(4))
    ddpm = walk(perfect(), NOISE, solver="ddpm", steps=steps, noises=noises, temperature=0.7)
    ddim = walk(perfect(), NOISE, solver="ddim", eta=1.0, steps=steps, noises=noises, temperature=0.7)
    for one, other in zip(ddpm, ddim, strict=True):
        torch.testing.assert_close(one.x, other.x, rtol=1e-4, atol=1e-5)


def test_temperature_scales_the_noise_and_nothing_else():
    noises = torch.randn(4, *NOISE.shape, generator=torch.Generator().manual_seed(4))
    kwargs = {"solver": "ddim", "eta": 0.8, "steps": 4}
    half = sample_latents(perfect(), NOISE, noises=noises, temperature=0.5, **kwargs)
    assert torch.equal(half, sample_latents(perfect(), NOISE, noises=noises / 2, **kwargs))


def test_the_lcm_keeps_nothing_of_the_noise_before():
    """Whatever x was: its x0, and the noise of the step; at the end x0 alone."""
    noises = torch.randn(3, *NOISE.shape, generator=torch.Generator().manual_seed(4))
    grid = {"solver": "lcm", "times": torch.tensor([19, 12, 5]), "noises": noises}
    steps = list(walk(perfect(), NOISE, temperature=0.5, **grid))
    for step, following, noise in zip(steps, (12, 5), noises, strict=False):
        point = point_at(following)
        torch.testing.assert_close(step.x, point.alpha * step.x0 + 0.5 * point.sigma * noise)
    assert torch.equal(steps[-1].x, steps[-1].x0)


def test_more_noises_than_steps_are_left_over_and_fewer_are_refused():
    noises = torch.randn(6, *NOISE.shape)
    kwargs = {"solver": "ddim", "eta": 1.0, "steps": 5}
    given = sample_latents(perfect(), NOISE, noises=noises, **kwargs)
    assert torch.equal(given, sample_latents(perfect(), NOISE, noises=list(noises[:5]), **kwargs))
    with pytest.raises(InputError, match="4 entries and 5 steps"):
        walk(perfect(), NOISE, noises=noises[:4], **kwargs)


@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_a_sample_has_the_same_noise_in_any_batch(solver):
    kwargs = {"solver": solver, "eta": 1.0 if solver == "ddim" else 0.0, "steps": 5}
    together = sample_latents(perfect(), NOISE, step_noise=seeded_noise((2, 1, 1), seed=7, indices=[0, 1]), **kwargs)
    alone = sample_latents(perfect(), NOISE[1:], step_noise=seeded_noise((2, 1, 1), seed=7, indices=[1]), **kwargs)
    torch.testing.assert_close(together[1:], alone)
    default = sample_latents(perfect(), NOISE, **kwargs)
    assert torch.equal(default, sample_latents(perfect(), NOISE, **kwargs))
    assert not torch.equal(default, together)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_constraint_acts_on_x_before_every_step(solver):
    """A constraint that fixes the first channel: each step starts from it, whatever the solver did before."""
    seen = []

    def constraint(x, t, index):
        seen.append((t[0].item(), index))
        return torch.cat([torch.full_like(x[:, :1], 0.25), x[:, 1:]], dim=1)

    starts = []
    model = perfect()

    class Watching:
        schedule, prediction = model.schedule, model.prediction

        @staticmethod
        def network(x_t, t, conditions):
            starts.append((t[0].item(), x_t[:, 0].clone()))
            return model.network(x_t, t, conditions)

    times = [step.t for step in walk(Watching(), NOISE, solver=solver, steps=4, constraint=constraint)]
    assert list(dict.fromkeys(seen)) == list(zip(times, range(4), strict=True))
    first_at = dict(reversed(starts))
    ahead = {"plms", "heun"}  # these also evaluate at provisional points
    if solver not in ahead:
        assert all((first_at[t] == 0.25).all() for t in times)
    assert (first_at[times[0]] == 0.25).all()


def test_unipc_steps_on_from_the_constrained_x_and_not_from_its_correction():
    fixed, calls = torch.full_like(NOISE, 0.3), []

    def constraint(x, t, index):
        calls.append(index)
        return fixed

    times = Times(torch.tensor([15, 10, 5]), end=2)
    steps = list(walk(perfect(), NOISE, solver="unipc", times=times, constraint=constraint))
    assert calls == [0, 1, 1, 2, 2]
    points = [point_at(t) for t in (10, 5, 2)]
    l = [point.log_ratio for point in points]
    h = l[2] - l[1]
    slope = (steps[2].x0 - steps[1].x0) / ((l[1] - l[0]) / h)
    grow = points[2].alpha * (1 - math.exp(-h))
    expected = points[2].sigma / points[1].sigma * fixed + grow * (steps[2].x0 + slope / 2)
    torch.testing.assert_close(steps[2].x, expected)


def test_masked_walk_ends_with_the_known_part_free_of_a_paste():
    """As in the original, nothing is pasted after the last step: the known part is what the solver makes."""
    known = torch.zeros_like(NOISE)
    found = sample_latents(perfect(), NOISE, steps=5, constraint=lambda x, t, i: known)
    assert not torch.equal(found, known)


def test_original_times_end_at_time_0_and_not_at_clean():
    *_, last = walk(perfect(), NOISE, times="original", steps=4)
    assert last.t == 1
    sigma = TWENTY.sigma(torch.tensor(0)).item()
    alpha = TWENTY.alpha(torch.tensor(0)).item()
    here = TWENTY.alpha(torch.tensor(1)).item(), TWENTY.sigma(torch.tensor(1)).item()
    *_, before, _ = walk(perfect(), NOISE, times="original", steps=4)
    eps = (before.x - here[0] * last.x0) / here[1]
    torch.testing.assert_close(last.x, alpha * last.x0 + sigma * eps, rtol=1e-4, atol=1e-5)


def test_continuous_time_reaches_the_network_in_the_type_of_x():
    model = perfect(FlowSchedule(), "velocity")

    class Watching:
        schedule, prediction = model.schedule, model.prediction

        @staticmethod
        def network(x_t, t, conditions):
            assert t.dtype == x_t.dtype == torch.float32
            return model.network(x_t, t, conditions)

    found = list(walk(Watching(), NOISE, steps=4))
    assert [step.t for step in found] == [1.0, 0.75, 0.5, 0.25]


def test_inference_mode_is_fine():
    with torch.inference_mode():
        assert sample_latents(perfect(), NOISE, steps=3).shape == NOISE.shape


def test_gradients_stay_on_for_whoever_watches():
    for _ in walk(perfect(), NOISE, steps=2):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"solver": "dimm"}, "did you mean 'ddim'"),
        ({"solver": "euler", "eta": 0.5}, "'euler' has none"),
        ({"solver": "heun", "temperature": 0.5}, "adds no noise"),
        ({"solver": "lcm", "eta": 0.5}, "'lcm' has none"),
        ({"eta": -1.0}, "cannot be negative"),
        ({"steps": 21}, "more steps than times"),
        ({"steps": 0}, "at least 1"),
        ({"guidance": 2.0}, "null"),
        ({"times": "orignal"}, "did you mean 'original'"),
        ({"eta": 5.0}, r"eta=5 adds more noise than time .* holds; at most"),
        ({"solver": "dpm++2m", "eta": 5.0}, r"eta=5 adds more noise than time .* holds; at most"),
        ({"eta": 1.0, "noises": [NOISE] * 4 + [NOISE[:1]]}, r"noises\[4\] has shape \(1, 2, 1, 1\), .* \(2, 2, 1, 1\)"),
        (
            {"guidance": 2.0, "null": Conditions(), "guidance_interval": (2.0, 0.5)},
            r"guidance_interval=\(2, 0.5\) does not fit",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_once(wrong, words):
    with pytest.raises(InputError, match=words):
        walk(perfect(), NOISE, **({"steps": 5} | wrong))


def test_an_eta_beyond_what_a_step_holds_is_refused():
    now, following = Point(2, 0.6, 0.8), Point(1, 0.8, 0.6)
    most = 0.8 / (0.64 - 0.36 * 0.5625) ** 0.5
    assert noise_amplitude(now, following, eta=most) == pytest.approx(0.6)
    with pytest.raises(InputError, match=r"at most 1\.21"):
        noise_amplitude(now, following, eta=1.5)


def test_every_name_builds_a_solver():
    for name in (*SOLVERS, "dpmpp-2m"):
        assert isinstance(build_solver(name), Solver)
    assert build_solver("dpmpp-2m") == build_solver("dpm++2m")
    assert [name for name in SOLVERS if build_solver(name).stochastic] == ["ddpm", "ddpm-large", "lcm"]
    assert build_solver("ddim", eta=0.5).stochastic


def test_a_walk_may_stop_at_an_interior_time():
    *_, last = walk(perfect(), NOISE, times=Times(torch.tensor([15, 10]), end=5))
    rest = sample_latents(perfect(), last.x, times=Times(torch.tensor([5, 2]), end=-1))
    whole = sample_latents(perfect(), NOISE, times=torch.tensor([15, 10, 5, 2]))
    torch.testing.assert_close(rest, whole)


def test_conditions_reach_the_network():
    asked = []
    model = perfect()

    class Watching:
        schedule, prediction = model.schedule, model.prediction

        @staticmethod
        def network(x_t, t, conditions):
            asked.append(conditions)
            return model.network(x_t, t, conditions)

    vector = Conditions(vector=torch.ones(2, 3))
    sample_latents(Watching(), NOISE, steps=1, conditions=vector)
    assert asked == [vector]


def test_a_stochastic_solver_without_noise_is_a_mistake_of_the_caller():
    moment = Moment(NOISE, point_at(5), point_at(2), False, (), None, lambda *_: None, lambda x: x)
    with pytest.raises(ValueError, match="no noise"):
        moment.drawn()


def test_whole_numbers_are_numbers():
    model = Perfect(three_lumps(), FlowSchedule())
    noise = torch.randn(2, 2, 1, 1, dtype=torch.float64)
    plain = sample_latents(model, noise, solver="ddim", steps=3, eta=0, guidance=1, guidance_rescale=0, temperature=1)
    torch.testing.assert_close(plain, sample_latents(model, noise, solver="ddim", steps=3))

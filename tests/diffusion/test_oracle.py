"""Every solver against perfect denoisers in float64: how fast it converges, and to what.

`pytest tests/diffusion/test_oracle.py -s` prints the measured slopes.
"""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from oracle import Perfect, gaussian, three_lumps

from darkroom.core.conditions import Conditions
from darkroom.diffusion.denoiser import Denoiser
from darkroom.diffusion.solvers.solver import NEARLY_NOISE
from darkroom.diffusion.walk import sample_latents
from darkroom.process.prediction import build_prediction
from darkroom.process.schedule import CosineFlowSchedule, CosineSpec, FlowSchedule, LinearSpec, build_schedule
from darkroom.process.times import Times
from darkroom.recipes.read import groups, recipe

SCHEDULES = {"flow": FlowSchedule(), "cosine-flow": CosineFlowSchedule()}
COUNTS = (24, 48, 96, 192)
START, END = 0.9, 0.1


def largest_error(solver, schedule, steps, *, draws):
    """From START to END in even steps of time, against the exact path alpha mean + std(t) constant."""
    mixture = gaussian()
    ends = torch.tensor([START, END], dtype=torch.float64)
    alpha, sigma = schedule.alpha(ends), schedule.sigma(ends)
    noisy, exact = (
        a * mixture.means + (a**2 * mixture.variances + s**2).sqrt() * draws for a, s in zip(alpha, sigma, strict=True)
    )
    t = torch.linspace(START, END, steps + 1, dtype=torch.float64)
    found = sample_latents(Perfect(mixture, schedule), noisy, solver=solver, times=Times(t[:-1], end=t[-1].item()))
    return (found - exact).abs().max().item()


def measured_slopes(solver, schedule):
    """Slopes of the error between successive doublings of the step count; prints its line of the table."""
    draws = torch.randn(8, 4, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors = [largest_error(solver, SCHEDULES[schedule], n, draws=draws) for n in COUNTS]
    slopes = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    spans = (f"{a}-{b}: {slope:.3f}" for (a, b), slope in zip(itertools.pairwise(COUNTS), slopes, strict=True))
    print(f"\n{solver:8} {schedule:12} slope at steps {'  '.join(spans)}  error {errors[-1]:.1e}", end="")
    return slopes


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("solver", "order", "within"),
    [
        ("euler", 1, 0.01),
        ("ddim", 1, 0.01),
        ("plms", 2, 0.05),
        ("heun", 2, 0.02),
        ("dpm++2m", 2, 0.02),
        ("unipc", 3, 0.2),
    ],
)
def test_solvers_have_their_order(solver, order, within, schedule):
    """The slope between the two finest grids, and its limit by Richardson.

    The first-order first step lets DPM-Solver++ 2M approach 2 from below (1.99 at 512 steps); UniPC's
    corrector makes the whole third order.
    """
    *_, coarse, fine = measured_slopes(solver, schedule)
    assert fine == pytest.approx(order, abs=0.15)
    assert 2 * fine - coarse == pytest.approx(order, abs=within)


def test_dpm_solver_is_second_order_on_a_grid_even_in_log_snr():
    """Even in log(alpha / sigma), as its derivation has it, between t = 0.8 and 0.2 of the cosine schedule."""
    schedule, mixture = CosineFlowSchedule(), gaussian()
    draws = torch.randn(8, 4, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor([0.8, 0.2], dtype=torch.float64)
    alpha, sigma = schedule.alpha(ends), schedule.sigma(ends)
    noisy, exact = (
        a * mixture.means + (a**2 * mixture.variances + s**2).sqrt() * draws for a, s in zip(alpha, sigma, strict=True)
    )
    errors = []
    for steps in (16, 32, 64, 128):
        ratios = torch.linspace(*(alpha / sigma).log().tolist(), steps + 1, dtype=torch.float64)
        t = torch.atan(torch.exp(-ratios)) * 2 / math.pi
        grid = Times(t[:-1], end=t[-1].item())
        found = sample_latents(Perfect(mixture, schedule), noisy, solver="dpm++2m", times=grid)
        errors.append((found - exact).abs().max().item())
    slopes = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    print(f"\ndpm++2m, even in log-SNR: {', '.join(f'{slope:.3f}' for slope in slopes)}")
    assert all(2 <= slope < 2.05 for slope in slopes)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_euler_and_deterministic_ddim_are_one(schedule):
    model = Perfect(three_lumps(), SCHEDULES[schedule])
    noise = torch.randn(4, 2, 1, 1, dtype=torch.float64)
    euler, ddim = (sample_latents(model, noise, solver=name, steps=9) for name in ("euler", "ddim"))
    torch.testing.assert_close(euler, ddim)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("solver", "eta", "steps"),
    [
        ("ddpm", 0.0, 200),
        ("ddim", 1.0, 200),
        ("ddim", 0.5, 150),
        ("ddim", 0.0, 150),
        ("plms", 0.0, 40),
        ("heun", 0.0, 40),
        ("dpm++2m", 0.0, 40),
        ("dpm++2m", 0.5, 60),
        ("dpm++2m", 1.0, 60),
        ("unipc", 0.0, 40),
    ],
)
def test_samples_of_a_mixture_have_its_mean_and_covariance(solver, eta, steps, schedule):
    """From pure noise (alpha = 0) to clean data, 8000 samples: chance alone moves a moment by about 0.013."""
    mixture, count = three_lumps(), 8000
    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(count, 2, 1, 1, dtype=torch.float64, generator=draw)
    found = sample_latents(
        Perfect(mixture, SCHEDULES[schedule], build_prediction("v")),
        noise,
        solver=solver,
        eta=eta,
        steps=steps,
        step_noise=lambda _: torch.randn(count, 2, 1, 1, dtype=torch.float64, generator=draw),
    ).flatten(1)
    torch.testing.assert_close(found.mean(dim=0), mixture.mean(), atol=0.05, rtol=0)
    torch.testing.assert_close(found.T.cov(), mixture.covariance(), atol=0.05, rtol=0)


@dataclass(frozen=True)
class _Imperfect:
    """Off by a hundredth, differently at each time, as every network is."""

    perfect: Perfect

    def network(self, x_t, t, conditions):
        return self.perfect.network(x_t, t, conditions) + 0.01 * torch.sin(3.0 * t.double()).view(-1, 1, 1, 1)

    @property
    def schedule(self):
        return self.perfect.schedule

    @property
    def prediction(self):
        return self.perfect.prediction


@pytest.mark.parametrize("solver", ["ddim", "plms", "heun", "dpm++2m", "unipc"])
def test_a_small_error_stays_small_from_nearly_pure_noise_on(solver):
    """The cosine schedule begins at sigma / alpha = 20,000, so many times as large is an error of eps in x0 there."""
    perfect = Perfect(gaussian(), build_schedule(CosineSpec()), build_prediction("v"))
    noise = torch.randn(64, 4, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact, found = (
        sample_latents(model, noise, solver=name, steps=steps)
        for model, name, steps in ((perfect, "ddim", 200), (_Imperfect(perfect), solver, 20))
    )
    assert (found - exact).abs().mean() < 0.15


@pytest.mark.parametrize("name", [each for each in groups()["latent models of the paper"] if recipe(each).denoiser])
def test_published_schedules_do_not_begin_with_nearly_pure_noise(name):
    """So PLMS steps on them as the original does."""
    schedule = build_schedule(recipe(name).denoiser.schedule)
    last = torch.tensor([recipe(name).denoiser.schedule.steps - 1])
    assert schedule.sigma(last) / schedule.alpha(last) < NEARLY_NOISE


def test_the_stochastic_dpm_solver_needs_fewer_steps_than_ancestral_ddim():
    """Spread of a Gaussian after few steps, 50,000 samples: chance alone moves it by about 0.002."""
    mixture, schedule, count = gaussian(), SCHEDULES["cosine-flow"], 50_000
    errors = {}
    for solver in ("ddim", "dpm++2m"):
        draw = torch.Generator().manual_seed(4)
        start = torch.tensor([START], dtype=torch.float64)
        alpha, sigma = schedule.alpha(start), schedule.sigma(start)
        std = (alpha**2 * mixture.variances + sigma**2).sqrt()
        noise = torch.randn(count, *mixture.means.shape[1:], dtype=torch.float64, generator=draw)
        t = torch.linspace(START, END, 11, dtype=torch.float64)
        found = sample_latents(
            Perfect(mixture, schedule),
            alpha * mixture.means + std * noise,
            solver=solver,
            eta=1.0,
            times=Times(t[:-1], end=t[-1].item()),
            noises=torch.randn(10, *noise.shape, dtype=torch.float64, generator=draw),
        )
        end = torch.tensor([END], dtype=torch.float64)
        exact = (schedule.alpha(end) ** 2 * mixture.variances + schedule.sigma(end) ** 2).sqrt()
        errors[solver] = (found.std(dim=0) - exact[0]).abs().max().item()
    assert errors["dpm++2m"] < 0.4 * errors["ddim"]


def test_a_first_step_of_the_stochastic_dpm_solver_is_one_of_ddim():
    model = Perfect(three_lumps(), SCHEDULES["flow"])
    noise, noises = torch.randn(4, 2, 1, 1, dtype=torch.float64), torch.randn(1, 4, 2, 1, 1, dtype=torch.float64)
    grid = Times(torch.tensor([0.8], dtype=torch.float64), end=0.5)
    one, other = (
        sample_latents(model, noise, solver=name, eta=0.7, temperature=0.9, times=grid, noises=noises)
        for name in ("ddim", "dpm++2m")
    )
    torch.testing.assert_close(one, other)


def test_the_ddpm_with_the_larger_variance_spreads_more():
    mixture, schedule = three_lumps(), build_schedule(LinearSpec(steps=20, start=0.05, end=0.6))
    noise = torch.randn(2000, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    noises = torch.randn(20, *noise.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    small, large = (
        sample_latents(Perfect(mixture, schedule), noise, solver=name, steps=20, noises=noises)
        for name in ("ddpm", "ddpm-large")
    )
    assert large.std() > small.std()


def test_the_perfect_denoiser_is_the_posterior_mean():
    """The oracle itself, by brute force: x0 averaged over a fine grid with weights p(x0) p(x_t | x0)."""
    mixture, schedule = three_lumps(), FlowSchedule()
    axis = torch.linspace(-4, 4, 401, dtype=torch.float64)
    x0 = torch.cartesian_prod(axis, axis)
    x_t, t = torch.tensor([0.3, -0.4], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    spread = x0[:, None] - mixture.means.flatten(1)
    variances = mixture.variances.flatten(1)
    prior = (mixture.weights * (-0.5 * (spread**2 / variances + variances.log()).sum(-1)).exp()).sum(-1)
    posterior = prior * (-0.5 * ((x_t - 0.5 * x0) ** 2).sum(-1) / 0.25).exp()
    expected = (posterior[:, None] * x0).sum(0) / posterior.sum()
    model = Perfect(mixture, schedule)
    found = Denoiser(model.network, schedule, model.prediction)(x_t.reshape(1, 2, 1, 1), t, Conditions())
    torch.testing.assert_close(found.flatten(), expected)

"""Predictions are inverse maps, and impossible pairs are refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.core.errors import SpecError
from darkroom.process.prediction import Prediction, build_prediction, check_prediction
from darkroom.process.schedule import (
    CosineFlowSpec,
    CosineSpec,
    FlowSpec,
    LinearSpec,
    add_noise,
    build_schedule,
    coefficients,
)

NAMES = ("eps", "x0", "v", "velocity")
SCHEDULES = (LinearSpec(), CosineSpec(), FlowSpec(), CosineFlowSpec(), LinearSpec(zero_terminal_snr=True))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(NAMES), st.sampled_from(SCHEDULES), st.floats(0.02, 0.97), st.integers(0, 2**31))
def test_x0_undoes_target(name, spec, fraction, seed):
    schedule, prediction = build_schedule(spec), build_prediction(name)
    assert isinstance(prediction, Prediction)
    assert prediction.name == name
    last = schedule.noisiest
    t = torch.tensor([int(last * fraction)] if schedule.steps else [last * fraction])
    x0, eps = torch.randn(2, 1, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    alpha, sigma = coefficients(schedule, t, like=x0)
    x_t = add_noise(schedule, x0, noise=eps, t=t)
    target = prediction.target(x0, eps, alpha=alpha, sigma=sigma)
    back = prediction.x0(target, x_t, alpha=alpha, sigma=sigma)
    torch.testing.assert_close(back, x0, rtol=1e-8, atol=1e-8)
    moved = prediction.x0(target + 1, x_t, alpha=alpha, sigma=sigma)
    expected = prediction.sensitivity(alpha=alpha, sigma=sigma).expand_as(x0)
    torch.testing.assert_close((moved - back).abs(), expected, rtol=1e-6, atol=1e-6)


def test_velocity_is_the_time_derivative_of_the_straight_path():
    schedule, prediction = build_schedule(FlowSpec()), build_prediction("velocity")
    x0, eps = torch.randn(2, 1, 2, 3, 3, dtype=torch.float64)
    t = torch.tensor([0.4], dtype=torch.float64)
    ahead, behind = (add_noise(schedule, x0, noise=eps, t=t + d) for d in (1e-4, -1e-4))
    alpha, sigma = coefficients(schedule, t, like=x0)
    target = prediction.target(x0, eps, alpha=alpha, sigma=sigma)
    torch.testing.assert_close((ahead - behind) / 2e-4, target, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (FlowSpec(), "eps"),
        (CosineFlowSpec(), "eps"),
        (LinearSpec(zero_terminal_snr=True), "eps"),
        (LinearSpec(), "velocity"),
        (CosineFlowSpec(), "velocity"),
    ],
)
def test_impossible_pairs_are_refused(spec, name):
    with pytest.raises(SpecError, match=f"'{name}'"):
        check_prediction(build_schedule(spec), build_prediction(name))


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (LinearSpec(), "eps"),
        (CosineSpec(), "eps"),
        (LinearSpec(zero_terminal_snr=True), "v"),
        (FlowSpec(), "velocity"),
        (FlowSpec(), "v"),
        (CosineFlowSpec(), "v"),
    ],
)
def test_possible_pairs_pass(spec, name):
    check_prediction(build_schedule(spec), build_prediction(name))


def test_unknown_prediction():
    with pytest.raises(SpecError, match="did you mean 'velocity'"):
        build_prediction("velocty")

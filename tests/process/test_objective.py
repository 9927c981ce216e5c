"""Weights in closed form, and objectives that cannot be."""

import pytest
import torch
from pydantic import ValidationError

from darkroom.core.errors import SpecError
from darkroom.process.objective import (
    LogitNormalTimesSpec,
    MinSnrSpec,
    ObjectiveSpec,
    ShiftedTimesSpec,
    UniformSpec,
    UniformTimesSpec,
    check_objective,
    error,
    variational_weight,
    way_to_noise,
    weight,
)
from darkroom.process.prediction import build_prediction
from darkroom.process.schedule import FlowSpec, LinearSpec, build_schedule, original_buffers

T = torch.tensor([0, 10, 200, 500, 999])
LIKE = torch.zeros(5, 1, 1, 1)


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
def test_min_snr_is_its_closed_form(name):
    schedule = build_schedule(LinearSpec())
    snr = (schedule.alpha(T) / schedule.sigma(T)) ** 2
    clipped = torch.minimum(snr, torch.tensor(5.0))
    expected = {"eps": clipped / snr, "x0": clipped, "v": clipped / (snr + 1)}[name]
    found = weight(MinSnrSpec(), schedule=schedule, prediction=build_prediction(name), t=T, like=LIKE)
    torch.testing.assert_close(found, expected.float())
    assert snr[0] > 5 > snr[-1]


def test_min_snr_for_velocity_weighs_the_error_of_x0():
    """On the straight path x0 = x_t - t u, so an error of u moves x0 by t: min(snr, gamma) t^2."""
    t = torch.tensor([0.1, 0.9], dtype=torch.float64)
    found = weight(
        MinSnrSpec(gamma=2.0),
        schedule=build_schedule(FlowSpec()),
        prediction=build_prediction("velocity"),
        t=t,
        like=LIKE[:2].double(),
    )
    expected = (((1 - t) / t) ** 2).clamp(max=2.0) * t**2
    torch.testing.assert_close(found, expected)


def test_uniform_is_one():
    found = weight(
        UniformSpec(), schedule=build_schedule(LinearSpec()), prediction=build_prediction("v"), t=T, like=LIKE
    )
    assert torch.equal(found, torch.ones(5))


def test_errors_are_means_per_sample_in_float32():
    output = torch.tensor([[[[1.0, -3.0]]], [[[2.0, 0.0]]]], dtype=torch.bfloat16)
    target = torch.zeros(2, 1, 1, 2, dtype=torch.bfloat16)
    assert error(output, target, loss="l1").tolist() == [2.0, 1.0]
    assert error(output, target, loss="l2").tolist() == [5.0, 2.0]
    assert error(output, target, loss="l2").dtype == torch.float32


def test_variational_weights_are_the_originals():
    schedule = build_schedule(LinearSpec())
    found = variational_weight(schedule, build_prediction("eps"), t=T)
    assert torch.equal(found, original_buffers(schedule)["lvlb_weights"][T])
    with pytest.raises(SpecError, match="'v'"):
        variational_weight(schedule, build_prediction("v"), t=T)


@pytest.mark.parametrize(
    ("objective", "spec", "name"),
    [
        (ObjectiveSpec(learn_log_variance=True), FlowSpec(), "velocity"),
        (ObjectiveSpec(variational_weight=1e-3), FlowSpec(), "x0"),
        (ObjectiveSpec(variational_weight=1e-3), LinearSpec(), "v"),
    ],
)
def test_impossible_objectives_are_refused(objective, spec, name):
    with pytest.raises(SpecError, match=r"learn_log_variance|variational_weight"):
        check_objective(objective, schedule=build_schedule(spec), prediction=build_prediction(name))


def test_possible_objectives_pass():
    full = ObjectiveSpec(loss="l1", learn_log_variance=True, variational_weight=1e-3)
    check_objective(full, schedule=build_schedule(LinearSpec()), prediction=build_prediction("eps"))
    check_objective(
        ObjectiveSpec(weighting=MinSnrSpec()),
        schedule=build_schedule(FlowSpec()),
        prediction=build_prediction("v"),
    )


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_shifted_times_have_their_median_where_the_formula_says(factor):
    share = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    way = way_to_noise(ShiftedTimesSpec(factor=factor), share)
    assert float((way < factor / (1 + factor)).double().mean()) == 0.5
    assert 0 < float(way.min()) < float(way.max()) < 1
    assert bool((way.diff() > 0).all())
    snr = ((1 - way) / way) / ((1 - share) / share)  # on the straight path noise grows by the factor (eq. 23)
    torch.testing.assert_close(snr, torch.full_like(share, 1 / factor))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-0.5, 0.6), (1.0, 2.0)])
def test_logits_of_logit_normal_times_are_normal(mean, deviation):
    share = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    logits = torch.logit(way_to_noise(LogitNormalTimesSpec(mean=mean, deviation=deviation), share))
    assert float(logits.mean()) == pytest.approx(mean, abs=1e-6)
    assert float(logits.std()) == pytest.approx(deviation, rel=1e-4)
    within = (logits - mean).abs() < deviation
    assert float(within.double().mean()) == pytest.approx(0.6827, abs=1e-4)
    ends = way_to_noise(LogitNormalTimesSpec(), torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == [0, 1]


@pytest.mark.parametrize("field", [{"mean": float("nan")}, {"mean": 1e300}, {"deviation": float("inf")}])
def test_times_without_a_middle_are_refused(field):
    with pytest.raises(ValidationError):
        LogitNormalTimesSpec(**field)


def test_uniform_times_are_the_draws():
    share = torch.tensor([0.0, 0.3, 0.999])
    assert torch.equal(way_to_noise(UniformTimesSpec(), share), share)

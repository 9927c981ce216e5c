"""Schedules: ends, identities, and the shared door of specs."""

import pytest
import torch
from pydantic import TypeAdapter

from darkroom.core.errors import InputError, SpecError
from darkroom.core.spec import Spec, parse
from darkroom.process.prediction import build_prediction, check_prediction
from darkroom.process.schedule import (
    CosineFlowSpec,
    CosineSpec,
    FlowSpec,
    LinearSpec,
    Schedule,
    ScheduleSpec,
    SqrtSpec,
    TableSpec,
    TrueLinearSpec,
    add_noise,
    build_schedule,
    original_buffers,
)
from darkroom.process.times import choose_times
from originals import posterior

DISCRETE = [
    LinearSpec(steps=50),
    CosineSpec(steps=50),
    TrueLinearSpec(steps=50),
    SqrtSpec(steps=50, end=0.01),
]
ALL = [*DISCRETE, FlowSpec(), CosineFlowSpec()]


def grid(schedule: Schedule) -> torch.Tensor:
    if schedule.steps is not None:
        return torch.arange(-1, schedule.steps)
    return torch.linspace(0, 1, 11, dtype=torch.float64)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.kind)
def test_clean_is_clean_and_noise_rises(spec):
    schedule = build_schedule(spec)
    assert isinstance(schedule, Schedule)
    t = grid(schedule)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert t[0] == schedule.clean
    assert t[-1] == schedule.noisiest
    assert (alpha[0], sigma[0]) == (1, 0)
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()
    assert alpha.dtype == sigma.dtype == torch.float64


@pytest.mark.parametrize("time", [50, 1000, -2])
def test_times_that_are_none_are_refused(time):
    """T would read as clean and -2 as pure noise, for both are places of one table."""
    schedule = build_schedule(LinearSpec(steps=50))
    t = torch.tensor([3, time])
    for level in (schedule.alpha, schedule.sigma):
        with pytest.raises(InputError, match=rf"time {time} lies outside -1 \(clean\) to 49 \(noisiest\)"):
            level(t)
    with pytest.raises(InputError, match="lies outside"):
        add_noise(schedule, torch.zeros(2, 1, 1, 1), noise=torch.ones(2, 1, 1, 1), t=t)


@pytest.mark.parametrize("spec", [*DISCRETE, CosineFlowSpec()], ids=lambda spec: spec.kind)
def test_variance_is_preserved(spec):
    schedule = build_schedule(spec)
    t = grid(schedule)
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(len(t)).double())


def test_flow_is_a_straight_line():
    schedule = build_schedule(FlowSpec())
    t = torch.tensor([[0.25, 0.5]])
    assert torch.equal(schedule.alpha(t), torch.tensor([[0.75, 0.5]]).double())
    assert torch.equal(schedule.sigma(t), t.double())


@pytest.mark.parametrize("kind", [LinearSpec, CosineSpec, TrueLinearSpec])
def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_the_beginning(kind):
    plain, zero = build_schedule(kind(steps=100)), build_schedule(kind(steps=100, zero_terminal_snr=True))
    first, last = torch.tensor([0]), torch.tensor([99])
    assert zero.alpha(last).item() == 0
    assert zero.sigma(last).item() == 1
    torch.testing.assert_close(zero.alpha(first), plain.alpha(first))
    middle = torch.arange(100)
    shifted = plain.alpha(middle) - plain.alpha(last)
    expected = shifted * plain.alpha(first) / shifted[0]
    torch.testing.assert_close(zero.alpha(middle), expected, rtol=1e-9, atol=1e-12)


def test_posterior_is_the_product_of_two_gaussians():
    """q(x_{t-1} | x_t, x0) by Bayes: precisions add, means weigh by precision."""
    schedule = build_schedule(LinearSpec(steps=30))
    t = torch.tensor([3, 29])
    x0, x_t = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = posterior(schedule, x0=x0, x_t=x_t, t=t)
    beta = schedule.betas[t].reshape(2, 1, 1, 1)
    prior_mean = schedule.alpha(t - 1).reshape(2, 1, 1, 1) * x0
    prior_variance = schedule.sigma(t - 1).reshape(2, 1, 1, 1) ** 2
    precision = 1 / prior_variance + (1 - beta) / beta
    torch.testing.assert_close(found["var"], 1 / precision)
    mean = (prior_mean / prior_variance + (1 - beta).sqrt() * x_t / beta) / precision
    torch.testing.assert_close(found["mean"], mean)
    torch.testing.assert_close(found["logvar"], found["var"].log())


def test_posterior_at_the_first_time_is_x0_without_noise():
    schedule = build_schedule(LinearSpec(steps=30))
    x0, x_t = torch.randn(2, 1, 3, 2, 2, dtype=torch.float64)
    found = posterior(schedule, x0=x0, x_t=x_t, t=torch.tensor([0]))
    torch.testing.assert_close(found["mean"], x0)
    assert found["var"].item() == 0
    assert found["logvar"].item() == pytest.approx(-46.0517, abs=1e-3)


def test_add_noise_takes_a_time_for_each_sample():
    schedule = build_schedule(LinearSpec(steps=30))
    x0, noise = torch.randn(2, 2, 3, 2, 2)
    x_t = add_noise(schedule, x0, noise=noise, t=torch.tensor([-1, 29]))
    assert x_t.dtype == torch.float32
    assert torch.equal(x_t[0], x0[0])
    alpha = schedule.alpha(torch.tensor(29)).item()
    torch.testing.assert_close(x_t[1], alpha * x0[1] + (1 - alpha**2) ** 0.5 * noise[1])


def test_the_x0_slip_of_the_original_is_reproduced():
    schedule = build_schedule(LinearSpec(steps=30))
    buffers = original_buffers(schedule, parameterization="x0")
    power = buffers["alphas_cumprod"]
    torch.testing.assert_close(buffers["lvlb_weights"][5], 0.5 * power[5].sqrt() / (2 - power[5]))
    assert buffers["lvlb_weights"][0] == buffers["lvlb_weights"][1]


def test_specs_are_read_by_kind():
    adapter = TypeAdapter(ScheduleSpec)
    for spec in ALL:
        assert adapter.validate_python(spec.plain()) == spec


class _Holder(Spec):
    schedule: ScheduleSpec = LinearSpec()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"kind": "linaer"}, "did you mean 'linear'"),
        ({"kind": "linear", "begin": 1}, "unknown key"),
        ({"kind": "linear", "start": 0.5, "end": 0.1}, "must not shrink"),
        ({"kind": "cosine", "steps": 0}, "steps"),
    ],
)
def test_wrong_specs_are_refused(data, words):
    with pytest.raises(SpecError, match=words):
        parse(_Holder, {"schedule": data}, where="test")


@pytest.mark.parametrize("spec", [TableSpec(powers=(1.0, 0.5)), LinearSpec(start=1e-20), SqrtSpec(start=1e-40)])
def test_a_first_time_without_noise_is_refused(spec):
    """A step from there would divide by no noise."""
    with pytest.raises(SpecError, match="no noise at its first time"):
        build_schedule(spec)


def test_one_step_cannot_be_rescaled():
    with pytest.raises(SpecError, match="at least 2 steps"):
        build_schedule(LinearSpec(steps=1, zero_terminal_snr=True))


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.kind)
def test_models_built_on_the_meta_device_have_a_real_schedule(spec):
    with torch.device("meta"):
        schedule = build_schedule(spec)
        check_prediction(schedule, build_prediction("x0"))
        visited = choose_times(schedule, steps=5).visited
    assert schedule.sigma(visited).device.type == "cpu"
    assert (schedule.sigma(visited) > 0).all()

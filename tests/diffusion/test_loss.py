"""The training loss by hand."""

import pytest
import torch

from darkroom.core.conditions import Conditions
from darkroom.core.errors import SpecError
from darkroom.diffusion.loss import diffusion_loss
from darkroom.process.objective import MinSnrSpec, ObjectiveSpec
from darkroom.process.prediction import build_prediction
from darkroom.process.schedule import (
    FlowSpec,
    LinearSpec,
    add_noise,
    build_schedule,
    coefficients,
    original_buffers,
)

SCHEDULE = build_schedule(LinearSpec(steps=100))
T = torch.tensor([0, 30, 99])
LATENTS, NOISE = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def network(x_t, t, conditions):
    return 0.5 * x_t


def loss(objective, *, net=network, name="eps", schedule=SCHEDULE, t=T, **more):
    return diffusion_loss(
        net,
        LATENTS,
        t=t,
        noise=NOISE,
        conditions=Conditions(),
        schedule=schedule,
        prediction=build_prediction(name),
        objective=objective,
        **more,
    )


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_simple_loss_by_hand(kind, name):
    alpha, sigma = coefficients(SCHEDULE, T, like=LATENTS)
    target = {"eps": NOISE, "x0": LATENTS, "v": alpha * NOISE - sigma * LATENTS}[name]
    gap = 0.5 * add_noise(SCHEDULE, LATENTS, noise=NOISE, t=T) - target
    expected = (gap.abs() if kind == "l1" else gap**2).mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss(ObjectiveSpec(loss=kind), name=name), expected)


def test_the_right_answer_costs_nothing():
    assert loss(ObjectiveSpec(), net=lambda x_t, t, c: NOISE).tolist() == [0, 0, 0]


def test_the_network_gets_integer_times_and_conditions():
    seen = []

    def watching(x_t, t, conditions):
        seen.append((t, conditions))
        return x_t

    loss(ObjectiveSpec(), net=watching)
    assert seen[0][0].dtype == torch.int64
    assert seen[0][0].tolist() == T.tolist()


def test_min_snr_weighs_each_sample():
    snr = (SCHEDULE.alpha(T) / SCHEDULE.sigma(T)).float() ** 2
    weighted = loss(ObjectiveSpec(weighting=MinSnrSpec(gamma=5.0)))
    torch.testing.assert_close(weighted, loss(ObjectiveSpec()) * snr.clamp(max=5.0) / snr)


def test_log_variance_divides_and_is_added():
    simple = loss(ObjectiveSpec())
    table = torch.linspace(-1, 1, 100, requires_grad=True)
    learnt = loss(ObjectiveSpec(learn_log_variance=True), log_variance=table)
    torch.testing.assert_close(learnt, simple / table[T].exp() + table[T])
    learnt.sum().backward()
    assert (table.grad[T] != 0).all()
    assert table.grad.count_nonzero() == 3
    constant = loss(ObjectiveSpec(log_variance_init=0.3))
    torch.testing.assert_close(constant, simple / torch.tensor(0.3).exp() + 0.3)


def test_the_variational_term_is_added_with_its_weights():
    simple, weights = loss(ObjectiveSpec()), original_buffers(SCHEDULE)["lvlb_weights"][T].float()
    both = loss(ObjectiveSpec(variational_weight=0.001, simple_weight=0.5))
    torch.testing.assert_close(both, 0.5 * simple + 0.001 * weights * simple)
    alone = loss(ObjectiveSpec(variational_weight=1.0, simple_weight=0.0))
    torch.testing.assert_close(alone, weights * simple)


def test_variational_term_off_its_ground():
    with pytest.raises(SpecError, match="discrete"):
        loss(
            ObjectiveSpec(variational_weight=1.0),
            name="x0",
            schedule=build_schedule(FlowSpec()),
            t=torch.tensor([0.1, 0.5, 0.9]),
        )


def test_velocity_on_the_straight_path():
    t = torch.tensor([0.1, 0.5, 0.9])
    found = loss(ObjectiveSpec(), name="velocity", schedule=build_schedule(FlowSpec()), t=t)
    x_t = (1 - t.reshape(3, 1, 1, 1)) * LATENTS + t.reshape(3, 1, 1, 1) * NOISE
    torch.testing.assert_close(found, ((0.5 * x_t - (NOISE - LATENTS)) ** 2).mean(dim=(1, 2, 3)))


def test_reductions_are_float32_under_autocast():
    convolution = torch.nn.Conv2d(2, 2, 1)

    def half(x_t, t, conditions):
        answer = convolution(x_t)
        assert answer.dtype == torch.bfloat16
        return answer

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(ObjectiveSpec(), net=half)
    assert found.dtype == torch.float32
    exact = loss(ObjectiveSpec(), net=lambda x_t, t, c: convolution(x_t))
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0.02)

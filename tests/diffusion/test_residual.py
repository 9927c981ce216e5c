"""Beyond a guess: the algebra for every prediction, and that nothing around the network notices."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from darkroom.core.conditions import Conditions
from darkroom.core.shapes import Latent, Time
from darkroom.diffusion.denoiser import Denoiser
from darkroom.diffusion.loss import diffusion_loss
from darkroom.diffusion.residual import beyond_guess, with_known
from darkroom.diffusion.walk import walk
from darkroom.diffusion.windows import windowed
from darkroom.process.objective import ObjectiveSpec
from darkroom.process.prediction import build_prediction
from darkroom.process.schedule import CosineSpec, FlowSpec, build_schedule

SHAPE = (2, 3, 8, 8)
CASES = [
    ("eps", CosineSpec(steps=50)),
    ("x0", CosineSpec(steps=50)),
    ("v", CosineSpec(steps=50)),
    ("velocity", FlowSpec()),
]


def network(x: Latent, t: Time, conditions: Conditions) -> Latent:
    """Something that depends on all it is given, each cell by itself."""
    assert conditions.planes is not None
    return torch.tanh(x) * 0.7 + 0.1 * conditions.planes + 0.01 * t.to(x).reshape(-1, 1, 1, 1)


def given(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Conditions:
    draws = torch.Generator().manual_seed(seed)
    planes, guess = (torch.randn(shape, generator=draws, dtype=torch.float64) for _ in range(2))
    return Conditions(planes=planes, guess=guess)


def loss_of(network: Any, latents: Latent, *, spec: Any, name: str, **how: Any) -> torch.Tensor:
    """The training loss at t, noise and conditions."""
    schedule, prediction = build_schedule(spec), build_prediction(name)
    return diffusion_loss(network, latents, schedule=schedule, prediction=prediction, objective=ObjectiveSpec(), **how)


@pytest.mark.parametrize(("name", "spec"), CASES)
def test_x0_is_the_guess_and_what_the_network_says_of_the_rest(name: str, spec: Any) -> None:
    schedule, prediction = build_schedule(spec), build_prediction(name)
    conditions = given()
    assert conditions.guess is not None
    x = torch.randn(SHAPE, dtype=torch.float64)
    t = torch.tensor([3, 40]) if schedule.steps is not None else torch.tensor([0.1, 0.8], dtype=torch.float64)
    alpha = schedule.alpha(t).to(x).reshape(-1, 1, 1, 1)
    whole = Denoiser(beyond_guess(network, schedule=schedule, prediction=prediction), schedule, prediction)
    rest = Denoiser(network, schedule, prediction)
    wanted = rest(x - alpha * conditions.guess, t, conditions) + conditions.guess
    torch.testing.assert_close(whole(x, t, conditions), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "spec"), CASES)
def test_the_loss_is_that_of_the_rest(name: str, spec: Any) -> None:
    schedule, prediction = build_schedule(spec), build_prediction(name)
    conditions = given()
    assert conditions.guess is not None
    latents, noise = torch.randn(SHAPE, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    t = torch.tensor([3, 40]) if schedule.steps is not None else torch.tensor([0.1, 0.8], dtype=torch.float64)

    how = {"spec": spec, "name": name, "t": t, "noise": noise, "conditions": conditions}
    whole = loss_of(beyond_guess(network, schedule=schedule, prediction=prediction), latents, **how)
    torch.testing.assert_close(whole, loss_of(network, latents - conditions.guess, **how), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "spec"), CASES)
def test_what_is_known_is_the_guess_whatever_the_network_says(name: str, spec: Any) -> None:
    schedule, prediction = build_schedule(spec), build_prediction(name)
    known = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5).double()
    conditions = replace(given(), known=known)
    assert conditions.guess is not None
    x = torch.randn(SHAPE, dtype=torch.float64)
    t = torch.tensor([3, 40]) if schedule.steps is not None else torch.tensor([0.1, 0.8], dtype=torch.float64)
    beyond = beyond_guess(network, schedule=schedule, prediction=prediction)
    x0 = Denoiser(beyond, schedule, prediction)(x, t, conditions)
    open_x0 = Denoiser(beyond, schedule, prediction)(x, t, given())
    torch.testing.assert_close(x0, torch.where(known > 0, conditions.guess, open_x0), rtol=1e-9, atol=1e-9)
    how = {"spec": spec, "name": name, "t": t, "noise": torch.randn_like(x), "conditions": conditions}
    wrong = torch.zeros(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)

    def shifted(x: Latent, t: Time, conditions: Conditions) -> Latent:
        return network(x, t, conditions) + wrong * known

    made = beyond_guess(shifted, schedule=schedule, prediction=prediction)
    loss_of(made, with_known(x, conditions), **how).sum().backward()
    assert wrong.grad is not None
    assert not wrong.grad.any()  # a network that is wrong where all is known is not told so


def test_without_a_guess_nothing_changes() -> None:
    schedule, prediction = build_schedule(CosineSpec(steps=50)), build_prediction("v")
    conditions = Conditions(planes=torch.randn(SHAPE))
    x, t = torch.randn(SHAPE), torch.tensor([3, 40])
    made = beyond_guess(network, schedule=schedule, prediction=prediction)(x, t, conditions)
    assert torch.equal(made, network(x, t, conditions))


class Guessing:
    """What `walk` needs of a model."""

    schedule = build_schedule(CosineSpec(steps=50))
    prediction = build_prediction("v")
    network = staticmethod(beyond_guess(network, schedule=schedule, prediction=prediction))


class Plain:
    """The network without a guess."""

    schedule = build_schedule(CosineSpec(steps=50))
    prediction = build_prediction("v")
    network = staticmethod(network)


def test_a_walk_ends_at_the_guess_and_the_walk_of_the_rest() -> None:
    conditions, steps = given(), 10
    assert conditions.guess is not None
    noise = torch.randn(SHAPE, dtype=torch.float64)
    start = Guessing.schedule.alpha(torch.tensor(49)).to(noise)
    for solver in ("ddim", "dpm++2m"):
        *_, whole = walk(
            Guessing(), noise + start * conditions.guess, conditions=conditions, solver=solver, steps=steps
        )
        *_, rest = walk(Plain(), noise, conditions=conditions, solver=solver, steps=steps)
        torch.testing.assert_close(whole.x, rest.x + conditions.guess, rtol=1e-7, atol=1e-7)


def test_windows_see_their_part_of_the_guess() -> None:
    known = (torch.rand(1, 1, 12, 20, generator=torch.Generator().manual_seed(1)) < 0.5).double()
    conditions = replace(given(shape=(1, 3, 12, 20)), known=known)
    x, t = torch.randn(1, 3, 12, 20, dtype=torch.float64), torch.tensor([20])
    denoise = Denoiser(Guessing.network, Guessing.schedule, Guessing.prediction)
    in_windows = windowed(denoise, (8, 8))(x, t, conditions)  # each cell by itself: windows change nothing
    torch.testing.assert_close(in_windows, denoise(x, t, conditions), rtol=1e-6, atol=1e-6)

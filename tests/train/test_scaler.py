"""The factor that losses have in float16: exact where nothing overflows, halved where something does."""

from pathlib import Path

import pytest
import torch
from test_loop import CPU, SPEC, begin, stream
from torch import nn

from darkroom.core.compute import training_compute
from darkroom.core.errors import InputError, SpecError
from darkroom.recipes.read import recipe
from darkroom.train import scaler as module
from darkroom.train.loop import train
from darkroom.train.scaler import FIRST, Scaler
from darkroom.train.state import restore_state, save_state

FEW = SPEC.model_copy(update={"steps": 20})


def test_a_power_of_two_changes_no_bit() -> None:
    found: list[list[float]] = []
    for scaler in (None, Scaler()):
        model, training = begin()
        training.scaler = scaler
        steps = list(train(training, stream(), losses=model, spec=FEW, compute=CPU))
        found.append([float(each.values["loss"]) for each in steps] + [float(steps[-1].values["gradient"])])
    assert found[0] == found[1]


def test_gradients_that_float16_would_lose_are_kept() -> None:
    weight = nn.Parameter(torch.ones(3))
    for scaler, kept in ((Scaler(1.0), 0.0), (Scaler(), 1e-8 / 3)):
        weight.grad = None
        scaler.scaled(((weight.half() * 1e-4) * 1e-4).float().mean()).backward()
        scaler.unscale([weight])
        assert weight.grad is not None
        assert weight.grad.tolist() == pytest.approx([kept] * 3, rel=2e-3)


def test_overflow_halves_it_and_counts_for_nothing(tmp_path: Path) -> None:
    model, training = begin()
    training.scaler = Scaler(2.0**127)
    before = model.layer.weight.detach().clone()
    steps = train(training, stream(), losses=model, spec=FEW, compute=CPU)
    next(steps)
    assert training.scaler.factor == 2.0**126
    assert torch.equal(model.layer.weight, before)
    for _ in steps:
        pass
    assert training.skipped == 0
    assert not torch.equal(model.layer.weight, before)
    save_state(training, tmp_path / "state.pt")
    _, again = begin()
    again.scaler = Scaler()
    restore_state(again, tmp_path / "state.pt")
    assert again.scaler.state() == training.scaler.state() != Scaler().state()


def test_what_no_factor_mends_is_counted() -> None:
    model, training = begin()
    training.scaler = Scaler(4.0)
    bad = (batch * float("nan") for batch in stream())
    for _ in train(training, bad, losses=model, spec=FEW, compute=CPU):
        pass
    assert (training.scaler.factor, training.skipped) == (1.0, 18)


def test_it_grows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROWS_AFTER", 3)
    scaler = Scaler()
    went = [True, True, False, True, True, True, True]
    assert [scaler.learn(finite=each) for each in went] == [not each for each in went]
    assert (scaler.factor, scaler.good) == (FIRST, 4)


def test_where_it_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"float16 is for CUDA devices, this one is cpu"):
        training_compute("cpu", "float16")
    with pytest.raises(SpecError, match="rounds an adversary's gradients to zero"):
        recipe("shapes-class", overrides=["first_stage.train.precision=float16", "first_stage.loss.adversary={}"])

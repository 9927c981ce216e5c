"""The training loop, averages, learning rate and states, on a problem with a known answer."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from darkroom.core.compute import Compute
from darkroom.core.errors import ModelFileError, TrainingError
from darkroom.train.ema import Ema
from darkroom.train.loop import train
from darkroom.train.optim import TrainSpec, build_optimizer, learning_rate
from darkroom.train.state import Training, restore_state, save_state

CPU = Compute(torch.device("cpu"))
SPEC = TrainSpec(steps=200, batch=4, learning_rate=0.05, warmup=10, decay="cosine", weight_decay=0.0, ema=0.9)


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        wanted = batch.sum(1, keepdim=True) + 2
        return {"loss": ((self.layer(batch) - wanted) ** 2).mean()}


def stream(start: int = 0) -> Iterator[Tensor]:
    while True:
        yield torch.randn(4, 3, generator=torch.Generator().manual_seed(start))
        start += 1


def begin() -> tuple[Line, Training]:
    model = Line()
    parameters = list(model.parameters())
    return model, Training(model, build_optimizer(parameters, SPEC), Ema(parameters, decay=SPEC.ema))


def test_it_finds_the_line() -> None:
    model, training = begin()
    seen = list(train(training, stream(), losses=model, spec=SPEC, compute=CPU))
    assert [each.step for each in seen] == list(range(1, 201))
    assert float(seen[-1].values["loss"]) < 1e-3 < float(seen[0].values["loss"])
    assert model.layer.weight.flatten().tolist() == pytest.approx([1, 1, 1], abs=0.05)
    assert seen[-1].seconds_left == 0


def test_a_saved_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    undisturbed, training = begin()
    for _ in train(training, stream(), losses=undisturbed, spec=SPEC, compute=CPU):
        pass
    model, first = begin()
    for progress in train(first, stream(), losses=model, spec=SPEC, compute=CPU):
        if progress.step == 77:
            break
    save_state(first, tmp_path / "state.pt")
    again, second = begin()
    assert restore_state(second, tmp_path / "state.pt")
    for _ in train(second, stream(second.step), losses=again, spec=SPEC, compute=CPU):
        pass
    assert torch.equal(again.layer.weight, undisturbed.layer.weight)
    assert training.ema is not None
    assert second.ema is not None
    assert all(torch.equal(a, b) for a, b in zip(second.ema.shadow, training.ema.shadow, strict=True))


def test_no_state_is_no_error_and_a_damaged_one_is(tmp_path: Path) -> None:
    _, training = begin()
    assert not restore_state(training, tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"broken")
    with pytest.raises(ModelFileError, match="cannot be read"):
        restore_state(training, tmp_path / "state.pt")


def test_a_non_finite_loss_changes_nothing_and_is_counted() -> None:
    model, training = begin()
    before = model.layer.weight.clone()

    def losses(batch: Tensor) -> dict[str, Tensor]:
        return {"loss": model(batch)["loss"] * float("nan")}

    for progress in train(training, stream(), losses=losses, spec=SPEC, compute=CPU):
        if progress.step == 5:
            break
    assert training.skipped == 5
    assert torch.equal(model.layer.weight, before)
    with pytest.raises(TrainingError, match="not finite"):
        list(train(training, stream(), losses=losses, spec=SPEC, compute=CPU))


def test_a_loss_that_is_not_finite_counts_though_its_gradient_is() -> None:
    """A term without a gradient may be what is wrong; what the optimiser would do then is none of ours."""
    model, training = begin()
    before = model.layer.weight.clone()

    def losses(batch: Tensor) -> dict[str, Tensor]:
        return {"loss": model(batch)["loss"] + float("inf")}

    assert next(train(training, stream(), losses=losses, spec=SPEC, compute=CPU)).step == 1
    assert training.skipped == 1
    assert torch.equal(model.layer.weight, before)


def test_the_average_follows_its_formula() -> None:
    weight = nn.Parameter(torch.zeros(2))
    ema = Ema([weight], decay=0.5)
    expected = 0.0
    for n in range(6):
        with torch.no_grad():
            weight.fill_(n + 1.0)
        ema.update()
        decay = min(0.5, (2 + n) / (11 + n))  # the first update is n = 1, as in the original
        expected = decay * expected + (1 - decay) * (n + 1.0)
    assert ema.shadow[0].tolist() == pytest.approx([expected, expected])
    with ema.applied():
        assert weight.tolist() == pytest.approx([expected, expected])
    assert weight.tolist() == [6.0, 6.0]
    ema.keep()
    assert weight.tolist() == pytest.approx([expected, expected])


def test_the_learning_rate_is_the_number_written() -> None:
    rates = [learning_rate(SPEC, step) for step in range(200)]
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == pytest.approx(0.05)
    assert rates[10 + 95] == pytest.approx(0.05 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2))), rel=1e-6)
    assert rates[-1] < 0.001
    constant = SPEC.model_copy(update={"decay": "constant", "warmup": 0})
    assert {learning_rate(constant, step) for step in range(200)} == {0.05}


def test_weight_decay_leaves_biases_and_norms_alone() -> None:
    spec = SPEC.model_copy(update={"weight_decay": 0.1})
    groups = build_optimizer(list(nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2)).parameters()), spec).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.1), (3, 0.0)]

"""What a training says of itself: steps that changed nothing, leaping losses, late pictures, overfitting."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sessions import stage_of
from torch import Tensor, nn

from darkroom.core.errors import TrainingError
from darkroom.core.record import read_lines, write_lines
from darkroom.train import guard
from darkroom.train.events import Advance, Event, Sentence, Wrote
from darkroom.train.guard import SHARPNESS, VALIDATION, Usual, health, told_when_late
from darkroom.train.optim import TrainSpec


class Line(nn.Module):
    """Its loss is poisoned at some steps, and multiplied at others."""

    def __init__(self, poisoned: set[int], raised: set[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.poisoned, self.raised, self.calls = poisoned, raised, 0

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        factor = float("nan") if self.calls in self.poisoned else 9.0 if self.calls in self.raised else 1.0
        return {"loss": ((self.weight * batch).sum(1) ** 2).mean() * 0 * factor + factor}


def begin(folder: Path, *, poisoned: set[int] = frozenset(), raised: set[int] = frozenset(), held=(), steps: int = 20):
    model, figures = Line(poisoned, raised), iter(held)
    spec = TrainSpec(steps=steps, batch=2, learning_rate=1e-3, warmup=1, log_every=1, save_every=500, sample_every=4)
    stage = stage_of(model, folder, spec=spec, stage="denoiser")

    def stream() -> Iterator[Tensor]:
        while True:
            yield torch.ones(2, 3)

    def look(_: int) -> tuple[dict[str, float], list[Event]]:
        return {"validation_loss": next(figures, 1.0)}, []

    return stage, stage.run(stream(), losses=model, look=look, best=lambda: Wrote("best", folder / "best"))


class Narrow(Tensor):
    """On a device that knows no float64, as Apple's GPUs."""

    def double(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise TypeError("float64 is not supported")

    def cpu(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.as_subclass(Tensor)


def test_what_a_device_without_float64_answers_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Line.__call__
    monkeypatch.setattr(Line, "__call__", lambda self, batch: {"loss": plain(self, batch)["loss"].as_subclass(Narrow)})
    _, events = begin(tmp_path, steps=2)
    list(events)
    assert [line["loss"] for line in read_lines(tmp_path / "log.jsonl") if "loss" in line] == [1.0, 1.0]


def notes(events: Iterator[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Sentence)]


def test_a_poisoned_batch_is_told_and_changes_nothing(tmp_path: Path) -> None:
    _, events = begin(tmp_path, poisoned={3, 7, 8}, held=[1.0] * 5)
    assert notes(events) == [
        "step 3: its loss or a gradient is not finite, so it changed nothing (1 of at most 100 such steps)",
        "step 7: its loss or a gradient is not finite, so it changed nothing (2 of at most 100 such steps)",
    ]
    assert health(tmp_path, "denoiser") == ["3 steps changed nothing, for their loss or a gradient was not finite"]


def test_poison_without_end_stops_with_the_last_good_state(tmp_path: Path) -> None:
    stage, events = begin(tmp_path, poisoned=set(range(5, 500)), steps=400)
    with pytest.raises(TrainingError, match="not finite; the run stopped at step 104"):
        list(events)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(bool(value.isfinite().all()) for value in state["module"].values())
    assert state["step"] == stage.training.step == 104


def test_a_loss_that_leaps_is_told_and_logged(tmp_path: Path) -> None:
    _, events = begin(tmp_path, raised={5, 15})
    assert notes(events) == ["step 15: the loss leapt to 9, 9.0 times what is usual"]  # at 5 nothing was usual yet
    assert [line["step"] for line in read_lines(tmp_path / "log.jsonl") if "leap" in line] == [15]
    assert health(tmp_path, "denoiser") == ["the loss leapt 1 times, at last at step 15 (9.0 x)"]


def test_what_is_usual_is_known_to_a_run_that_goes_on() -> None:
    lines = [{"step": step, "loss": 1.0} for step in range(12)]
    assert Usual(lines).leap(2.0) is None
    assert Usual(lines).leap(4.0) == 4.0
    assert Usual(lines[:5]).leap(4.0) is None
    broken = Usual([{"step": 0, "loss": float("nan")}, *lines])  # of steps that changed nothing, which is said
    assert [broken.leap(loss) for loss in (float("inf"), float("nan"), 4.0)] == [None, None, 4.0]
    assert Usual([{"step": 1, "loss": -1.0}] * 20).leap(4.0) is None  # losses with a learnt variance may be negative


def test_held_out_losses_that_rise_are_told_and_the_best_model_is_kept(tmp_path: Path) -> None:
    _, events = begin(tmp_path, held=[0.5, 0.3, 0.4, 0.6, 0.2])
    seen = list(events)
    steps = [event.progress.step for event in seen if isinstance(event, Advance)]
    assert steps == list(range(1, 21))
    assert sum(isinstance(event, Wrote) for event in seen) == 3  # at 4, 8 and 20
    assert notes(iter(seen)) == [
        "the loss of held-out pictures was best at step 8 (0.3) and has become worse since (0.6 at step 16): "
        "it may be learning its pictures by heart"
    ]
    assert [line for line in read_lines(tmp_path / "log.jsonl") if "worse_since" in line] == [
        {"step": 16, "validation_loss": 0.6, "worse_since": 8}
    ]
    assert health(tmp_path, "denoiser") == []


def test_sharpness_is_the_better_the_higher() -> None:
    lines = [{"step": step, "test_psnr": value} for step, value in enumerate([20.0, 22.0, 21.0, 21.5])]
    assert SHARPNESS.best(lines) == lines[1]
    assert "was best at step 1" in str(SHARPNESS.risen(lines))
    assert SHARPNESS.risen(lines[:3]) is None
    assert VALIDATION.best(lines) is None


def test_pictures_that_do_not_come_are_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 0.05)

    def slow() -> Iterator[int]:
        yield 1
        time.sleep(0.6)
        yield 2

    with caplog.at_level(logging.WARNING, logger="darkroom"):
        assert list(told_when_late(slow(), what="the denoiser", reading=lambda: "3.tar/1.png")) == [1, 2]
    assert 2 <= len(caplog.messages) <= 4  # seldomer the longer it takes
    assert caplog.messages[0].startswith("the denoiser has waited 0 s for its pictures, now for 3.tar/1.png: does the")


def test_a_damaged_state_is_odd(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", [{"step": 1, "loss": 1.0}])
    (tmp_path / "state.pt").write_bytes(b"broken")
    (said,) = health(tmp_path, "first_stage")
    assert "this training state cannot be read" in said

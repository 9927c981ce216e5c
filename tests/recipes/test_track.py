"""What a run logs arrives elsewhere, line by line, and nothing is lost or doubled by stopping."""

import sys
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from darkroom.core.errors import InputError
from darkroom.core.record import append_line
from darkroom.recipes.track import FOLDER, check_tracker, tracked
from darkroom.train.events import Event, Note


def work(run: Path, *, first: int, last: int) -> Generator[Event]:
    """Steps of both stages, a line each; the first event comes before any line."""
    yield Note("begins")
    for stage in ("first_stage", "denoiser"):
        (run / stage).mkdir(exist_ok=True, parents=True)
        for step in range(first, last):
            append_line(run / stage / "log.jsonl", {"step": step, "loss": step / 2, "skipped": 0})
            yield Note(f"{stage} {step}")
    append_line(run / "denoiser" / "log.jsonl", {"step": last - 1, "validation_loss": 7.0})


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / FOLDER))
    found.Reload()
    return {key: [(each.step, each.value) for each in found.Scalars(key)] for key in found.Tags()["scalars"]}


def test_tensorboard_has_every_line_once_also_of_a_run_that_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra darkroom[track]")
    check_tracker("tensorboard")
    stopped = tracked(work(tmp_path, first=1, last=5), tmp_path, name="tensorboard")
    for event in stopped:
        if event == Note("denoiser 2"):
            break
    stopped.close()
    assert [step for step, _ in scalars(tmp_path)["denoiser/loss"]] == [1, 2]
    (tmp_path / "denoiser" / "log.jsonl").unlink()
    list(tracked(work(tmp_path, first=5, last=7), tmp_path, name="tensorboard"))
    found = scalars(tmp_path)
    assert found["first_stage/loss"] == [(step, step / 2) for step in range(1, 7)]
    assert found["denoiser/loss"] == [(5, 2.5), (6, 3.0)]
    assert found["denoiser/validation_loss"] == [(6, 7.0)]


def test_wandb_is_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, float]] = []
    begun: list[dict[str, Any]] = []
    ended: list[bool] = []
    run = SimpleNamespace(
        log=told.append, finish=lambda: ended.append(True), define_metric=lambda *_, step_metric: None
    )

    def init(*, project: str, name: str, id: str, resume: str, dir: str) -> SimpleNamespace:
        begun.append({"id": id, "name": name, "resume": resume})
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    check_tracker("wandb")
    for _ in range(2):
        list(tracked(work(tmp_path, first=1, last=3), tmp_path, name="wandb"))
    assert begun[0] == begun[1]
    assert begun[0]["name"] == tmp_path.name
    assert ended == [True, True]
    assert told[0] == {"first_stage/step": 1, "first_stage/loss": 0.5, "first_stage/skipped": 0}
    assert told[4] == {"denoiser/step": 2, "denoiser/validation_loss": 7.0}


def test_what_is_unknown_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="did you mean 'tensorboard'"):
        check_tracker("tensorbord")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        check_tracker("wandb")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'darkroom\[track\]'"):
        check_tracker("tensorboard")

"""What a run logs arrives elsewhere, line by line, and nothing is lost or doubled by stopping."""

import sys
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from darkroom.core.errors import InputError
from darkroom.core.record import append_line, read_lines, write_lines
from darkroom.recipes.track import FOLDER, check_tracker, tracked
from darkroom.train.events import Event, Sentence


def work(run: Path, *, first: int, last: int) -> Generator[Event]:
    """Steps of both stages, a line each; the first event comes before any line."""
    yield Sentence("begins")
    for stage in ("first_stage", "denoiser"):
        (run / stage).mkdir(exist_ok=True, parents=True)
        for step in range(first, last):
            append_line(run / stage / "log.jsonl", {"step": step, "loss": step / 2, "skipped": 0})
            yield Sentence(f"{stage} {step}")
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
        if event == Sentence("denoiser 2"):
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

    def init(*, project: str, name: str, id: str, resume: str, dir: str) -> SimpleNamespace:
        begun.append({"id": id, "name": name, "resume": resume})
        return SimpleNamespace(
            log=told.append,
            finish=lambda: ended.append(True),
            define_metric=lambda *_, step_metric: None,
            step=len(told),  # it counts what it was told in earlier starts too
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    check_tracker("wandb")
    list(tracked(work(tmp_path, first=1, last=3), tmp_path, name="wandb"))
    assert [line["denoiser/step"] for line in told if "denoiser/step" in line] == [1, 2, 2]
    list(tracked(more(tmp_path, kept=1, last=4, looked=2), tmp_path, name="wandb"))
    assert begun[0] == begun[1]
    assert begun[0]["name"] == tmp_path.name
    assert ended == [True, True]
    assert told[0] == {"first_stage/step": 1, "first_stage/loss": 0.5, "first_stage/skipped": 0}
    assert told[4] == {"denoiser/step": 2, "denoiser/validation_loss": 7.0}
    assert [line["denoiser/step"] for line in told if "denoiser/step" in line] == [1, 2, 2, 3]


def more(run: Path, *, kept: int, last: int, looked: int) -> Generator[Event]:
    """The denoiser goes on from a state: its log is shortened to that, and what went with it is written again."""
    yield Sentence("pictures are looked at")
    log = run / "denoiser" / "log.jsonl"
    write_lines(log, read_lines(log)[:kept])
    for step in range(kept + 1, last):
        append_line(log, {"step": step, "loss": step / 2, "skipped": 0, "seconds": 9.25 * step})
        if step == looked:
            append_line(log, {"step": step, "validation_loss": 7.0})
        yield Sentence(f"denoiser {step}")


def test_a_log_that_is_shortened_first_is_told_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra darkroom[track]")
    for _ in work(tmp_path, first=1, last=6):
        pass
    list(tracked(more(tmp_path, kept=3, last=9, looked=5), tmp_path, name="tensorboard"))
    assert [step for step, _ in scalars(tmp_path)["denoiser/loss"]] == list(range(1, 9))


def test_a_tracker_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ConnectionError("no network\nand a trace")

    run = SimpleNamespace(log=fail, finish=lambda: None, define_metric=lambda *_, step_metric: None, step=0)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: run))
    events = list(tracked(work(tmp_path, first=1, last=3), tmp_path, name="wandb"))
    assert len(events) == 5
    assert [each.getMessage() for each in caplog.records] == [
        "--track wandb has stopped (no network); training goes on without it"
    ]

    def refuse(**_: object) -> None:
        raise RuntimeError("api_key not configured")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(InputError, match=r"does not begin \(api_key not configured\); `wandb login`, or"):
        list(tracked(work(tmp_path, first=3, last=5), tmp_path, name="wandb"))
    assert len(read_lines(tmp_path / "denoiser" / "log.jsonl")) == 3


def test_what_a_disk_made_of_a_line_is_passed_over(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra darkroom[track]")
    for _ in work(tmp_path, first=1, last=3):
        pass
    with (tmp_path / "denoiser" / "log.jsonl").open("ab") as log:
        log.write(b"\0" * 40 + b'\n{"step": 9, "lo')
    list(tracked(work(tmp_path / "other", first=1, last=2), tmp_path, name="tensorboard"))
    assert [step for step, _ in scalars(tmp_path)["denoiser/loss"]] == [1, 2]


def test_what_is_unknown_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="did you mean 'tensorboard'"):
        check_tracker("tensorbord")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        check_tracker("wandb")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'darkroom\[track\]'"):
        check_tracker("tensorboard")

"""What a run's disk may do: states that are damaged, folders that are full or gone; the last good state stays."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sessions import stage_of
from torch import Tensor, nn

from darkroom.core.errors import DataError, ModelFileError, TrainingError
from darkroom.core.record import disk_faults, read_lines, write_json
from darkroom.core.writing import whole_file
from darkroom.train import session
from darkroom.train.events import Advance, Event, Sentence
from darkroom.train.optim import TrainSpec
from darkroom.train.session import STATE
from darkroom.train.state import before, find_state

SPEC = TrainSpec(steps=9, batch=4, learning_rate=0.05, warmup=1, ema=0.9, log_every=1, save_every=2, sample_every=4)


class Line(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, width)

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": ((self.layer(batch) - batch.sum(1, keepdim=True)) ** 2).mean()}


def begin(folder: Path, *, keep: int = 0, width: int = 3, gone: int = 99) -> tuple[Line, Iterator[Event]]:
    """A stage of a few steps from where it stands in this folder; the pictures of step `gone` do not come."""
    model = Line(width)
    stage = stage_of(model, folder, spec=SPEC, keep=keep)

    def stream(step: int) -> Iterator[Tensor]:
        while True:
            if step == gone:
                raise DataError("a host that does not answer")
            yield torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            step += 1

    return model, stage.run(stream(stage.training.step), losses=model, look=lambda step: ({"seen": float(step)}, []))


def finished(folder: Path) -> Tensor:
    model, events = begin(folder)
    for _ in events:
        pass
    return model.layer.weight.detach()


def stop_at(folder: Path, step: int) -> None:
    _, events = begin(folder)
    for event in events:
        if isinstance(event, Advance) and event.progress.step == step:
            break
    events.close()


def complaint(folder: Path) -> str | None:
    """Why a run stopped, if it did."""
    try:
        finished(folder)
    except TrainingError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    return finished(tmp_path_factory.mktemp("calm"))


def flip(path: Path) -> None:
    """One bit of a weight, which torch itself would not notice."""
    data = bytearray(path.read_bytes())
    data[data.index(b"data/0") + 100] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_a_damaged_newest_state_is_passed_over_and_said(damage, calm: Tensor, tmp_path: Path) -> None:
    stop_at(tmp_path, 5)
    state = tmp_path / STATE
    assert torch.load(before(state), weights_only=True)["step"] == 4
    damage(state)
    model, events = begin(tmp_path)
    first = next(events)
    assert isinstance(first, Sentence)
    assert first.text == (
        f"{state}: this training state is damaged and was passed over; the one before it is used, of step 4"
    )
    assert [event.progress.step for event in events if isinstance(event, Advance)] == [5, 6, 7, 8, 9]
    assert torch.equal(model.layer.weight, calm)
    assert [line["step"] for line in read_lines(tmp_path / "log.jsonl") if "loss" in line] == list(range(1, 10))


def test_pictures_that_do_not_come_cost_no_step(calm: Tensor, tmp_path: Path) -> None:
    _, events = begin(tmp_path, gone=7)
    with pytest.raises(DataError, match="does not answer"):
        list(events)
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 7
    assert torch.equal(finished(tmp_path), calm)


def test_two_damaged_states_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    stop_at(tmp_path, 5)
    for path in (tmp_path / STATE, before(tmp_path / STATE)):
        flip(path)
    with pytest.raises(ModelFileError, match="nor is there one before it that can; remove it to start"):
        begin(tmp_path)


def test_a_kill_between_two_names_leaves_the_state_before(calm: Tensor, tmp_path: Path) -> None:
    stop_at(tmp_path, 5)
    (tmp_path / STATE).unlink()
    found = find_state(tmp_path / STATE)
    assert (found.path, found.said) == (before(tmp_path / STATE), None)
    assert torch.equal(finished(tmp_path), calm)


def test_a_disk_that_is_full_at_any_write_costs_nothing(
    calm: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every single write fails once; each time a sentence, a state that is whole, and the same end."""
    failures = 0
    for number in range(100):
        folder, left = tmp_path / str(number), iter(range(number, -1, -1))

        def taken(work, left=left):
            def written(*given):
                if next(left, None) == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return work(*given)

            return written

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", taken(os.fsync))
            patch.setattr(os, "replace", taken(os.replace))
            patch.setattr(session, "append_line", taken(session.append_line))
            told = complaint(folder)
        if told is None:
            break
        failures += 1
        assert "No space left on device" in told
        assert "run the same command again" in told
        assert torch.equal(finished(folder), calm)
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert failures > 20


def test_a_disk_that_is_really_full_is_told_by_its_own_words(tmp_path: Path) -> None:
    """The system refuses what lies beyond a limit, as it does on a full disk; torch hides that in words of its own."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    _, events = begin(tmp_path, width=30_000)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most[1]))
        with pytest.raises(TrainingError, match=r"could not be written \(File too large\); no state was saved yet"):
            for _ in events:
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_what_cannot_be_written_within_a_run_stops_it_with_its_last_state(tmp_path: Path) -> None:
    """A model file says so itself; to a run it is a fault of its disk as any other."""
    said: list[str] = []
    for work in (lambda: write_json(tmp_path / "none" / "x.json", {}), lambda: _model_at(tmp_path / "file" / "x")):
        with pytest.raises(TrainingError) as caught, disk_faults(tmp_path, kept="the state of step 4 is kept"):
            work()
        said.append(str(caught.value))
    for words, reason in zip(said, ("No such file or directory", "Not a directory"), strict=True):
        assert words.startswith(f"{tmp_path}: what a run writes could not be written ({reason}); the state of step 4")


def _model_at(path: Path) -> None:
    path.parent.touch()
    with whole_file(path / "model.safetensors"):
        pass


def test_a_folder_that_is_another_one_is_not_written_to(tmp_path: Path) -> None:
    """What lies under a mount that was lost has the same name."""
    place, away = tmp_path / "run", tmp_path / "away"
    _, events = begin(place)
    for event in events:
        if isinstance(event, Advance) and event.progress.step == 5:
            break
    place.rename(away)
    place.mkdir()
    with pytest.raises(TrainingError, match=r"no longer the one that this run began in.*the state of step 4 is kept"):
        next(events)
    assert list(place.iterdir()) == []
    assert torch.load(away / STATE, weights_only=True)["step"] == 4


def test_states_of_looks_stay_when_asked_to(calm: Tensor, tmp_path: Path) -> None:
    _, events = begin(tmp_path / "kept", keep=2)
    for _ in events:
        pass
    kept = sorted((tmp_path / "kept" / "states").iterdir())
    assert [path.name for path in kept] == ["00000008.pt", "00000009.pt"]
    again = tmp_path / "again"
    again.mkdir()
    (again / STATE).write_bytes(kept[0].read_bytes())
    assert torch.equal(finished(again), calm)


@pytest.mark.parametrize("lack", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("can't allocate memory")])
def test_a_state_that_memory_does_not_suffice_for_stays(
    lack: Exception, calm: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is whole: whoever were told to remove it would lose a run for a moment's lack of memory."""
    stop_at(tmp_path, 5)

    def fail(*_: object, **__: object) -> None:
        raise lack

    with monkeypatch.context() as short:
        short.setattr(torch, "load", fail)
        with pytest.raises(TrainingError, match="not enough memory to take this training state in; it is whole"):
            begin(tmp_path)
    assert torch.equal(finished(tmp_path), calm)

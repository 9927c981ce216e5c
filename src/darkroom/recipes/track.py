"""A run's logs shown elsewhere, too: TensorBoard, or Weights & Biases. The only room that knows either; off by default.

Both are made of the lines in `log.jsonl` and of nothing else, so that training does not know who watches.
"""

import hashlib
import importlib
import json
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, cast, final

from darkroom.core.errors import InputError, did_you_mean
from darkroom.core.parallel import is_first
from darkroom.train.events import Event
from darkroom.train.session import LOG

TRACKERS: Final = ("tensorboard", "wandb")
FOLDER: Final = "tensorboard"  # within the run
STAGES: Final = ("first_stage", "denoiser")


class Tracker(Protocol):
    """Takes the numbers of a step."""

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Take in values by name."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


def tracked(events: Generator[Event], run: Path, *, name: str) -> Generator[Event]:
    """The same events; what the logs of the run gain on the way goes to the tracker of this name.

    name: of `TRACKERS`, checked. Of several processes only the first tracks.
    """
    if not is_first():
        yield from events
        return
    tracker: Tracker | None = None
    logs = {stage: _Log(run / stage / LOG) for stage in STAGES}
    try:
        for event in events:
            tracker = tracker or (_TensorBoard(run) if name == "tensorboard" else _Wandb(run))
            _pass_on(logs, tracker)
            yield event
    finally:
        events.close()  # which may save and log
        if tracker is not None:
            _pass_on(logs, tracker)
            tracker.close()


def check_tracker(name: str) -> None:
    """`InputError` for a tracker that is unknown or whose package is missing, before anything is trained."""
    if name not in TRACKERS:
        raise InputError(f"--track {name!r} is unknown{did_you_mean(name, TRACKERS)}")
    _package("torch.utils.tensorboard" if name == "tensorboard" else "wandb", name=name)


def _package(module: str, *, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        extra = "'darkroom[track]'" if name == "tensorboard" else name
        raise InputError(f"--track {name} needs a package that is not here: pip install {extra}") from None


@final
class _Log:
    """A log that grows; what is new in it is read once."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def new(self) -> list[dict[str, Any]]:
        """The whole lines that have come since."""
        if not self._path.exists() or self._path.stat().st_size <= self._at:
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            whole, end, _ = file.read().rpartition(b"\n")
        self._at += len(whole) + len(end)
        return [json.loads(line) for line in whole.splitlines()]


def _pass_on(logs: Mapping[str, _Log], tracker: Tracker) -> None:
    for stage, log in logs.items():
        for line in log.new():
            numbers = {f"{stage}/{key}": value for key, value in line.items() if key != "step"}
            tracker.add(numbers, step=line["step"])


@final
class _TensorBoard:
    """Event files in the run's folder, made anew from the logs at every start: they cannot contradict them."""

    def __init__(self, run: Path) -> None:
        shutil.rmtree(run / FOLDER, ignore_errors=True)
        module = _package("torch.utils.tensorboard", name="tensorboard")
        self._writer = module.SummaryWriter(str(run / FOLDER), flush_secs=10)

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


@final
class _Wandb:
    """A run of Weights & Biases, known again by the run's folder when it goes on; its own variables choose the rest."""

    def __init__(self, run: Path) -> None:
        module = _package("wandb", name="wandb")
        known = hashlib.blake2b(str(run.resolve()).encode(), digest_size=8).hexdigest()
        self._run = cast("Any", module.init(project="darkroom", name=run.name, id=known, resume="allow", dir=str(run)))
        for stage in STAGES:  # stages count their steps each by itself, and wandb's own count only rises
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        stage = next(iter(values)).partition("/")[0]
        self._run.log({f"{stage}/step": step, **values})

    def close(self) -> None:
        self._run.finish()

"""A run's logs shown elsewhere, too: TensorBoard, or Weights & Biases. The only room that knows either; off by default.

Both are made of the lines in `log.jsonl` and of nothing else, so that training does not know who watches.
"""

import hashlib
import importlib
import json
import logging
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, cast, final

from darkroom.core.errors import InputError, did_you_mean, first_line
from darkroom.core.parallel import is_first
from darkroom.train.events import Event
from darkroom.train.session import LOG

TRACKERS: Final = ("tensorboard", "wandb")
FOLDER: Final = "tensorboard"  # within the run
STAGES: Final = ("first_stage", "denoiser")
_LOGGING: Final = logging.getLogger("darkroom")


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

    name: of `TRACKERS`, checked. Of several processes only the first tracks. `InputError` when the tracker does not
    begin; one that fails later is told to the log `darkroom` and let go, for training does not depend on it.
    """
    if not is_first():
        yield from events
        return
    watched = _Watched(run, name)
    try:
        for event in events:
            watched.pass_on()
            yield event
    finally:
        try:
            events.close()  # which may save and log
        finally:
            watched.close()


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
    """A log that grows; what is new in it is read once.

    A run that goes on may shorten it first, to the step of its state, and then write again what was told before.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._file, self._told, self._seen = path, 0, 0, 0, 0

    def new(self) -> list[dict[str, Any]]:
        """The whole lines that have come since."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return []
        if found.st_ino != self._file or found.st_size < self._at:
            self._file, self._at, self._seen = found.st_ino, 0, 0
        if found.st_size == self._at:
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            whole, end, _ = file.read().rpartition(b"\n")
        self._at += len(whole) + len(end)
        lines = whole.splitlines()
        told, self._seen = max(0, self._told - self._seen), self._seen + len(lines)
        self._told = max(self._told, self._seen)
        return [entry for line in lines[told:] for entry in _parsed(line)]


def _parsed(line: bytes) -> list[dict[str, Any]]:
    """A line of a log; none of what a disk has made of it."""
    try:
        return [json.loads(line)]
    except ValueError:
        return []


@final
class _Watched:
    """The logs of a run, and the tracker that they go to."""

    def __init__(self, run: Path, name: str) -> None:
        self._run, self._name = run, name
        self._logs = {stage: _Log(run / stage / LOG) for stage in STAGES}
        self._tracker: Tracker | None = None
        self._begun = False

    def pass_on(self) -> None:
        """Tell the tracker what is new; it begins with the first event, when the run's folder is there."""
        if not self._begun:
            self._begun, self._tracker = True, _begin(self._run, self._name)
        if self._tracker is None:
            return
        try:
            for stage, log in self._logs.items():
                for line in log.new():
                    numbers = {f"{stage}/{key}": value for key, value in line.items() if key != "step"}
                    self._tracker.add(numbers, step=line["step"])
        except Exception as error:  # of a strange library, of a network, of a disk
            self._let_go(error)

    def close(self) -> None:
        """Tell the rest."""
        if self._begun:
            self.pass_on()
        try:
            if self._tracker is not None:
                self._tracker.close()
        except Exception as error:
            self._let_go(error)

    def _let_go(self, error: Exception) -> None:
        self._tracker = None
        reason = first_line(error) or type(error).__name__
        _LOGGING.warning("--track %s has stopped (%s); training goes on without it", self._name, reason)


def _begin(run: Path, name: str) -> Tracker:
    try:
        return _TensorBoard(run) if name == "tensorboard" else _Wandb(run)
    except InputError:
        raise
    except Exception as error:
        help_ = "" if name == "tensorboard" else "; `wandb login`, or WANDB_MODE=offline to keep figures here"
        raise InputError(f"--track {name} does not begin ({first_line(error)}){help_}") from None


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
    """A run of Weights & Biases, known again by the run's folder when it goes on; its own variables choose the rest.

    It counts the lines that it was told: as many of the logs' are left out when a run goes on.
    """

    def __init__(self, run: Path) -> None:
        module = _package("wandb", name="wandb")
        known = hashlib.blake2b(str(run.resolve()).encode(), digest_size=8).hexdigest()
        self._run = cast("Any", module.init(project="darkroom", name=run.name, id=known, resume="allow", dir=str(run)))
        for stage in STAGES:  # stages count their steps each by itself, and wandb's own count only rises
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._known = int(self._run.step)

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        if self._known:
            self._known -= 1
            return
        stage = next(iter(values)).partition("/")[0]
        self._run.log({f"{stage}/step": step, **values})

    def close(self) -> None:
        self._run.finish()

"""One stage in its folder: optimise, log, save; stops between steps without losing one."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, final

import torch
from torch import nn

from darkroom.core.compute import Compute, wide
from darkroom.core.errors import DataError, TrainingError
from darkroom.core.parallel import is_first, mean_over_ranks, on_any, on_first, rank
from darkroom.core.record import (
    append_line,
    disk_faults,
    forget_unfinished,
    is_torn,
    read_log,
    writable_folder,
    write_lines,
)
from darkroom.train.averages import FOLDER, PowerAverages
from darkroom.train.ema import Ema
from darkroom.train.events import Advance, Event, Sentence
from darkroom.train.guard import GOALS, Usual, skipped_words, told_when_late
from darkroom.train.loop import After, Losses, Pieces, Progress, train
from darkroom.train.optim import TrainSpec, optimizer_of
from darkroom.train.parted import Parted
from darkroom.train.ranks import Ranks
from darkroom.train.scaler import Scaler
from darkroom.train.state import Training, before, find_state, keep_state, restore_state, save_state

B = TypeVar("B")
_ENDS: Final = (TrainingError, DataError)  # by which a training is over, its last state being good
Looked = tuple[dict[str, float], list[Event]]  # values for the log, and files that were written
Look = Callable[[int], Looked]
See = Callable[[int], list[Event]]
Settle = Callable[[int], TrainSpec]
STATE, LOG, STATES = "state.pt", "log.jsonl", "states"
SAVE_AFTER: Final = 4.0  # seconds of work that a kill may cost at most, unless saving takes long
SAVE_SHARE: Final = 0.02  # of the time may go into saving for that reason


@final
class Session:
    """The training of one module in one folder. Of several processes the first writes, and all keep step.

    It goes on from the state that is found there. parameters: what is trained (averaged, if the spec asks) · beside:
    modules that only training needs, saved with the state · opponent: the optimiser of an adversary among them ·
    keep: how many states of looks stay in `states`, besides the newest state and the one before it · parted: where
    ranks hold the module in parts; looks then see the model that it shows.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: list[nn.Parameter],
        *,
        spec: TrainSpec,
        compute: Compute,
        folder: Path,
        seed: int,
        stage: str,
        beside: nn.ModuleDict | None = None,
        opponent: torch.optim.Optimizer | None = None,
        keep: int = 0,
        parted: Parted | None = None,
    ) -> None:
        self.spec, self.compute, self.seed, self.stage = spec, compute, seed, stage
        self.folder, self.keep, self._parted = folder, keep, parted
        optimizer = optimizer_of(module, parameters, spec=spec, compute=compute)
        ema = Ema(parameters, decay=spec.ema) if spec.ema else None
        averages = None if spec.averages is None else PowerAverages(parameters, spec.averages)
        scaler = Scaler() if compute.dtype == torch.float16 else None
        self.training = Training(
            module, optimizer, ema, opponent, beside or nn.ModuleDict(), averages=averages, scaler=scaler
        )
        self._said = self._restored()
        self._saved = self.training.step
        self._ranks = Ranks(module, self.training.beside, sharded=None if parted is None else parted.doing)

    def _restored(self) -> list[Event]:
        """Go on from the newest state that is whole; answers what the reader should know about that."""
        state = self.folder / STATE
        on_first(lambda: writable_folder(self.folder))
        self._place = _identity(self.folder)
        if is_first():
            for each in (state, before(state)):
                forget_unfinished(each)
        found = on_first(lambda: find_state(state))
        if found.path is not None and not restore_state(self.training, found.path):
            raise TrainingError(f"{found.path}: this training state is gone, or process {rank()} does not see it")
        self._lines = self._known_lines(self.training.step) if is_first() else []
        self._usual = Usual(self._lines)
        return [] if found.said is None else [Sentence(f"{found.said}, of step {self.training.step}")]

    @property
    def samples(self) -> int:
        """Samples consumed so far: where the data stream goes on."""
        return self.training.step * self.spec.batch

    @property
    def done(self) -> float:
        """Share of the training that is behind, as long as it is meant to be now."""
        return self.training.step / self.spec.steps

    def run(
        self,
        batches: Iterator[B],
        *,
        losses: Losses[B],
        look: Look,
        best: Callable[[], Event] | None = None,
        after: After | None = None,
        settle: Settle | None = None,
        pieces: Pieces[B] | None = None,
        reading: Callable[[], str | None] = lambda: None,
    ) -> Iterator[Event]:
        """Train to the end; the state is saved when the caller stops listening, too. Ends with averaged weights.

        look: called at each `sample_every`-th step and at the last, with averaged weights applied; answers values for
        the log and the events of files that it wrote · best: called after a look at which the stage's goal
        (`guard.GOALS`) was better than ever before · settle: asked after every look but the last, with the state saved,
        how training goes on · losses, after, pieces: see `loop.train` · reading: which picture a batch waits for, if
        that is known.
        A disk that fails is a `TrainingError`; the last state that it took is whole.
        """
        yield from self._said
        try:
            on_time = told_when_late(batches, what=f"{self.stage} of {self.folder}", reading=reading)
            progress = self._progress(on_time, losses=losses, after=after, pieces=pieces)
            yield from self._recorded(progress, functools.partial(self._seen, look=look, best=best), settle)
        except (GeneratorExit, *_ENDS) as ended:  # between two steps; within one the last saved is the good one
            alone = self._parted is not None and isinstance(ended, _ENDS)  # it may be this rank's own error
            if self.training.step > self._saved and not alone:
                self._save()
            raise
        if self.training.ema is not None:
            self.training.ema.keep()
        self.training.module.eval()
        if self._parted is not None:
            self._parted.show()

    def _recorded(self, steps: Iterator[Progress], see: See, settle: Settle | None) -> Iterator[Event]:
        """Step after step, logged, looked at and saved when it is time for that."""
        due, skipped = _Due(), self.training.skipped
        for progress in steps:
            if self.training.skipped > skipped:
                skipped = self.training.skipped
                yield from _notes(skipped_words(progress.step, skipped))
            spec, last = self.spec, progress.step == self.spec.steps
            looked = progress.step % spec.sample_every == 0 or last
            if progress.step % spec.log_every == 0 or progress.step == 1 or looked:
                yield from self._log(progress)
            if looked:
                yield from self._look(progress.step, see)
            if spec.averages is not None and (progress.step % spec.averages.every == 0 or last):
                self._snapshot(progress.step)
            if progress.step % spec.save_every == 0 or looked or self._is_time(due):
                with due:
                    self._save(keep=looked)
            if looked and not last and settle is not None:
                self.spec = settle(progress.step)
            yield Advance(self.stage, self.spec.steps, progress)

    def _save(self, *, keep: bool = False) -> None:
        """The state, by the first process; keep: under a name of its own too."""
        if self._has_part:
            with self._disk():
                save_state(self.training, self.folder / STATE)
                if keep and self.keep and is_first():
                    self._keep(self.training.step)
        self._saved = self.training.step

    @property
    def _has_part(self) -> bool:
        """Has this process a part in what the first one writes?"""
        return is_first() or self._parted is not None

    def _is_time(self, due: "_Due") -> bool:
        """Is a save due? Of processes that all have a part in it, the first one's clock counts."""
        return due() if self._parted is None else on_any(is_first() and due())

    def _snapshot(self, step: int) -> None:
        averages = self.training.averages
        if averages is not None and self._has_part:
            with self._disk():
                averages.save(self.training.module, self.folder / FOLDER / f"{step:08}.safetensors")

    def _keep(self, step: int) -> None:
        kept = self.folder / STATES
        keep_state(self.folder / STATE, kept / f"{step:08}.pt")
        for old in sorted(kept.glob("*.pt"))[: -self.keep]:
            old.unlink()

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Within the block the run's folder is written to, and is the one that the run began in."""
        kept = f"the state of step {self._saved} is kept" if self._saved else "no state was saved yet"
        with disk_faults(self.folder, kept=kept):
            if _identity(self.folder) != self._place:  # another would be filled, say what lies under a lost mount
                raise OSError("the folder is no longer the one that this run began in")
            yield

    def _progress(
        self, batches: Iterator[B], *, losses: Losses[B], after: After | None, pieces: Pieces[B] | None
    ) -> Iterator[Progress]:
        """Step after step by the spec that holds at that time; the clock runs on when it changes."""
        started, before = time.monotonic(), self.training.seconds
        while self.training.step < self.spec.steps:
            spec = self.spec
            for progress in train(
                self.training,
                batches,
                losses=losses,
                spec=spec,
                compute=self.compute,
                seed=self.seed,
                after=after,
                pieces=pieces,
                ranks=self._ranks,
            ):
                yield progress
                if self.spec is not spec:
                    break
            self.training.seconds = before + time.monotonic() - started

    def _known_lines(self, step: int) -> list[dict[str, Any]]:
        """A run killed after its last save makes some steps again; the log keeps one line of each."""
        lines = read_log(self.folder / LOG)
        kept = [line for line in lines if line["step"] <= step]
        if len(kept) < len(lines) or is_torn(self.folder / LOG):
            write_lines(self.folder / LOG, kept)
        return kept

    def _look(self, step: int, see: See) -> list[Event]:
        """What the first process sees, with averaged weights; the others wait for it."""
        with self._averaged():
            return see(step) if is_first() else []

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        ema = self.training.ema
        if self._parted is not None:
            return self._parted.showing(None if ema is None else ema.shadow)
        return contextlib.nullcontext() if ema is None or not is_first() else ema.applied()

    def _seen(self, step: int, *, look: Look, best: Callable[[], Event] | None) -> list[Event]:
        module, goal = self.training.module, GOALS.get(self.stage)
        module.eval()
        with self._disk():
            values, events = look(step)
            self._lines.append({"step": step, **values})
            top = None if goal is None else goal.best(self._lines)
            risen = None if goal is None else goal.risen(self._lines)
            if risen is not None and top is not None:
                self._lines[-1]["worse_since"] = top["step"]
            if best is not None and top is self._lines[-1]:
                events.append(best())
            append_line(self.folder / LOG, self._lines[-1])
        module.train()
        return [*events, *_notes(risen)]

    def _log(self, progress: Progress) -> Iterator[Event]:
        """A line of the log, with the means over all processes."""
        found = torch.stack([wide(value.detach()) for value in progress.values.values()])
        values = mean_over_ranks(found.cpu().double())  # in this order, for Apple's GPUs know no float64
        entry = {
            "step": progress.step,
            "samples": progress.step * self.spec.batch,
            **dict(zip(progress.values, values.tolist(), strict=True)),
            "learning_rate": progress.learning_rate,
            "skipped": self.training.skipped,
            "pictures_per_second": round(progress.rate, 2),
            "seconds": round(self.training.seconds, 2),
        }
        if not is_first():
            return
        leap = self._usual.leap(entry["loss"])
        if leap is not None:
            entry["leap"] = round(leap, 1)
        with self._disk():
            append_line(self.folder / LOG, entry)
        if leap is not None:
            yield Sentence(
                f"step {progress.step}: the loss leapt to {entry['loss']:.4g}, {leap:.1f} times what is usual"
            )


def _notes(sentence: str | None) -> list[Event]:
    return [] if sentence is None else [Sentence(sentence)]


def _identity(folder: Path) -> tuple[int, int]:
    """What a folder is known by, whatever its name leads to."""
    found = folder.stat()
    return found.st_dev, found.st_ino


@final
class _Due:
    """Is it time to save again? Long saves come seldom; what is trained does not depend on when that is."""

    def __init__(self) -> None:
        self._begun = self._ended = time.monotonic()
        self._cost = 0.0

    def __call__(self) -> bool:
        return time.monotonic() - self._ended > max(SAVE_AFTER, self._cost / SAVE_SHARE)

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._ended = time.monotonic()
        self._cost = self._ended - self._begun

"""One stage in its folder: optimise, log, save; stops between steps without losing one."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar, final

import torch
from torch import nn

from darkroom.core.compute import Compute
from darkroom.core.errors import TrainingError
from darkroom.core.record import (
    append_line,
    forget_unfinished,
    is_torn,
    read_lines,
    writable_folder,
    write_lines,
)
from darkroom.train.ema import Ema
from darkroom.train.events import Advance, Event
from darkroom.train.loop import After, Losses, Progress, train
from darkroom.train.optim import TrainSpec, build_optimizer
from darkroom.train.state import Training, restore_state, save_state

B = TypeVar("B")
Settle = Callable[[int], TrainSpec]
STATE, LOG = "state.pt", "log.jsonl"
SAVE_AFTER: Final = 4.0  # seconds of work that a kill may cost at most, unless saving takes long
SAVE_SHARE: Final = 0.02  # of the time may go into saving for that reason


@final
class Session:
    """The training of one module in one folder.

    parameters: what is trained (its averages are kept if the spec asks) · beside, opponent: modules that only training
    needs, and the optimiser of an adversary among them · look: called at each `sample_every`-th
    step and at the end, with averaged weights applied; answers values for the log and the events of files it wrote.
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
        look: Callable[[int], tuple[dict[str, float], list[Event]]],
        beside: nn.ModuleDict | None = None,
        opponent: torch.optim.Optimizer | None = None,
    ) -> None:
        self.spec, self.compute, self.seed, self.stage, self.look = spec, compute, seed, stage, look
        self.folder = writable_folder(folder)
        optimizer = build_optimizer(parameters, spec)
        ema = Ema(parameters, decay=spec.ema) if spec.ema else None
        self.training = Training(module, optimizer, ema, opponent, beside or nn.ModuleDict())
        forget_unfinished(self.folder / STATE)
        restore_state(self.training, self.folder / STATE)
        self._forget_lines_after(self.training.step)

    @property
    def samples(self) -> int:
        """Samples consumed so far: where the data stream goes on."""
        return self.training.step * self.spec.batch

    def run(
        self, batches: Iterator[B], *, losses: Losses[B], after: After | None = None, settle: Settle | None = None
    ) -> Iterator[Event]:
        """Train to the end; the state is saved when the caller stops listening, too. Ends with averaged weights.

        settle: asked at every look but the last, with the state saved, how training goes on.
        """
        training, saved, due = self.training, self.training.step, _Due()
        try:
            for progress in self._progress(batches, losses=losses, after=after):
                spec, last = self.spec, progress.step == self.spec.steps
                looked = progress.step % spec.sample_every == 0 or last
                if progress.step % spec.log_every == 0 or progress.step == 1 or looked:
                    self._log(progress)
                if looked:
                    yield from self._look(progress.step)
                if progress.step % spec.save_every == 0 or looked or due():
                    with due:
                        save_state(training, self.folder / STATE)
                    saved = progress.step
                if looked and not last and settle is not None:
                    self.spec = settle(progress.step)
                yield Advance(self.stage, self.spec.steps, progress)
        except (GeneratorExit, TrainingError):  # between two steps; within one the last saved state is the good one
            if training.step > saved:
                save_state(training, self.folder / STATE)
            raise
        if training.ema is not None:
            training.ema.keep()
        training.module.eval()

    def _progress(self, batches: Iterator[B], *, losses: Losses[B], after: After | None) -> Iterator[Progress]:
        """Step after step by the spec that holds at that time; the clock runs on when it changes."""
        started, before = time.monotonic(), self.training.seconds
        while self.training.step < self.spec.steps:
            spec = self.spec
            for progress in train(
                self.training, batches, losses=losses, spec=spec, compute=self.compute, seed=self.seed, after=after
            ):
                yield progress
                if self.spec is not spec:
                    break
            self.training.seconds = before + time.monotonic() - started

    def _forget_lines_after(self, step: int) -> None:
        """A run killed after its last save makes some steps again; the log keeps one line of each."""
        lines = read_lines(self.folder / LOG)
        kept = [line for line in lines if line["step"] <= step]
        if len(kept) < len(lines) or is_torn(self.folder / LOG):
            write_lines(self.folder / LOG, kept)

    def _look(self, step: int) -> Iterator[Event]:
        module, ema = self.training.module, self.training.ema
        module.eval()
        if ema is None:
            values, events = self.look(step)
        else:
            with ema.applied():
                values, events = self.look(step)
        module.train()
        append_line(self.folder / LOG, {"step": step, **values})
        yield from events

    def _log(self, progress: Progress) -> None:
        entry = {
            "step": progress.step,
            "samples": progress.step * self.spec.batch,
            **{name: float(value) for name, value in progress.values.items()},
            "learning_rate": progress.learning_rate,
            "skipped": self.training.skipped,
            "pictures_per_second": round(progress.rate, 2),
            "seconds": round(self.training.seconds, 2),
        }
        append_line(self.folder / LOG, entry)


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

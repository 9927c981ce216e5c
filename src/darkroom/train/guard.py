"""What is odd about a training: said while it happens, and found in its log afterwards."""

import logging
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, final

from darkroom.core.errors import ModelFileError
from darkroom.core.record import read_log
from darkroom.train.loop import MOST_SKIPPED
from darkroom.train.state import find_state

B = TypeVar("B")
Lines = Sequence[Mapping[str, Any]]
LEAP: Final = 3.0  # times the median of the latest logged losses
OF_LATE: Final = 50  # lines
FEWEST: Final = 10  # lines that say what is usual
PATIENCE: Final = 60.0  # seconds that a batch may take before somebody is told
_LOG: Final = logging.getLogger("darkroom")


@final
@dataclass(frozen=True)
class Goal:
    """The figure of held-out pictures that tells how far a stage is. name: in the log · words: for people."""

    name: str
    words: str
    lower: bool = True

    def best(self, lines: Lines) -> Mapping[str, Any] | None:
        """The line of the best look; the earliest of equals."""
        looks = [line for line in lines if self.name in line and math.isfinite(line[self.name])]
        choose = min if self.lower else max
        return choose(looks, key=lambda line: line[self.name], default=None)

    def risen(self, lines: Lines) -> str | None:
        """A sentence when the last two looks were both worse than the best one."""
        looks, best = [line for line in lines if self.name in line], self.best(lines)
        if best is None or len(looks) < 3 or any(look[self.name] == best[self.name] for look in looks[-2:]):
            return None
        return (
            f"{self.words} was best at step {best['step']} ({best[self.name]:.4g}) and has become worse since "
            f"({looks[-1][self.name]:.4g} at step {looks[-1]['step']}): it may be learning its pictures by heart"
        )


VALIDATION: Final = Goal("validation_loss", "the loss of held-out pictures")
SHARPNESS: Final = Goal("test_psnr", "the PSNR of held-out pictures", lower=False)
GOALS: Final = {"denoiser": VALIDATION, "first_stage": SHARPNESS}


@final
class Usual:
    """The latest logged losses. lines: of the log so far."""

    def __init__(self, lines: Lines) -> None:
        losses = (line["loss"] for line in lines if "loss" in line)
        self._losses = deque(filter(math.isfinite, losses), maxlen=OF_LATE)

    def leap(self, loss: float) -> float | None:
        """How many times the usual loss this one is, where it leapt; it is among the latest from then on.

        One that is not finite is neither: its step changed nothing, which is said by itself.
        """
        if not math.isfinite(loss):
            return None
        usual = statistics.median(self._losses) if len(self._losses) >= FEWEST else math.nan
        self._losses.append(loss)
        return loss / usual if usual > 0 and loss > LEAP * usual else None


def skipped_words(step: int, count: int) -> str | None:
    """A sentence for a skipped step: for the first, second, fourth, eighth, ..."""
    if count & (count - 1):
        return None
    return (
        f"step {step}: its loss or a gradient is not finite, so it changed nothing "
        f"({count} of at most {MOST_SKIPPED} such steps)"
    )


def told_when_late(batches: Iterator[B], *, what: str, reading: Callable[[], str | None] = lambda: None) -> Iterator[B]:
    """The same batches; one that does not come for long is told to the log `darkroom`, which shows it on a terminal.

    reading: which picture is waited for, where that is known.
    """
    since: float | None = None
    done = threading.Event()

    def watch() -> None:
        patience = PATIENCE
        while not done.wait(min(1.0, PATIENCE)):
            begun = since  # read once: it changes while this thread looks
            waited = 0.0 if begun is None else time.monotonic() - begun
            if waited <= PATIENCE:
                patience = PATIENCE
            elif waited > patience:
                name = reading()
                which = "its pictures" if name is None else f"its pictures, now for {name}"
                _LOG.warning("%s has waited %.0f s for %s: does the disk, or the host, answer?", what, waited, which)
                patience *= 2  # twice as long before the next word

    threading.Thread(target=watch, name="darkroom-patience", daemon=True).start()
    try:
        since = time.monotonic()
        for batch in batches:
            since = None
            yield batch
            since = time.monotonic()
    finally:
        done.set()


def health(folder: Path, stage: str) -> list[str]:
    """What is odd about a stage of a run, in sentences; `folder`: the stage's own."""
    lines = read_log(folder / "log.jsonl")
    steps = [line for line in lines if "loss" in line]
    found = list[str]()
    skipped = steps[-1].get("skipped", 0) if steps else 0
    if skipped:
        found.append(f"{skipped} steps changed nothing, for their loss or a gradient was not finite")
    leaps = [line for line in steps if "leap" in line]
    if leaps:
        found.append(f"the loss leapt {len(leaps)} times, at last at step {leaps[-1]['step']} ({leaps[-1]['leap']} x)")
    risen = GOALS[stage].risen(lines) if stage in GOALS else None
    try:
        passed_over = find_state(folder / "state.pt").said
    except ModelFileError as error:
        passed_over = str(error)
    return [*found, *(each for each in (risen, passed_over) if each is not None)]

"""What a person sees of long work: a line that moves, sentences that stay."""

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import final

from darkroom.core.errors import harmless
from darkroom.core.parallel import on_any, world_size
from darkroom.recipes.run import Tell
from darkroom.train.events import Advance, Event, Sentence, Wrote

AT_ONCE = 3.0  # seconds
SHOWN = ("loss", "pixel", "perceptual", "perplexity")  # the log has all of them


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


@final
class Line:
    """One line on the terminal, rewritten in place; without a terminal a new line every half minute."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = 0.0

    @property
    def due(self) -> bool:
        """Is it time to write it again?"""
        return time.monotonic() - self._last >= (0.1 if self._live else 30.0)

    def show(self, text: str, *, last: bool = False) -> None:
        """Write the line if it is time to; what a terminal has no room for is cut, or each would be a new line."""
        if not last and not self.due:
            return
        self._last = time.monotonic()
        text = harmless(text)
        if self._live:
            text = text[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A sentence that stays."""
        print(f"\r\x1b[K{harmless(text)}" if self._live else harmless(text), file=sys.stderr, flush=True)


@final
class Counter:
    """How many pictures are done, how fast, and how long it will take, on one line."""

    def __init__(self, what: str) -> None:
        self._what, self._line, self._begun = what, Line(), time.monotonic()

    def show(self, done: int, total: int) -> None:
        """Say that so many are done."""
        rate = done / max(time.monotonic() - self._begun, 1e-6)
        left = clock((total - done) / rate) if done else "?"
        self._line.show(f"{self._what} {done}/{total}  {rate:.1f} pictures/s  {left} left", last=done == total)


@contextlib.contextmanager
def gentle_stop() -> Generator[Callable[[], bool]]:
    """Within the block the first Ctrl-C or TERM only makes the answer true; a second one stops at once.

    `torchrun` passes on a Ctrl-C that the terminal sends to all processes already: there, what follows at once is the
    same one.
    """
    asked: float | None = None

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked is None:
            asked = time.monotonic()
        elif world_size() == 1 or time.monotonic() - asked > AT_ONCE:
            raise KeyboardInterrupt

    kept = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked is not None
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def watch(develop: Callable[[Tell], Generator[Event]]) -> None:
    """Show a run until it ends, or until Ctrl-C, which waits for the step under way and its state to be saved."""
    line = Line()
    with gentle_stop() as stopping:

        def tell(what: str, done: int, total: int) -> None:
            line.show(f"{what} {done}/{total}", last=done == total)
            if stopping():
                raise KeyboardInterrupt

        _show(develop(tell), line, stopping=stopping)


def _show(events: Generator[Event], line: Line, *, stopping: Callable[[], bool]) -> None:
    for event in events:
        if _agreed(event, stopping):
            events.close()
            raise KeyboardInterrupt
        match event:
            case Sentence(text):
                line.say(text)
            case Wrote(what, path):
                line.say(f"{what}: {path}")
            case Advance():
                _advance(line, event)


def _agreed(event: Event, stopping: Callable[[], bool]) -> bool:
    """Is it time to stop? Several processes stop after the same step, which is an event of each."""
    if world_size() == 1:
        return stopping()
    return isinstance(event, Advance) and on_any(stopping())


def _advance(line: Line, event: Advance) -> None:
    step, total, progress = event.progress.step, event.total, event.progress
    if not line.due and step != total:  # to read a value is to wait for it
        return
    values = "  ".join(f"{name} {float(progress.values[name]):.4f}" for name in SHOWN if name in progress.values)
    line.show(
        f"{event.stage} {step}/{total}  {values}  {progress.rate:.0f} pictures/s  {clock(progress.seconds_left)} left",
        last=step == total,
    )

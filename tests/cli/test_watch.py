"""What is seen of long work, and how it is stopped: by a terminal, by the system, by somebody impatient."""

import io
import os
import signal
import sys
from collections.abc import Generator

import pytest
import torch

from darkroom.cli.watch import watch
from darkroom.train.events import Advance, Event, Sentence
from darkroom.train.loop import Progress


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_the_step_under_way(number: int) -> None:
    done = list[str]()

    def develop(tell) -> Generator[Event]:
        try:
            os.kill(os.getpid(), number)
            done.append("step")
            yield Sentence("a step")
            done.append("another")
        finally:
            done.append("closed")

    with pytest.raises(KeyboardInterrupt):
        watch(develop)
    assert done == ["step", "closed"]


def test_the_second_signal_stops_at_once() -> None:
    done = list[str]()

    def develop(tell) -> Generator[Event]:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("one")
        os.kill(os.getpid(), signal.SIGINT)
        done.append("two")
        yield Sentence("a step")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        watch(develop)
    assert done == ["one"]
    assert signal.getsignal(signal.SIGTERM) == before


class Terminal(io.StringIO):
    """Of forty columns, by what the environment says."""

    def isatty(self) -> bool:
        return True


def test_a_line_fits_its_terminal_and_slow_steps_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    values = {name: torch.tensor(0.5) for name in ("loss", "pixel", "perceptual")}

    def develop(tell) -> Generator[Event]:
        yield Advance("first_stage", 12, Progress(3, values, learning_rate=1e-3, rate=0.1, seconds_left=900.0))
        yield Advance("first_stage", 12, Progress(4, values, learning_rate=1e-3, rate=0.1, seconds_left=800.0))
        yield Advance("first_stage", 12, Progress(12, values, learning_rate=1e-3, rate=0.1, seconds_left=0.0))

    watch(develop)
    first, *others = terminal.getvalue().removeprefix("\r\x1b[K").split("\r\x1b[K")
    assert first == "first_stage 3/12  loss 0.5000  pixel 0."
    assert [each[:17] for each in others] == ["first_stage 12/12"]  # the fourth step came too soon after the third
    assert terminal.getvalue().endswith("\n")

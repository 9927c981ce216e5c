"""How long work is stopped: by a terminal, by the system, by somebody impatient."""

import os
import signal
from collections.abc import Generator

import pytest

from darkroom.cli.watch import watch
from darkroom.train.events import Event, Note


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_the_step_under_way(number: int) -> None:
    done = list[str]()

    def develop(tell) -> Generator[Event]:
        try:
            os.kill(os.getpid(), number)
            done.append("step")
            yield Note("a step")
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
        yield Note("a step")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        watch(develop)
    assert done == ["one"]
    assert signal.getsignal(signal.SIGTERM) == before

"""What happens to a job, told to whoever listens, in other threads too."""

import asyncio
import contextlib
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, final

from darkroom.core.shapes import Number


@final
@dataclass(frozen=True)
class Event:
    """Something that happened. number: 1, 2, ... within its job · kind: `state`, `step`, `preview` or `picture`."""

    number: int
    kind: str
    data: Mapping[str, Any]


@final
class Channel:
    """The events of one job. Of those that replace one another, steps and previews, the latest is kept.

    So whoever comes late, or comes back, learns how things stand in a few events, and memory stays small.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, Event] = {}
        self._last = 0
        self._listening: dict[object, tuple[asyncio.AbstractEventLoop, asyncio.Event, bool]] = {}

    @property
    def watched(self) -> bool:
        """Does anybody want to see previews?"""
        with self._lock:
            return any(previews for _, _, previews in self._listening.values())

    def tell(self, kind: str, data: Mapping[str, Any], *, instead: str | None = None) -> None:
        """A new event; instead: of the kept one told under the same word."""
        with self._lock:
            self._last += 1
            word = f"{self._last}" if instead is None else instead
            self._kept.pop(word, None)
            self._kept[word] = Event(self._last, kind, data)
            listening = list(self._listening.values())
        for loop, bell, _ in listening:
            with contextlib.suppress(RuntimeError):  # the listener's loop has closed
                loop.call_soon_threadsafe(bell.set)

    def after(self, number: int) -> list[Event]:
        """Kept events of higher number, in order."""
        with self._lock:
            return [each for each in self._kept.values() if each.number > number]

    @contextlib.contextmanager
    def listen(self, *, previews: bool) -> Generator[asyncio.Event]:
        """A bell that rings at every event, in the running loop."""
        bell, key = asyncio.Event(), object()
        with self._lock:
            self._listening[key] = (asyncio.get_running_loop(), bell, previews)
        try:
            yield bell
        finally:
            with self._lock:
                del self._listening[key]


async def rung(bell: asyncio.Event, patience: Number | None) -> bool:
    """Did the bell ring within so many seconds (None: whenever)?"""
    try:
        await asyncio.wait_for(bell.wait(), patience)
    except TimeoutError:
        return False
    return True

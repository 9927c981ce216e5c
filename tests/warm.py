"""Processes of their own that begin with torch imported: forked from one that has it, of which each worker has its own.

Imports are most of what a short process takes. Where a test asks for the imports, it starts an interpreter.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

START = "forkserver"
SAID = ("stdout", "stderr")
_PROCESSES = multiprocessing.get_context(START)
IMPORTED = ["torch", "torch._dynamo", "pydantic", "tokenizers", "typer", "PIL.Image"]  # optimisers import the second
_PROCESSES.set_forkserver_preload(IMPORTED)


@dataclass(frozen=True)
class Begun:
    """A process that has begun; what it says lies in two files of its folder."""

    process: BaseProcess
    folder: Path

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._said(SAID[0])

    @property
    def complaints(self) -> str:
        """The same on the stream of errors."""
        return self._said(SAID[1])

    @property
    def alive(self) -> bool:
        """Is it still at work?"""
        return self.process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def ended(self, *, seconds: float = 60) -> int:
        """Wait for its end; its exit code, or the signal that ended it, below 0."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"it goes on:\n{self.out}{self.complaints}"
        return self.process.exitcode

    def _said(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(encoding="utf-8") if path.exists() else ""


@contextlib.contextmanager
def begun(work: Callable[..., Any], *given: Any, folder: Path, place: Path | None = None) -> Generator[Begun]:
    """A function of a module, carried out in a process until the block ends.

    What it says lies in files in `folder` · place: where it works.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SAID:  # of another one, before
        (folder / name).unlink(missing_ok=True)
    process = _PROCESSES.Process(target=_carried_out, args=(folder, place, work, given))
    process.start()
    try:
        yield Begun(process, folder)
    finally:
        process.kill()
        process.join()


def command(words: Sequence[object], *, folder: Path) -> contextlib.AbstractContextManager[Begun]:
    """`darkroom WORDS`, likewise."""
    return begun(darkroom, [str(word) for word in words], folder=folder)


def darkroom(words: Sequence[str]) -> int:
    """One command line; its exit code."""
    from darkroom.cli.main import main

    return main(words)


def python(text: str) -> None:
    """A program."""
    exec(compile(text, "program", "exec"), {"__name__": "__main__"})


def _carried_out(folder: Path, place: Path | None, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    for stream, name in zip((sys.stdout, sys.stderr), SAID, strict=True):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
        stream.reconfigure(encoding="utf-8", line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which their parent ignores
    if place is not None:
        os.chdir(place)
    sys.exit(work(*given))

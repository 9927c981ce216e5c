"""Engines and servers over a folder each, for tests."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn

from darkroom.serve.api import build
from darkroom.serve.asked import parted
from darkroom.serve.engine import Engine
from darkroom.serve.guard import LOCAL
from darkroom.serve.limits import Limits
from darkroom.serve.server import configured
from darkroom.serve.shelf import stocked
from darkroom.serve.store import Job, Store

T = TypeVar("T")
KINDS = ("plain", "text", "class", "layout", "map", "low-res", "inpaint", "both")
SLOW = {"steps": 1000}  # about two seconds of a small model
GIGABYTE = 2**30


def engine_at(folder: Path, sources: Sequence[str], *, batch: int = 8, limits: dict[str, Any] | None = None) -> Engine:
    """An engine that is not started yet."""
    return Engine(
        stocked(sources, memory=GIGABYTE, device="cpu"),
        Store(folder),
        limits=Limits(**{"steps": 1000, **(limits or {})}),
        batch=batch,
    )


def submit(engine: Engine, client: str = "me", **values: Any) -> Job:
    """A job for one client."""
    return engine.submit(*parted(values), client=client)


def wait_for(there: Callable[[], bool], *, seconds: float = 60) -> None:
    """Until something is so."""
    ticking = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if there():
            return
        ticking.wait(0.005)
    raise AssertionError("it did not happen")


def ran(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What a coroutine answers, in a thread: where a browser was driven from this one, its loop is there still."""
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(lambda: asyncio.run(work())).result()


def over(engine: Engine, *jobs: Job) -> list[Job]:
    """These jobs when they have ended."""
    wait_for(lambda: all(_found(engine, job).over for job in jobs))
    return [_found(engine, job) for job in jobs]


def _found(engine: Engine, job: Job) -> Job:
    found = engine.store.job(job.id)
    assert found is not None
    return found


@dataclass(frozen=True)
class Served:
    """A server on this machine, its engine, and a client of it."""

    engine: Engine
    client: httpx.Client
    url: str


@contextmanager
def served(
    engine: Engine, *, tokens: Sequence[str] = (), hosts: Sequence[str] | None = LOCAL, idle: int = 30
) -> Generator[Served]:
    """The engine behind HTTP, until the block ends."""
    at = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{at.getsockname()[1]}"
    app, connections = build(engine, tokens=tokens, hosts=hosts), engine.limits.connections
    server = uvicorn.Server(configured(app, idle=idle, grace=5, connections=connections))
    thread = threading.Thread(target=lambda: server.run(sockets=[at]))
    thread.start()
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            wait_for(lambda: server.started)
            yield Served(engine, client, url)
    finally:
        engine.closing(0)
        server.should_exit = True
        thread.join()

"""The process that serves: a socket, uvicorn, and an end that loses nothing."""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final, final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from darkroom.core.errors import DarkroomError, InputError
from darkroom.serve.api import GRACE
from darkroom.serve.engine import Engine
from darkroom.serve.limits import Limits

if sys.platform != "win32":  # which has no such limits
    import resource

BACKLOG: Final = 1024
OTHERS: Final = 256  # files beside connections: the database, pictures, weights, what libraries hold
IDLE: Final = 30  # seconds that a silent connection is kept


@final
class _Server(uvicorn.Server):
    """Tells of a signal at once: an engine ends its streams of events, so that connections can be closed.

    It ends by itself where it is `over`.
    """

    def __init__(self, config: uvicorn.Config, *, closing: Callable[[], None], over: Callable[[], bool]) -> None:
        super().__init__(config)
        self._closing, self._over = closing, over

    async def on_tick(self, counter: int) -> bool:
        """By uvicorn, ten times a second; should it end?"""
        return await super().on_tick(counter) or self._over()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """By uvicorn, for SIGINT and SIGTERM; the thread that a signal interrupts may hold a lock of the engine."""
        threading.Thread(target=self._closing, name="darkroom-closing", daemon=True).start()
        super().handle_exit(sig, frame)


@final
class _Impatient(H11Protocol):
    """Closes connections beyond those that are allowed, and those on which nothing is asked, or a request's head comes
    byte by byte, or whoever asked does not read the answer: uvicorn would wait for ever."""

    _watching = _read = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        """By asyncio."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            transport.abort()  # uvicorn would keep it, answer others with 503, and have no file left to draw into
            self.connections.discard(self)
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """By asyncio."""
        super().data_received(data)
        self._wait()

    def pause_writing(self) -> None:
        """By asyncio, when much waits to be read."""
        super().pause_writing()
        if not self._watching:
            self._watching = True
            self._watch()

    def resume_writing(self) -> None:
        """By asyncio, when most of that has been read."""
        super().resume_writing()
        self._read = True

    def _watch(self) -> None:
        """Give the connection up once nothing of what waits is read for as long as a silent one is kept."""
        self._read, before = False, self.transport.get_write_buffer_size()

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            self._watching = left > 0
            if left >= before > 0 and not self._read:
                self.transport.abort()
            elif left:
                self._watch()

        self.loop.call_later(self.timeout_keep_alive, look)

    def _wait(self) -> None:
        """Close it unless a request has begun by then."""
        before = self.cycle
        if before is None or before.response_complete:
            self.loop.call_later(
                self.timeout_keep_alive, lambda: self.cycle is before and self.timeout_keep_alive_handler()
            )


def listening(host: str, port: int) -> socket.socket:
    """A socket there, port 0 for any free one; `InputError` where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(
            f"{host}, port {port}: cannot listen there ({said}); choose another --port or --host"
        ) from None
    return found


def address_of(at: socket.socket) -> str:
    """Where a browser finds what listens there."""
    host, port = at.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: FastAPI, engine: Engine, *, at: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; returns when all that was being drawn is kept or waits on disk.

    `DarkroomError` where the engine could not go on: its own, of a model that cannot be loaded, or one that says so.
    """
    _until_stopped(
        app,
        at,
        closing=lambda: engine.closing(GRACE),
        over=lambda: engine.fault is not None,
        ended=lambda: engine.stop(0),
        connections=engine.limits.connections,
    )
    if isinstance(engine.fault, DarkroomError):
        raise engine.fault
    if engine.fault is not None:
        sentence = f"drawing has stopped ({type(engine.fault).__name__}); jobs that wait go on when it is started again"
        raise DarkroomError(sentence)


def configured(
    app: FastAPI, *, idle: int = IDLE, grace: int = int(GRACE) + 5, connections: int = Limits().connections
) -> uvicorn.Config:
    """How uvicorn serves it. idle: seconds of a connection that asks nothing · grace: of requests at the end ·
    connections: at once."""
    return uvicorn.Config(
        app,
        http=_Impatient,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # whoever sends them could call himself anybody
        server_header=False,
        timeout_keep_alive=idle,
        timeout_graceful_shutdown=grace,
        backlog=BACKLOG,
        limit_concurrency=connections + 1,
    )


def room_for(connections: int) -> int:
    """So many of these connections as the system lets this process have, each of which is an open file."""
    if sys.platform == "win32":
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHERS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, allowed - OTHERS)


def run_alone(app: FastAPI, *, at: socket.socket) -> None:
    """Serve what needs no engine until SIGINT or SIGTERM."""
    _until_stopped(app, at, closing=lambda: None, over=lambda: False, ended=lambda: None)


def _until_stopped(
    app: FastAPI,
    at: socket.socket,
    *,
    closing: Callable[[], None],
    over: Callable[[], bool],
    ended: Callable[[], None],
    connections: int = Limits().connections,
) -> None:
    """closing: called at the signal · ended: called at the end, also where the application was not even started."""
    server = _Server(configured(app, connections=room_for(connections)), closing=closing, over=over)

    def early(sig: int, frame: FrameType | None) -> None:
        """For a signal before uvicorn listens to them, and for the one that it raises again when it has stopped."""
        server.should_exit = True

    before = signal.signal(signal.SIGTERM, early)
    try:
        server.run(sockets=[at])
    except KeyboardInterrupt:
        pass
    except SystemExit:  # of uvicorn, where the application does not start
        if not over():
            raise
    finally:
        ended()
        signal.signal(signal.SIGTERM, before)

"""An application that is served by a thread of this process, for clients and browsers of tests."""

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn


@contextmanager
def listening(config: uvicorn.Config, *, port: int = 0, closing: Callable[[], None] = lambda: None) -> Generator[str]:
    """Its address on this machine, until the block ends. port: 0 for any · closing: called when it is to end."""
    at = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[at]))
    thread.start()
    ticking = threading.Event()
    try:
        while not server.started:
            assert thread.is_alive(), "it did not start"
            ticking.wait(0.005)
        yield f"http://127.0.0.1:{at.getsockname()[1]}"
    finally:
        closing()
        server.should_exit = True
        thread.join()

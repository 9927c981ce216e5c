"""A host of files for tests, which answers ranges as object stores do, and oddly where it is told to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


@dataclass
class Asked:
    """What a host was asked. number: which request it is, from 1 on."""

    number: int
    path: str
    name: str
    authorization: str | None


@dataclass
class Host:
    """odd: asked before each answer, which it may give by itself (True)."""

    place: str = ""
    odd: Callable[["Files", Asked], bool] = lambda files, asked: False
    tag: str = '"one"'
    asked: list[Asked] = field(default_factory=list)


class Files(SimpleHTTPRequestHandler):
    def __init__(self, *args: object, host: Host, **others: object) -> None:
        self.host = host
        super().__init__(*args, **others)  # pyright: ignore[reportArgumentType]

    def do_GET(self) -> None:
        name, host = self.headers["Host"], self.host
        asked = Asked(len(host.asked) + 1, self.path, name, self.headers["Authorization"])
        host.asked.append(asked)
        if not host.odd(self, asked):
            self.part()

    def part(self, *, shifted: int = 0, kept: int | None = None) -> None:
        """The range that was asked for, moved or cut short."""
        path = Path(self.translate_path(self.path))
        if not path.exists():
            self.refuse(404)
            return
        first, last = (int(each) for each in self.headers["Range"].removeprefix("bytes=").split("-"))
        whole = path.read_bytes()
        data = whole[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes {first + shifted}-{first + shifted + len(data) - 1}/{len(whole)}")
        if self.host.tag:
            self.send_header("ETag", self.host.tag)
        self.end_headers()
        self.wfile.write(data[:kept])

    def refuse(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": "0", **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[Host]:
    host = Host()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, host=host, directory=str(folder)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    host.place = f"http://127.0.0.1:{server.server_port}"
    yield host
    server.shutdown()
    server.server_close()

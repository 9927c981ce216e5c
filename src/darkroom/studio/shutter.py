"""What is let through of Gradio's application: its page and the files of its front end, asked for in plain words."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Final, final
from urllib.parse import urlsplit

import gradio as gr
import httpx
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkroom.serve.guard import failure

PAGE: Final = ("", "/")
ANSWERED: Final = (*PAGE, "/theme.css", "/gradio_api/theme.css", "/favicon.ico", "/config")
TOLD: Final = ("host", "accept", "x-forwarded-proto")  # of a request's headers
PACKED: Final = "accept-encoding"  # of all but the page, whose scripts are read here
NAMED: Final = "/assets/"  # files that have a digest of what they hold in their names
FOR_GOOD: Final = "private, max-age=31536000, immutable"
_SCRIPT: Final = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", flags=re.DOTALL | re.IGNORECASE)


@final
class Shutter:
    """Wraps Gradio's application and lets through what a page needs that has no function in Python.

    That is the page, its theme, and the files of Gradio's own front end by the names that are there at the start. What
    takes uploads, answers files by path, calls other hosts or runs functions is not there. Neither queries nor other
    headers than the three needed get through: they choose files, other pages, and who may read the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        front = Path(gr.__file__).parent / "templates" / "frontend"
        inside = {f"/{each.relative_to(front).as_posix()}" for each in front.rglob("*") if each.is_file()}
        self._open = {each for each in inside if each.startswith(("/assets/", "/static/"))} | {*ANSWERED}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; the guard before it lets HTTP through alone."""
        within = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["method"] not in ("GET", "HEAD") or within not in self._open:
            await failure("there is no such page", status=404, code="no_page")(scope, receive, send)
        elif not _is_host(Headers(scope=scope).get("host", "")):
            await failure("the header Host names no host", status=400, code="host")(scope, receive, send)
        elif within in PAGE:
            await self._app(_plain(scope, *TOLD), receive, _with_policy(send))
        else:
            await self._app(_plain(scope, *TOLD, PACKED), receive, _kept(send) if within.startswith(NAMED) else send)


def _is_host(host: str) -> bool:
    """Can an address be made of it, as Gradio and what it stands on do?"""
    address = f"http://{host or 'localhost'}/"
    try:
        return bool(httpx.URL(address).host and urlsplit(address).hostname)
    except (httpx.InvalidURL, ValueError):
        return False


def _plain(scope: Scope, *told: str) -> Scope:
    """The request without its query, and with these headers alone."""
    kept = [(name, value) for name, value in scope["headers"] if name.decode("latin-1").lower() in told]
    return {**scope, "query_string": b"", "headers": kept}


def _kept(send: Send) -> Send:
    """Sends what browsers are to keep; untold they guess by a file's age, and soon ask again for what is new."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            MutableHeaders(scope=message)["Cache-Control"] = FOR_GOOD
        await send(message)

    return sent


def _with_policy(send: Send) -> Send:
    """Sends a page when it is whole, with a policy that names the scripts in it."""
    held: list[Message] = []

    async def sent(message: Message) -> None:
        held.append(message)
        if message["type"] != "http.response.body" or message.get("more_body", False):
            return
        page = b"".join(each.get("body", b"") for each in held[1:])
        MutableHeaders(scope=held[0])["Content-Security-Policy"] = policy(page)
        for each in held:
            await send(each)

    return sent


def policy(page: bytes) -> str:
    """A Content-Security-Policy for a page of Gradio's: scripts of this server and those that stand in it.

    `unsafe-eval`: Gradio makes functions of the texts that connect its buttons with our script. Scripts that somebody
    manages to write into the page do not run, and nothing is loaded from, or sent to, another host.
    """
    digests = [base64.b64encode(hashlib.sha256(each).digest()).decode() for each in _SCRIPT.findall(page)]
    scripts = " ".join(["'self'", "'unsafe-eval'", *(f"'sha256-{each}'" for each in digests)])
    parts = {
        "default-src": "'self'",
        "script-src": scripts,
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "object-src": "'none'",
        "frame-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())

"""The guard at the door: who may come in, from which pages, and how much they may send."""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from darkroom.core.errors import InputError, escaped
from darkroom.serve import cookie
from darkroom.serve.counts import Counts
from darkroom.serve.limits import Limits, Refused
from darkroom.serve.tokens import Tries, fitting

OPEN: Final = ("/health", "/ready", cookie.WHERE, cookie.LEAVE)  # without a token: they say nothing about anybody
LITTLE: Final = 4096  # bytes of a body that is read without a token
PAGES: Final = ("/", "/studio", "/studio/")  # where a browser without a token is asked for one
LOCAL: Final = ("localhost", "127.0.0.1", "::1")
SAFE: Final = ("GET", "HEAD", "OPTIONS")
HEADERS: Final = {  # of every answer that does not bring its own
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # a stricter one would take the origin from the form that signs in
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private",  # what a cookie opens is not for caches that many share
}
LONGEST: Final = 600  # characters of a sentence that is answered; it may hold what came
WAITS: Final = {429: 2, 503: 5}  # seconds after which to ask again, where nothing better is known
log = logging.getLogger("darkroom.serve")


@final
@dataclass(eq=False)
class Guard:
    """Wraps an application. tokens: those that open it, none for everybody.

    hosts: names under which it may be called, None for any. Without a token that is what keeps a web page, which can
    make its visitors' browsers call any address, away from a server that only listens to its own machine.
    """

    app: ASGIApp
    limits: Limits
    counts: Counts
    tokens: Sequence[str] = ()
    hosts: Sequence[str] | None = None
    tries: Tries = field(default_factory=Tries)

    def __post_init__(self) -> None:
        self._held = 0  # bytes of bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "websocket":  # nothing here speaks it
            await WebSocketClose()(scope, receive, send)
        elif scope["type"] == "http":
            await self._answered(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        """With our headers, and counted, whatever happens."""
        begun = False

        async def counted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self.counts.add("responses", label=f'status="{message["status"]}"')
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._let_in(scope, receive, counted)
        except Exception:
            if begun:  # nothing can be said any more
                raise
            log.exception("a request failed")
            sentence = "something went wrong here; the server's log tells more"
            await failure(sentence, status=500, code="broken")(scope, receive, counted)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To the application, or a refusal."""
        headers, address, free = Headers(scope=scope), address_of(scope), scope["path"] in OPEN
        body = _Body(most=min(LITTLE, self.limits.body) if free else self.limits.body)
        try:
            owner = "" if free else self._owner(headers, address)
            self._check_page(headers, method=scope["method"])
            _check_length(headers, body)
        except Refused as error:
            asks = error.status == 401 and scope["path"] in PAGES
            refusal = RedirectResponse(cookie.WHERE, status_code=303) if asks else answer(error)
            if error.status == 401 and "cookie" in headers and "authorization" not in headers:
                # It opens nothing, and would count as a try with every picture of a page.
                cookie.forget(refusal, headers.get("host", ""))
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {}).update(owner=owner, client=owner if len(self.tokens) > 1 else address)
        try:
            await self.app(scope, self._limited(receive, body), send)
        finally:
            self._held -= body.came

    def _owner(self, headers: Headers, address: str) -> str:
        """A name for whoever has this token, that does not tell the token; `Refused` with 401, or 429 for now."""
        if not self.tokens:
            return ""
        kind, _, came = headers.get("authorization", "").partition(" ")
        ticket = cookie.ticket_in(headers.get("cookie", ""), host=headers.get("host", ""))
        if kind.lower() == "bearer":
            return self.tries.let_in(address, fitting(came.strip(), self.tokens))
        if not kind and ticket is not None:
            return self.tries.let_in(address, cookie.token_of(ticket, tokens=self.tokens, now=time.time()))
        sentence = "a token is needed: send the header `Authorization: Bearer TOKEN`"
        raise Refused(sentence, status=401, code="no_token")

    def _check_page(self, headers: Headers, *, method: str) -> None:
        """`Refused` with 403 for a name that is not ours, and for what another site's page sends."""
        if self.tokens and "authorization" in headers:  # which pages of other sites may not send
            return
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.tokens and self.hosts is not None and name_of(host) not in self.hosts:
            sentence = f"this server is called {' or '.join(self.hosts)}, not {name_of(host)!r}"
            raise Refused(sentence, status=403, code="host")
        if origin is not None and method not in SAFE and (not host or origin.partition("://")[2] != host):
            raise Refused("pages of other sites may not send anything here", status=403, code="origin")

    def _limited(self, receive: Receive, body: "_Body") -> Receive:
        """The body counted while it comes, whatever was announced, and not waited for for ever."""
        by = asyncio.get_running_loop().time() + self.limits.sending

        async def limited() -> Message:
            if body.whole:
                return await receive()
            try:
                async with asyncio.timeout_at(by):
                    message = await receive()
            except TimeoutError:
                sentence = f"the request took more than {self.limits.sending:g} seconds to arrive"
                raise Refused(sentence, status=408, code="limit_sending") from None
            more = len(message.get("body", b""))
            body.came += more
            self._held += more
            body.whole = not message.get("more_body", False)
            if body.came > body.most:
                raise _too_large(body)
            if more and self._held > self.limits.bodies:
                sentence = "what is being sent here at once is as much as this server allows; try again soon"
                raise Refused(sentence, status=429, code="limit_bodies")
            return message

        return limited


@dataclass
class _Body:
    """How much of a request may come, and has come."""

    most: int
    came: int = 0
    whole: bool = False


def _check_length(headers: Headers, body: _Body) -> None:
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise Refused("Content-Length must be a number", status=400, code="length")
    if len(length) > 18 or int(length) > body.most:
        raise _too_large(body)


def _too_large(body: _Body) -> Refused:
    sentence = f"the request is larger than the {body.most} bytes that this server allows"
    return Refused(sentence, status=413, code="limit_body")


def address_of(scope: Scope) -> str:
    """Where a request came from, as this machine sees it."""
    return (scope.get("client") or ("unknown",))[0]


def name_of(host: str) -> str:
    """A `Host` header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def is_loopback(host: str) -> bool:
    """Is what listens there heard on this machine only?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refusing(app: FastAPI) -> None:
    """From now on the application answers in one sentence what does not fit: errors of ours, paths, queries, bodies."""
    app.add_exception_handler(InputError, _refused)
    app.add_exception_handler(RequestValidationError, _misplaced)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InputError)
    return answer(error)


async def _misplaced(request: Request, error: Exception) -> JSONResponse:
    """Where FastAPI itself reads a request, and finds something else than was declared."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    lost = first["loc"][0] == "path"
    return failure(f"{first['loc'][-1]}: {first['msg']}", status=404 if lost else 422, code="invalid_request")


def answer(error: InputError) -> JSONResponse:
    """What is answered to a request that does not fit, in the shape of OpenAI's errors."""
    refused = error if isinstance(error, Refused) else Refused(str(error))
    said = " ".join(str(error).split())
    sentence = said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."
    return failure(sentence, status=refused.status, code=refused.code, headers=headers_of(refused))


def headers_of(refused: Refused) -> dict[str, str]:
    """What a refusal's headers say: which kind of token is taken, when to ask again."""
    after = refused.after or WAITS.get(refused.status)
    kind = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}
    return kind if after is None else {**kind, "Retry-After": f"{after}"}


def failure(sentence: str, *, status: int, code: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as JSON; text that is no UTF-8 is escaped."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    told = {"error": {"message": escaped(sentence), "type": kind, "param": None, "code": code}}
    return JSONResponse(told, status_code=status, headers=headers)

"""Signing in and out with a browser: a token becomes a cookie, which pages of other sites cannot make it send."""

import hashlib
import hmac
import html
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response

NAME: Final = "darkroom"
WHERE: Final = "/sign-in"
LEAVE: Final = "/sign-out"
AGE: Final = 30 * 24 * 3600  # seconds
PURPOSE: Final = b"darkroom: cookie of the studio until "


def name_at(host: str) -> str:
    """What the cookie of a server that is called so (the header `Host`) is called.

    Browsers send cookies to every port of a host: two servers of one machine would sign each other's visitors out.
    """
    name, _, port = host.rpartition(":")
    return f"{NAME}-{port}" if name and port.isascii() and port.isdigit() else NAME


def ticket(token: str, *, until: int) -> str:
    """What a browser keeps instead of a token, which cannot be told from it. until: seconds since 1970."""
    seal = hmac.new(token.encode(), PURPOSE + f"{until}".encode(), hashlib.sha256).hexdigest()
    return f"{until}.{seal}"


def ticket_in(cookies: str, *, host: str) -> str | None:
    """The ticket in a `Cookie` header that came to this host; None where there is none.

    Browsers send what other servers of this machine left, too, and of whatever form that is, ours is read beside it.
    """
    return cookie_parser(cookies).get(name_at(host))


def token_of(came: str, *, tokens: Sequence[str], now: float) -> str | None:
    """The token that a ticket was made of; None for one of another token, or one that is too old."""
    until = came.partition(".")[0]
    if not until.isascii() or not until.isdigit() or len(until) > 15 or int(until) <= now:
        return None
    tickets = {each: ticket(each, until=int(until)) for each in tokens}
    fits = [each for each, made in tickets.items() if hmac.compare_digest(came.encode(), made.encode())]
    return fits[0] if fits else None


def signed_in(token: str, *, now: float, host: str, secure: bool) -> Response:
    """To the page, with the cookie: for scripts invisible, and sent by pages of this server only.

    secure: never over HTTP without TLS; for browsers that have TLS now, from a proxy before us.
    """
    answer = RedirectResponse("/", status_code=303)
    value = ticket(token, until=int(now) + AGE)
    answer.set_cookie(name_at(host), value, max_age=AGE, httponly=True, samesite="strict", path="/", secure=secure)
    return answer


def signed_out(host: str) -> Response:
    """To the form, without the cookie and without the pictures that the browser kept."""
    answer = RedirectResponse(WHERE, status_code=303, headers={"Clear-Site-Data": '"cache"'})
    forget(answer, host)
    return answer


def forget(answer: Response, host: str) -> None:
    """Take the cookie of this host away with this answer."""
    answer.delete_cookie(name_at(host), path="/", httponly=True, samesite="strict")


def sign_in_page(said: str = "", *, status: int = 200, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """A form that asks for a token, below a sentence if there is one; it loads nothing."""
    alert = f"<p role=alert>{html.escape(said)}</p>" if said else ""
    return HTMLResponse(_PAGE.replace("SAID", alert), status_code=status, headers=headers)


_PAGE: Final = """<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>Darkroom</title><link rel=icon href="data:,"><style>:root{color-scheme:light dark}
body{font:1rem system-ui,sans-serif;max-width:24rem;margin:15vh auto;padding:0 1rem}
input,button{font:inherit;width:100%;padding:.6rem;margin:.4rem 0;box-sizing:border-box}</style>
<h1>Darkroom</h1>SAID<form method=post action=/sign-in><label>Token
<input type=password name=token autocomplete=current-password required autofocus></label>
<button>Come in</button></form></html>
"""

"""Signing in with a browser: a token becomes a cookie, which pages of other sites cannot make it send."""

import hashlib
import hmac
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.responses import HTMLResponse, RedirectResponse, Response

NAME: Final = "darkroom"
WHERE: Final = "/sign-in"
AGE: Final = 30 * 24 * 3600  # seconds
PURPOSE: Final = b"darkroom: cookie of the studio"


def ticket(token: str) -> str:
    """What a browser keeps instead of a token; the token cannot be told from it."""
    return hmac.new(token.encode(), PURPOSE, hashlib.sha256).hexdigest()


def token_in(cookies: str, *, tokens: Sequence[str]) -> str | None:
    """The token whose ticket is in a `Cookie` header; None where there is none."""
    try:
        found = SimpleCookie(cookies).get(NAME)
    except CookieError:
        return None
    came = "" if found is None else found.value
    fits = [each for each in tokens if hmac.compare_digest(came.encode(), ticket(each).encode())]
    return fits[0] if fits else None


def signed_in(token: str, *, secure: bool) -> Response:
    """To the page, with the cookie: for scripts invisible, and sent by pages of this server only.

    secure: never over HTTP without TLS; for browsers that have TLS now, from a proxy before us.
    """
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(NAME, ticket(token), max_age=AGE, httponly=True, samesite="strict", path="/", secure=secure)
    return answer


def sign_in_page(*, wrong: bool = False) -> HTMLResponse:
    """A form that asks for a token; it loads nothing."""
    said = "<p role=alert>This token does not open this server.</p>" if wrong else ""
    return HTMLResponse(_PAGE.replace("SAID", said), status_code=401 if wrong else 200)


_PAGE: Final = """<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>Darkroom</title><link rel=icon href="data:,"><style>:root{color-scheme:light dark}
body{font:1rem system-ui,sans-serif;max-width:24rem;margin:15vh auto;padding:0 1rem}
input,button{font:inherit;width:100%;padding:.6rem;margin:.4rem 0;box-sizing:border-box}</style>
<h1>Darkroom</h1>SAID<form method=post action=/sign-in><label>Token
<input type=password name=token autocomplete=current-password required autofocus></label>
<button>Come in</button></form></html>
"""

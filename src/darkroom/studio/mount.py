"""The studio in the server's application: Gradio's page, our scripts, and nothing that could name a file."""

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

import gradio as gr
from fastapi import APIRouter, FastAPI, Response
from starlette.responses import RedirectResponse
from starlette.routing import Mount

from darkroom.serve import cookie
from darkroom.serve.engine import Engine
from darkroom.serve.limits import Refused
from darkroom.studio.follow import Followed
from darkroom.studio.page import page, theme
from darkroom.studio.shutter import Shutter

PLACE: Final = "/studio"
# in this order
SCRIPTS: Final = ("wire", "levels", "pictures", "boxes", "paint", "result", "gallery", "follow", "studio")


def mount(app: FastAPI, engine: Engine, *, follow: Path | None = None, tokens: Sequence[str] = ()) -> FastAPI:
    """Put the studio into the application, at `/studio`, where `/` leads to as well.

    follow: the folder of a run that a page follows; `InputError` where it is none · tokens: those that the application
    was built with, so that there is a way to sign out.
    """
    followed = None if follow is None else Followed(follow)
    app.include_router(_assets())
    if followed is not None:
        app.include_router(followed.router())
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    leave = cookie.LEAVE if tokens else None
    blocks = page(engine.shelf.offers, limits=engine.limits, follow=followed is not None, leave=leave)
    gr.mount_gradio_app(
        app,
        blocks,
        PLACE,
        footer_links=[],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        head=_head(),
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    )
    for route in app.routes:
        if isinstance(route, Mount) and route.path == PLACE:
            route.app = Shutter(route.app)
    return app


def _head() -> str:
    """What the page loads of ours."""
    return '<link rel="stylesheet" href="/studio-assets/studio.css"><script src="/studio-assets/studio.js"></script>'


def _assets() -> APIRouter:
    """Our script, style and sign, read once: names are looked up in a table, never in a folder."""
    router = APIRouter(include_in_schema=False)
    folder = files("darkroom.studio").joinpath("assets")
    script = b"\n".join(folder.joinpath(f"{name}.js").read_bytes() for name in SCRIPTS)
    icon = folder.joinpath("icon.svg").read_bytes()
    kept: Mapping[str, tuple[bytes, str]] = {
        "studio.js": (script, "text/javascript"),
        "studio.css": (folder.joinpath("studio.css").read_bytes(), "text/css"),
    }

    @router.get("/")
    async def home() -> RedirectResponse:
        return RedirectResponse(f"{PLACE}/", status_code=307)

    @router.get("/favicon.ico")
    async def sign() -> Response:
        return Response(icon, media_type="image/svg+xml")

    @router.get("/studio-assets/{name}")
    async def asset(name: str) -> Response:
        if name not in kept:
            raise Refused("there is no such file", status=404, code="no_page")
        body, kind = kept[name]
        return Response(body, media_type=kind, headers={"Cache-Control": "no-cache"})

    return router

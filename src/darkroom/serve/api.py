"""The HTTP API: one application over one engine."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from darkroom import __version__
from darkroom.core.errors import InputError
from darkroom.serve import cookie, images, jobs
from darkroom.serve.door import Door, TheDoor
from darkroom.serve.engine import Engine
from darkroom.serve.guard import Guard, address_of, answer, failure, headers_of
from darkroom.serve.limits import Refused
from darkroom.serve.tokens import Tries, fitting
from darkroom.serve.views import ErrorView, ModelsView, ModelView, model_view

GRACE: Final = 10.0  # seconds that a batch may still take when the server stops
SAID: Final = {  # instead of the words of HTTP
    404: "there is nothing here; /openapi.json says what there is",
    405: "this method is not taken here; /openapi.json says which are",
}
ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": ErrorView, "description": "What was asked for does not fit, in one sentence."},
}
router = APIRouter()


@router.get("/health", tags=["server"])
async def health(door: TheDoor) -> JSONResponse:
    """Does the engine run? 200 where it does, 503 where the server is to be started again."""
    well = door.engine.alive
    return JSONResponse({"status": "ok" if well else "stopped"}, status_code=200 if well else 503)


@router.get("/ready", tags=["server"])
async def ready(door: TheDoor) -> JSONResponse:
    """Is a model in memory, and are jobs taken? 503 until it is, and while the server stops."""
    there = door.engine.ready and door.engine.alive and not door.engine.closed
    return JSONResponse({"status": "ready" if there else "not ready"}, status_code=200 if there else 503)


@router.get("/metrics", tags=["server"], response_class=PlainTextResponse)
async def metrics(door: TheDoor) -> PlainTextResponse:
    """Counters and gauges in the text format of Prometheus."""
    engine = door.engine
    gauges = {
        "jobs_waiting": engine.waiting,
        "jobs_unfinished": engine.unfinished,
        "models_loaded": len(engine.shelf.loaded),
        "models_bytes": engine.shelf.used,
        "disk_free_bytes": engine.store.free(),
    }
    return PlainTextResponse(engine.counts.text(gauges), media_type="text/plain; version=0.0.4")


@router.get("/v1/models", tags=["models"])
async def models(door: TheDoor) -> ModelsView:
    """The models on offer, the default first, and what steers each."""
    shelf = door.engine.shelf
    return ModelsView(data=tuple(model_view(each, loaded=name in shelf.loaded) for name, each in shelf.offers.items()))


@router.get("/v1/models/{name}", tags=["models"])
async def model(door: TheDoor, name: Annotated[str, Path(max_length=200, description="As `id` has it.")]) -> ModelView:
    """One of the models on offer."""
    shelf = door.engine.shelf
    return model_view(shelf.offer(name), loaded=name in shelf.loaded)


def build(engine: Engine, *, tokens: Sequence[str] = (), hosts: Sequence[str] | None = None) -> FastAPI:
    """The application; it starts the engine when it starts, and stops it when it ends. tokens, hosts: see `Guard`."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None]:
        app.state.door = Door(engine)
        engine.start()
        yield
        engine.stop(GRACE)

    tries = Tries()
    guard = Middleware(Guard, limits=engine.limits, counts=engine.counts, tokens=tokens, hosts=hosts, tries=tries)
    app = FastAPI(
        title="Darkroom",
        version=__version__,
        description="Pictures from latent diffusion models: every task, with progress and previews.",
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        lifespan=life,
        middleware=[guard],
        responses=ERRORS,
    )
    for each in (router, jobs.router, images.router):
        app.include_router(each)
    if tokens:
        app.include_router(_signing(tokens, tries))
    app.add_exception_handler(InputError, _refused)
    app.add_exception_handler(RequestValidationError, _misplaced)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _left)
    return app


def _signing(tokens: Sequence[str], tries: Tries) -> APIRouter:
    """The form that takes a token, and the way out, for browsers."""
    signing = APIRouter(include_in_schema=False)

    @signing.get(cookie.WHERE)
    async def ask() -> Response:
        return cookie.sign_in_page()

    @signing.post(cookie.WHERE)
    async def take(request: Request) -> Response:
        came = dict(parse_qsl((await request.body()).decode(errors="replace"))).get("token", "")
        token = fitting(came.strip(), tokens)
        try:
            tries.let_in(address_of(request.scope), token)
        except Refused as error:
            return cookie.sign_in_page(str(error), status=error.status, headers=headers_of(error))
        assert token is not None
        secure = request.headers.get("origin", "").startswith("https:")
        return cookie.signed_in(token, now=time.time(), host=request.headers.get("host", ""), secure=secure)

    @signing.post(cookie.LEAVE)
    async def leave(request: Request) -> Response:
        return cookie.signed_out(request.headers.get("host", ""))

    return signing


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InputError)
    return answer(error)


async def _misplaced(request: Request, error: Exception) -> JSONResponse:
    """A path or query that does not fit."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = str(first["loc"][-1])
    lost = first["loc"][0] == "path"
    return failure(f"{place}: {first['msg']}", status=404 if lost else 422, code="invalid_request")


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    said = SAID.get(error.status_code, error.detail)
    return failure(said, status=error.status_code, code="http", headers=dict(error.headers or {}))


async def _left(request: Request, error: Exception) -> JSONResponse:
    """Nobody reads this; it is no fault of the server that a request was not sent to its end."""
    return failure("whoever asked has left", status=499, code="gone")

"""Routes in the shape of OpenAI's images: ask, wait, and the answer holds the pictures."""

import base64
import io
import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal, final

from fastapi import APIRouter, Request
from PIL import Image
from pydantic import BeforeValidator, Field, FiniteFloat

from darkroom.core.spec import Spec, parse
from darkroom.serve.asked import LARGEST, opened
from darkroom.serve.door import FORM, JSON, Door, TheDoor, form_of, media_type
from darkroom.serve.door import body_of as json_of
from darkroom.serve.limits import Limits, Refused
from darkroom.serve.store import Job
from darkroom.serve.views import ImagesView, ImageView, picture_url, schema_of

router = APIRouter(prefix="/v1/images", tags=["images"])
CLEAR: Final = 128  # level of a mask's alpha below which OpenAI paints
_SIZE: Final = re.compile(r"(\d{1,5})x(\d{1,5})")


def _given(value: object) -> object:
    """Forms have texts only, also where nothing was filled in."""
    return None if value == "" else value


_FILLED: Final = BeforeValidator(_given)


def _none_asked(value: object) -> object:
    """What forms write for nothing, too."""
    return None if value in ("", "false", "0") else value


_NONE_ASKED: Final = BeforeValidator(_none_asked)
Filled = Annotated[str | None, _FILLED]
Counted = Annotated[Annotated[int, Field(ge=1, le=LARGEST)] | None, _FILLED]
Whole = Annotated[Annotated[int, Field(ge=0, le=LARGEST)] | None, _FILLED]
Scale = Annotated[FiniteFloat | None, _FILLED]
Share = Annotated[Annotated[FiniteFloat, Field(gt=0, le=1)] | None, _FILLED]


@final
class ImagesAsk(Spec):
    """A request as OpenAI's clients send it. n: pictures · size: WIDTHxHEIGHT, or `auto` for the model's own.

    quality, style, background, moderation, output_compression and user are taken and mean nothing here; a stream or
    partial images are not sent. Ours are negative, label, seed, steps, guidance and strength (of a variation).
    """

    prompt: str | None = None
    model: Annotated[Annotated[str, Field(max_length=200)] | None, _FILLED] = None
    n: Counted = 1
    size: str | None = Field(default=None, max_length=20)
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png"] | None = None
    quality: str | None = None
    style: str | None = None
    background: str | None = None
    moderation: str | None = None
    output_compression: Whole = None
    input_fidelity: str | None = None
    stream: Annotated[Literal[False] | None, _NONE_ASKED] = None
    partial_images: Annotated[Literal[0] | None, _NONE_ASKED] = None
    user: str | None = None
    negative: Filled = None
    label: Annotated[int | str | None, _FILLED] = None
    seed: Whole = None
    steps: Counted = None
    guidance: Scale = None
    strength: Share = None

    def values(self) -> dict[str, Any]:
        """The fields of an `Ask`."""
        ours = ("prompt", "model", "negative", "label", "seed", "steps", "guidance", "strength")
        found = {name: getattr(self, name) for name in ours if getattr(self, name) is not None}
        return {**found, "count": self.n or 1, "size": size_of(self.size)}


def _form(*files: str) -> dict[str, Any]:
    properties: dict[str, Any] = {name: {"type": "string", "format": "binary"} for name in files}
    schema = schema_of(ImagesAsk)
    whole = {**schema, "properties": {**schema["properties"], **properties}, "required": [files[0]]}
    return {"requestBody": {"required": True, "content": {FORM: {"schema": whole}}}}


AS_JSON: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {JSON: {"schema": schema_of(ImagesAsk)}}}
}


@router.post("/generations", openapi_extra=AS_JSON)
async def generations(request: Request, door: TheDoor) -> ImagesView:
    """Pictures of a prompt (or a label)."""
    media_type(request, (JSON,))
    values, _ = await json_of(request)
    return await _answer(door, request, values, files={})


@router.post("/edits", openapi_extra=_form("image", "mask"))
async def edits(request: Request, door: TheDoor) -> ImagesView:
    """A picture painted where its mask is transparent, or, without a mask, where it is transparent itself."""
    texts, files = await _parts(request)

    def holes() -> dict[str, bytes]:
        return {"image": files["image"], "mask": mask_of(files.get("mask", files["image"]), door.engine.limits)}

    return await _answer(door, request, texts, files=await door.closely(holes))


@router.post("/variations", openapi_extra=_form("image"))
async def variations(request: Request, door: TheDoor) -> ImagesView:
    """Variations of a picture; `strength` says how much of it is left open."""
    texts, files = await _parts(request)
    if "mask" in files:
        raise Refused("a mask belongs to /v1/images/edits")
    return await _answer(door, request, texts, files=files)


async def _parts(request: Request) -> tuple[dict[str, str], dict[str, bytes]]:
    media_type(request, (FORM,))
    texts, named = await form_of(request)
    files = {name.removesuffix("[]"): data for name, data in named.items()}
    if len(files) < len(named):
        raise Refused("one image is taken, two came", code="no_picture")
    if "image" not in files or set(files) - {"image", "mask"}:
        came = " and ".join(sorted(files)) or "none"
        raise Refused(f"the files image and, for edits, mask are needed, {came} came", code="no_picture")
    return texts, files


async def _answer(door: Door, request: Request, values: Mapping[str, Any], *, files: dict[str, bytes]) -> ImagesView:
    asked = parse(ImagesAsk, values, where="request")
    job = await door.ended(request, await door.submit(request, asked.values(), files=files))
    if job.state != "done":
        raise Refused(job.why or f"the job was {job.state}", status=422, code=f"job_{job.state}")
    root = _root(request) if asked.response_format == "url" else None
    return await door.closely(partial(_pictures, door, job, root=root))


def _root(request: Request) -> str:
    """What addresses begin with for whoever asks: clients follow whole ones only. A proxy says whether it has TLS."""
    host, said = request.headers.get("host"), request.headers.get("x-forwarded-proto")
    scheme = said if said in ("http", "https") else request.scope["scheme"]
    return f"{scheme}://{host}" if host else ""


def _pictures(door: Door, job: Job, *, root: str | None) -> ImagesView:
    """root: of addresses, None for the pictures themselves."""

    def one(place: int) -> ImageView:
        if root is not None:
            return ImageView(url=root + picture_url(job.id, place))
        data = door.engine.store.picture(job.id, place)
        if data is None:
            raise Refused("the job was removed while it was answered", status=410, code="removed")
        return ImageView(b64_json=base64.b64encode(data).decode())

    seed = json.loads(job.asked)["seed"]
    return ImagesView(
        created=int(job.created), data=tuple(one(place) for place in range(job.total)), job=job.id, seed=seed
    )


def size_of(text: str | None) -> tuple[int, int] | None:
    """Height and width of `WIDTHxHEIGHT`; None for `auto`."""
    if text in (None, "", "auto"):
        return None
    found = _SIZE.fullmatch(text)
    if found is None:
        raise Refused(f"size {text!r} does not fit; write WIDTHxHEIGHT, e.g. 96x64, or auto")
    width, height = found.groups()
    return int(height), int(width)


def mask_of(data: bytes, limits: Limits) -> bytes:
    """Our mask (white: paint here), a PNG, of a picture that is transparent there; `Refused` where nothing is."""
    picture = opened(data, what="mask", limits=limits).convert("RGBA").getchannel("A")
    ink = picture.point([255 if level < CLEAR else 0 for level in range(256)])
    if ink.getextrema() == (0, 0):
        raise Refused("nothing is transparent in the mask, so there is nothing to paint", code="no_hole")
    written = io.BytesIO()
    Image.Image.save(ink, written, "PNG")
    return written.getvalue()

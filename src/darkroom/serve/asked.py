"""What a person asks a server for: plain values, and pictures as bytes."""

import base64
import binascii
import io
import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final, cast, final

from PIL import Image
from pydantic import Field, FiniteFloat
from pydantic_core import from_json

from darkroom.core.errors import InputError
from darkroom.core.spec import Spec, parse, parse_strictly
from darkroom.serve.limits import Limits, Refused
from darkroom.tasks.input_picture import input_picture
from darkroom.tasks.request import LARGEST, PICTURES, Placed, Request, Settings, given

FORMATS: Final = ("PNG", "JPEG", "WEBP")  # of pictures that are sent: the fewer readers, the less there is to attack
VALUES: Final = 50_000  # in a body of JSON; thousands of boxes, and what is wrong with each of them fits into memory
Side = Annotated[int, Field(gt=0, le=LARGEST)]
SCANS: Final = 32  # of a JPEG; each goes over the whole picture, and a few bytes ask for one
_MARKER: Final = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # of a segment in a JPEG, or of its end
_JPEG, _SCAN, _END = b"\xff\xd8", b"\xda", b"\xd9"
_DATA_URL: Final = re.compile(r"data:image/[a-z+.-]+;base64,")


@final
class Ask(Settings):
    """One job: `count` pictures of each prompt. The fields given choose the task, as in `Model.sample`.

    model: by the name it is offered under; without one the server's first · prompt: one, or several, which share all
    that is said beside them · image, mask (white: paint here), map,
    low_res, guide: PNG, JPEG or WebP in base64, also as a data URL · layout: objects, each {category, box: x, y, width,
    height in 0..1} · size: height and width in pixels · seed: picture k of a seed is always the same; without one it is
    drawn, and told. All else as `darkroom sample` has it.
    """

    model: str | None = Field(default=None, max_length=200)
    prompt: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    negative: str | None = None
    label: int | str | None = None
    to: str | None = None
    to_label: int | str | None = None
    layout: tuple[Placed, ...] | None = None
    map: str | None = None
    low_res: str | None = None
    image: str | None = None
    mask: str | None = None
    guide: str | None = None
    count: int = Field(default=1, gt=0, le=LARGEST)
    seed: int | None = Field(default=None, ge=0, le=LARGEST)
    size: tuple[Side, Side] | None = None
    guidance_interval: tuple[FiniteFloat, FiniteFloat | None] | None = None


@final
class Asked(Spec):
    """A job as it is kept: what is asked for, the seed filled in, without its pictures."""

    ask: Ask
    seed: int

    def request(self, pictures: Mapping[str, Image.Image]) -> Request:
        """The request of `darkroom.tasks`, not settled yet; pictures by field."""
        asked = {**self.ask.model_dump(exclude={"model"}), **pictures, "seed": self.seed}
        return parse(Request, given(asked), where="request")


def read_json(body: bytes) -> dict[str, Any]:
    """The object in a body of JSON; `Refused` for what is none, and for one of very many values."""
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(f"the body is no JSON: {error}", status=400, code="no_json") from None
    if not isinstance(found, dict):
        raise Refused(f"the body must be a JSON object, {type(found).__name__} came", status=400, code="no_object")
    if _is_vast(found):
        raise Refused(f"the body holds more than {VALUES} values", status=413, code="limit_values")
    return cast("dict[str, Any]", found)


def _is_vast(found: object) -> bool:
    """Are there more values in it than anybody asks for?"""
    left, seen = [found], 0
    while left:
        part = left.pop()
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        seen += len(inner)
        if seen > VALUES:
            return True
        left += inner
    return False


def parted(values: Mapping[str, Any], *, files: Mapping[str, bytes] | None = None) -> tuple[Asked, dict[str, bytes]]:
    """What is asked for, and the pictures of it as bytes: those in base64 and those that came as files.

    `InputError` or `Refused` for what does not fit.
    """
    ask = parse_strictly(Ask, values, where="request")
    written = {name: getattr(ask, name) for name in PICTURES if getattr(ask, name) is not None}
    twice = sorted(set(written) & set(files or {}))
    if twice:
        raise Refused(f"{twice[0]} came twice, as a file and in the request; give one of them")
    pictures = {name: from_base64(text, what=name) for name, text in written.items()} | dict(files or {})
    plain = ask.model_copy(update=dict.fromkeys(PICTURES))
    return Asked(ask=plain, seed=secrets.randbelow(2**31) if ask.seed is None else ask.seed), pictures


def from_base64(text: str, *, what: str) -> bytes:
    """The bytes of a picture in base64 or a data URL; `Refused` for anything else."""
    start = _DATA_URL.match(text)
    try:
        return base64.b64decode(text[start.end() if start else 0 :], validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"{what}: a picture in base64 is needed (or a data URL of one)", code="no_picture") from None


def opened(data: bytes, *, what: str, limits: Limits) -> Image.Image:
    """A picture that was sent, decoded; `Refused` for what is none, and before decoding for one that is too large."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > limits.picture:
                raise Refused(
                    f"{what}: {width} x {height} pixels came, at most {limits.picture} in all are taken",
                    status=413,
                    code="limit_picture",
                )
            if has_many_scans(data):
                raise Refused(f"{what}: a JPEG of more than {SCANS} scans came", status=413, code="limit_picture")
            picture.load()
            return input_picture(picture).picture
    except InputError:
        raise
    except Image.DecompressionBombError:  # before there was anything to look at
        sentence = f"{what}: many more than the {limits.picture} pixels that are taken came"
        raise Refused(sentence, status=413, code="limit_picture") from None
    except Exception as error:  # bytes made to confuse a reader make Pillow raise anything
        raise Refused(
            f"{what}: no readable picture ({type(error).__name__}); PNG, JPEG and WebP are taken", code="no_picture"
        ) from None


def has_many_scans(data: bytes) -> bool:
    """Is it a JPEG of more than `SCANS`? Made of 100, one of 70 kB takes a processor for 17 seconds.

    Markers are followed as a decoder does; what lies in a segment, or after the end, is none.
    """
    if not data.startswith(_JPEG):
        return False
    at, scans = len(_JPEG), 0
    while scans <= SCANS and (marker := _MARKER.search(data, at)) is not None and marker[1] != _END:
        scans += marker[1] == _SCAN
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    return scans > SCANS

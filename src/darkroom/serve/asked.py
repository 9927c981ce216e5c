"""What a person asks a server for: plain values, and pictures as bytes."""

import base64
import binascii
import io
import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, cast, final, get_args

from PIL import Image
from pydantic import Field, FiniteFloat
from pydantic_core import from_json

from darkroom.core.errors import InputError
from darkroom.core.spec import Spec, parse
from darkroom.serve.limits import Limits, Refused
from darkroom.tasks.input_picture import input_picture
from darkroom.tasks.note import PICTURES
from darkroom.tasks.request import Labels, Placed, Request, given

PictureName = Literal["map", "low_res", "image", "mask", "guide"]
NAMES: Final[tuple[PictureName, ...]] = get_args(PictureName)
FORMATS: Final = ("PNG", "JPEG", "WEBP")  # of pictures that are sent: the fewer readers, the less there is to attack
LARGEST: Final = 2**63 - 1
VALUES: Final = 50_000  # in a body of JSON; thousands of boxes, and what is wrong with each of them fits into memory
Side = Annotated[int, Field(gt=0, le=LARGEST)]
_DATA_URL: Final = re.compile(r"data:image/[a-z+.-]+;base64,")


@final
class Ask(Spec):
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
    to_seed: int | None = Field(default=None, ge=0, le=LARGEST)
    at: FiniteFloat | None = Field(default=None, ge=0, le=1)
    layout: tuple[Placed, ...] | None = None
    map: str | None = None
    low_res: str | None = None
    image: str | None = None
    mask: str | None = None
    guide: str | None = None
    strength: FiniteFloat | None = Field(default=None, gt=0, le=1)
    inverted: bool = False
    guide_weight: FiniteFloat | None = Field(default=None, gt=0, le=1)
    match: int | None = Field(default=None, ge=0, le=16)
    count: int = Field(default=1, gt=0, le=LARGEST)
    seed: int | None = Field(default=None, ge=0, le=LARGEST)
    first: int = Field(default=0, ge=0, le=LARGEST)
    size: tuple[Side, Side] | None = None
    window: int | None = Field(default=None, gt=0, le=LARGEST)
    steps: int | None = Field(default=None, gt=0, le=LARGEST)
    solver: str | None = Field(default=None, max_length=50)
    eta: FiniteFloat | None = Field(default=None, ge=0)
    guidance: FiniteFloat | dict[str, FiniteFloat] | None = None
    guidance_interval: tuple[FiniteFloat, FiniteFloat | None] | None = None
    guidance_rescale: FiniteFloat = Field(default=0.0, ge=0, le=1)
    times: str | None = Field(default=None, max_length=50)


@final
class Asked(Spec):
    """A job as it is kept: what is asked for, the seed filled in, without its pictures."""

    ask: Ask
    seed: int

    def request(self, pictures: Mapping[str, Image.Image]) -> Request:
        """The request of `darkroom.tasks`, not settled yet; pictures by field."""
        plain = self.ask.model_dump(
            exclude={"model", *NAMES, "prompt", "negative", "label", "to", "to_label", "layout"}
        )
        fields = given(
            prompt=self.ask.prompt,
            negative=self.ask.negative,
            label=self._labels(),
            to=self.ask.to,
            to_label=self.ask.to_label,
            layout=None if self.ask.layout is None else [list(self.ask.layout)],
            pictures={PICTURES[name]: [picture] for name, picture in pictures.items() if name in NAMES},
            size=plain.pop("size"),
            others={**plain, "seed": self.seed},
        )
        return parse(Request, fields, where="request")

    def _labels(self) -> Labels | None:
        """The label, once for each of several prompts."""
        prompt, label = self.ask.prompt, self.ask.label
        return [label] * len(prompt) if isinstance(prompt, tuple) and label is not None else label


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
    ask = parse(Ask, values, where="request")
    written = {name: getattr(ask, name) for name in NAMES if getattr(ask, name) is not None}
    twice = sorted(set(written) & set(files or {}))
    if twice:
        raise Refused(f"{twice[0]} came twice, as a file and in the request; give one of them")
    pictures = {name: from_base64(text, what=name) for name, text in written.items()} | dict(files or {})
    plain = ask.model_copy(update=dict.fromkeys(NAMES))
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

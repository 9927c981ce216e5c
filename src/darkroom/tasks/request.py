"""What a person asks for, parsed once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, final

from PIL import Image
from pydantic import AfterValidator, Field, FiniteFloat, InstanceOf, field_validator

from darkroom.core.spec import Spec, parse
from darkroom.tasks.input_picture import InputPicture, input_picture

Label = int | str
Texts = str | Sequence[str]
Labels = Label | Sequence[Label]
Layouts = Sequence[Any]
Picture = Image.Image | str | Path
Pictures = Picture | Sequence[Picture]
V = TypeVar("V")
PictureField = Literal["map", "low_res", "image", "mask", "guide"]
PICTURES: Final[dict[PictureField, str]] = {  # those of one wish, and what a request calls those of all
    "map": "maps",
    "low_res": "low_res",
    "image": "images",
    "mask": "masks",
    "guide": "guides",
}
ENDS: Final = {"to_prompt": "to_prompts", "to_label": "to_labels"}
WORDS: Final = {"prompt": "prompts", "label": "labels", "negative": "negatives", **ENDS}
EACH: Final[dict[str, str]] = {**WORDS, "layout": "layouts", **PICTURES}
GROUPED: Final = tuple(name for name in EACH.values() if name not in {"negatives", *ENDS.values()})
MOST_MOVES: Final = 16  # of a step, to what is known at the rim of a hole
LARGEST: Final = 2**63 - 1  # of whole numbers, which others keep in 64 bits
LONGEST: Final = 50  # characters of a name
_ROUNDING: Final = 1e-6


def _encodable(text: str) -> str:
    """Text that can be tokenized and written; a command line may hold any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("this is no UTF-8 text") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]


@final
class Placed(Spec):
    """An object of a layout: its category, and its box (x, y, width, height) in 0..1 of the picture."""

    category: int | str
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]

    @field_validator("box")
    @classmethod
    def _inside(cls, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        x, y, width, height = box
        if min(x, y) < 0 or min(width, height) <= 0 or max(x + width, y + height) > 1 + _ROUNDING:
            raise ValueError(f"{list(box)} lies outside the picture: x, y, width and height are shares of it, 0..1")
        return box


Layout = tuple[Placed, ...]


def placed(value: "Placed | Mapping[str, Any]") -> Placed:
    """An object of a layout from a mapping; `SpecError` for what does not fit."""
    return value if isinstance(value, Placed) else parse(Placed, value, where="layout")


@final
@dataclass(frozen=True)
class Wish:
    """One picture of a request: its seed and index in it, what steers it, and its place between two ends.

    to_prompt, to_label, to_seed: those of the last end, None where the request names none, or the seed of the first ·
    at: 0 at the first end, 1 at the last; None without a second end · layout, map, low_res, image, mask, guide: as in
    `Request`.
    """

    index: int
    seed: int = 0
    to_seed: int | None = None
    prompt: str | None = None
    label: Label | None = None
    negative: str | None = None
    to_prompt: str | None = None
    to_label: Label | None = None
    at: float | None = None
    layout: Layout | None = None
    map: InputPicture | None = None
    low_res: InputPicture | None = None
    image: InputPicture | None = None
    mask: InputPicture | None = None
    guide: InputPicture | None = None


class Settings(Spec):
    """How pictures are drawn, whatever they show: what a `Request` and a job of the server have in common.

    first: index in the seed to begin with · to_seed, at: see `Request` · strength: how much of an image is left open,
    up to 1 (begin at the noisiest time) · inverted: begin with the noise that leads to the image instead of drawn
    noise · guide_weight: how far each step goes towards where the picture, made small, is its guide, a
    share of the way · match: with masks, how many times a later step is moved to where its picture meets the known
    pixels at the rim of the hole; with low_res, whether the drawn picture is held to the small one at the end, 1 or 0
    (None: what the model was made for) · window: side in pixels of overlapping windows that a larger picture is
    denoised in · steps, solver, eta, guidance: None for the model's defaults; guidance also one for each field, by
    name · times: None for the model's best grid, else `original`, `original-quad` or `trailing`.
    """

    first: int = Field(default=0, ge=0, le=LARGEST)
    to_seed: int | None = Field(default=None, ge=0, le=LARGEST)
    at: float | None = Field(default=None, ge=0, le=1)
    strength: float | None = Field(default=None, gt=0, le=1)
    inverted: bool = False
    guide_weight: float | None = Field(default=None, gt=0, le=1)
    match: int | None = Field(default=None, ge=0, le=MOST_MOVES)
    window: int | None = Field(default=None, gt=0, le=LARGEST)
    steps: int | None = Field(default=None, gt=0, le=LARGEST)
    solver: str | None = Field(default=None, max_length=LONGEST)
    eta: FiniteFloat | None = Field(default=None, ge=0)
    guidance: FiniteFloat | dict[str, FiniteFloat] | None = None
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    times: str | None = Field(default=None, max_length=LONGEST)


@final
class Request(Settings):
    """Pictures to draw: `count` of each prompt or label (none: of nothing in particular).

    negatives: what to steer away from, one for all or one for each prompt · layouts, maps, low_res, images, masks
    (1: paint here), guides: one for all or one for each · to_prompts, to_labels (one for all or one for each), to_seed:
    a second end. The `count` pictures then lead evenly from one end to the other, both included, and share an index;
    with `at` (0 to 1) all stand at that place between the ends and differ by their index · size: (height, width) in
    pixels · guidance_interval: (low, high) in noise level sigma / alpha, high None without an upper bound.
    """

    prompts: tuple[Text, ...] = ()
    labels: tuple[Label, ...] = ()
    negatives: tuple[Text, ...] = ()
    to_prompts: tuple[Text, ...] = ()
    to_labels: tuple[Label, ...] = ()
    layouts: tuple[Layout, ...] = ()
    maps: tuple[InstanceOf[InputPicture], ...] = ()
    low_res: tuple[InstanceOf[InputPicture], ...] = ()
    images: tuple[InstanceOf[InputPicture], ...] = ()
    masks: tuple[InstanceOf[InputPicture], ...] = ()
    guides: tuple[InstanceOf[InputPicture], ...] = ()
    count: int = Field(default=1, gt=0, le=1_000_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    size: tuple[int, int] | None = None
    guidance_interval: tuple[float, Annotated[float, Field(allow_inf_nan=True)] | None] | None = None

    @field_validator("guidance_interval")
    @classmethod
    def _without_infinity(cls, value: tuple[float, float | None] | None) -> tuple[float, float | None] | None:
        """JSON has no infinity, and pictures keep this as JSON."""
        return (value[0], None) if value is not None and value[1] == math.inf else value

    @classmethod
    def of(
        cls,
        *,
        prompt: Texts | None = None,
        label: Labels | None = None,
        size: Sequence[int] | int | None = None,
        others: Mapping[str, Any],
    ) -> "Request":
        """From the looser forms callers use; `others` are fields as they are. `SpecError` for what does not fit."""
        fields = {**given({"prompt": prompt, "label": label, "size": size}), **others}
        return parse(cls, fields, where="request")

    @property
    def total(self) -> int:
        """Number of pictures."""
        return self.count * max(1, *(len(getattr(self, name)) for name in GROUPED))

    @property
    def between(self) -> bool:
        """Is there a second end?"""
        return bool(self.to_prompts or self.to_labels or self.to_seed is not None)

    @property
    def on_a_way(self) -> bool:
        """Do the pictures lead from one end to the other?"""
        return self.between and self.at is None

    def wishes(self) -> list[Wish]:
        """Each picture in order, `count` in a row of each prompt or label."""
        return [self._wish(*divmod(place, self.count)) for place in range(self.total)]

    def _wish(self, group: int, place: int) -> Wish:
        steered = {name: _of_group(getattr(self, of_all), group) for name, of_all in EACH.items()}
        return Wish(
            index=self.first + (group if self.on_a_way else group * self.count + place),
            seed=self.seed,
            to_seed=None if self.to_seed == self.seed else self.to_seed,
            at=place / max(1, self.count - 1) if self.on_a_way else self.at,
            **{**steered, "negative": steered["negative"] or None},
        )


def given(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a request from what callers call them; what is None was not given, other names pass as they are.

    prompt, label, negative, to, to_label: one or several · layout: one layout, a list of {category, box}, or a list of
    them · map, low_res, image, mask, guide: one picture or several, open or as files · size: (height, width), or one
    side.
    """
    return dict(_field(name, value) for name, value in asked.items() if value is not None)


def _field(name: str, value: Any) -> tuple[str, Any]:
    name = "to_prompt" if name == "to" else name
    match name:
        case "layout":
            return EACH[name], _layouts(value)
        case "size" if isinstance(value, int):
            return name, (value, value)
        case _ if name in WORDS:
            return EACH[name], _several(value)
        case _ if name in PICTURES:
            return EACH[name], _pictures(value)
        case _:
            return name, value


def _several(values: Labels) -> list[Label]:
    return list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]


def _layouts(layout: Any) -> list[Any]:
    """One layout is a list of objects, several are a list of lists."""
    several = isinstance(layout, Sequence) and bool(layout) and all(isinstance(each, (list, tuple)) for each in layout)
    return list(layout) if several else [layout]


def _pictures(value: Any) -> list[InputPicture]:
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return [input_picture(each) for each in (value if several else [value])]


def _of_group(values: Sequence[V], group: int) -> V | None:
    """The value for this group; one alone is for all groups."""
    return values[min(group, len(values) - 1)] if values else None

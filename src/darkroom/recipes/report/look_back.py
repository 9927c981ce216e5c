"""A finished model looked at: samples, the training pictures nearest to them, and whether it copies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, final

import torch
from PIL import Image
from torch import Tensor

from darkroom.core.pictures import as_saved, from_bytes, to_bytes, to_pictures
from darkroom.core.shapes import Images
from darkroom.core.spec import parse
from darkroom.data.examples import Source
from darkroom.data.inputs import captions, label_of
from darkroom.data.loader import still_batches
from darkroom.data.order import spread
from darkroom.data.sources import Splits
from darkroom.data.transforms import TransformSpec, still
from darkroom.metrics.neighbours import NEAR, Memorisation, Neighbours, memorisation, nearest, thumbprints
from darkroom.recipes.report.conditions import layout_picture, map_picture, masked_picture
from darkroom.recipes.resolve import classes_of
from darkroom.tasks.generate import generate
from darkroom.tasks.held_out import Spoiling, asked_of
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request

COMPARED: Final = 20_000  # training pictures at most, evenly chosen; 15 million numbers
UNSEEN: Final = 1000  # test pictures at most that say how near is near
KNOWN: Final = 64  # training pictures sent through the first stage: copies by making
SHOWN: Final = 3  # neighbours of each sample
SEED: Final = 0  # of the samples
_CAPTIONS: Final = 256  # test captions of which prompts are chosen
_BATCH: Final = 64
WHOLE: Final = Spoiling()
Tell = Callable[[str, int, int], None]
T = TypeVar("T")


@final
@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training picture, cut as training cuts it from its centre, and how far from the sample it is."""

    picture: Image.Image
    name: str
    distance: float
    caption: str | None = None


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """A picture that the model drew, what was asked for, and its nearest training pictures, the nearest first.

    given: boxes, a map or a picture that it was asked to follow, drawn at its size.
    """

    picture: Image.Image
    prompt: str | None = None
    label: str | None = None
    given: Image.Image | None = None
    neighbours: tuple[Neighbour, ...] = ()
    closeness: float = 1.0
    copied: bool = False

    @property
    def asked(self) -> str:
        """What was asked for, in words; empty where nothing was."""
        return ", ".join(each for each in (self.label, self.prompt) if each)


@final
@dataclass(frozen=True, eq=False)
class LookBack:
    """What is seen when a model is finished.

    drawn: how the samples were made, in words · compared, training: how many training pictures were looked at, of how
    many · first: what the first sample was asked for, by field of a `Request`.
    """

    samples: tuple[Sample, ...]
    memorisation: Memorisation
    drawn: str
    compared: int
    training: int
    first: Mapping[str, Any] = field(default_factory=dict)


def look_back(
    model: Model,
    splits: Splits,
    *,
    transform: TransformSpec,
    spoiling: Spoiling = WHOLE,
    count: int = 16,
    tell: Tell | None = None,
) -> LookBack:
    """`count` samples with the model's own settings, each beside its three nearest training pictures.

    spoiling: for a model steered by test pictures made small or masked · tell: called with (what, done, of); it may
    raise. Prompts are those that the model's card names, else captions of test pictures. At most 20,000 training
    pictures are compared, evenly chosen, in `thumbprints`; the nearest of all views that training takes of a sample
    counts.
    """
    report = tell or _silent
    asked = _asked(model, splits, count=count, transform=transform, spoiling=spoiling)
    request = parse(Request, {**asked, "count": 1 if asked else count, "seed": SEED}, where="the samples")
    drawn_pictures = generate(model, request, on_step=lambda done, of: report("samples", done, of))
    pictures = [sampled.picture for sampled in drawn_pictures]
    texts, labels = asked.get("prompts"), asked.get("labels")
    shown = _shown(asked, transform=transform)
    look = _Look(splits, transform, report)
    made = from_bytes(torch.stack([to_bytes(picture, transform.channels) for picture in pictures]))
    near = look.nearest(look.views(made))
    copies = look.nearest(look.views(_through(model, look.known())))
    found = memorisation(near.distances, look.nearest(look.unseen()).distances, copies=copies.distances)
    samples = [
        Sample(
            picture,
            prompt=None if texts is None else texts[place],
            label=None if labels is None else labels[place],
            given=None if shown is None else shown[place],
            neighbours=look.pictures(near, place),
            closeness=found.closeness[place],
            copied=found.copied[place],
        )
        for place, picture in enumerate(pictures)
    ]
    first = {name: values[0] for name, values in asked.items()}
    return LookBack(
        tuple(samples), found, _drawn(model), compared=len(look.rows), training=len(splits.train), first=first
    )


@final
class _Look:
    """The training set as it is searched: thumbprints of evenly chosen rows."""

    def __init__(self, splits: Splits, transform: TransformSpec, tell: Tell) -> None:
        self.splits, self.transform = splits, transform
        self.rows = spread(len(splits.train), most=COMPARED)
        parts: list[Tensor] = []
        for images in _pictures(splits.train, transform, self.rows):
            parts.append(thumbprints(images))
            tell("training pictures compared", min(len(self.rows), _BATCH * len(parts)), len(self.rows))
        self.training = torch.cat(parts)

    def views(self, images: Images) -> Tensor:
        """(b, v, d): each picture, in all views that training takes."""
        return torch.stack([thumbprints(view.of(images)) for view in self.transform.views.each], dim=1)

    def unseen(self) -> Tensor:
        """(m, v, d) of test pictures."""
        rows = spread(len(self.splits.test), most=UNSEEN)
        return torch.cat([self.views(images) for images in _pictures(self.splits.test, self.transform, rows)])

    def known(self) -> Images:
        """A few training pictures."""
        rows = self.rows[:: max(1, -(-len(self.rows) // KNOWN))]
        return torch.cat(list(_pictures(self.splits.train, self.transform, rows)))

    def nearest(self, views: Tensor) -> Neighbours:
        """Among the training pictures, as many as the measure of memorisation asks for."""
        return nearest(views, self.training, k=min(NEAR, len(self.rows)))

    def pictures(self, near: Neighbours, place: int) -> tuple[Neighbour, ...]:
        """The training pictures nearest to sample `place`."""
        found: list[Neighbour] = []
        for row, distance in zip(
            near.indices[place, :SHOWN].tolist(), near.distances[place, :SHOWN].tolist(), strict=True
        ):
            example = self.splits.train.example(self.rows[row])
            (cut,) = to_pictures(from_bytes(still(example.picture, self.transform)[None]))
            found.append(Neighbour(cut, example.name, distance, example.caption))
        return tuple(found)


def _silent(what: str, done: int, of: int) -> None:
    """Nobody asked."""


def _pictures(source: Source, transform: TransformSpec, rows: Sequence[int]) -> Iterator[Images]:
    """Centre crops of these rows, in [-1, 1], batch by batch."""
    for part in still_batches(source, transform, batch_size=_BATCH, rows=rows):
        yield from_bytes(part.images)


def _through(model: Model, images: Images) -> Images:
    """Pictures as the model would draw them if it knew them by heart: encoded, decoded, on 256 levels."""
    parts = [model.decode(model.encode(part)).cpu() for part in images.split(_BATCH // 4)]
    return as_saved(torch.cat(parts))


def _asked(model: Model, splits: Splits, *, count: int, transform: TransformSpec, spoiling: Spoiling) -> dict[str, Any]:
    """What each sample is asked for, as far as the model takes it: fields of a `Request`."""
    test = splits.test
    rows = _dealt(range(len(test)), count=count)
    of_rows = asked_of(model, test, rows=rows, transform=transform, spoiling=spoiling)
    asked: dict[str, Any] = {}
    if "caption" in model.fields:
        offered = _own_prompts(model) or captions(test, most=_CAPTIONS)
        texts = captions(test) if of_rows else []
        asked["prompts"] = [texts[row] for row in rows] if of_rows else _dealt(offered, count=count)
    if "label" in model.fields:
        named = [test.classes[label_of(test, row)] for row in rows] if of_rows else []
        asked["labels"] = named or _dealt(classes_of(splits.train), count=count)
    return asked | of_rows


def _shown(asked: Mapping[str, Any], *, transform: TransformSpec) -> list[Image.Image] | None:
    """Pictures of what the samples were asked to follow; None where words and labels say it all."""
    size = (transform.size, transform.size)
    match asked:
        case {"images": images, "masks": masks}:
            return [masked_picture(image, mask, size=size) for image, mask in zip(images, masks, strict=True)]
        case {"low_res": pictures}:
            return [each.picture.resize(size, Image.Resampling.NEAREST) for each in pictures]
        case {"maps": maps}:
            return [map_picture(each, size=size) for each in maps]
        case {"layouts": layouts}:
            return [layout_picture(each, size=size) for each in layouts]
        case _:
            return None


def _dealt(values: Sequence[T], *, count: int) -> list[T]:
    """`count` of the values: evenly chosen where there are more, in turn where there are fewer."""
    if len(values) > count:
        return [values[place * len(values) // count] for place in range(count)]
    return [values[place % len(values)] for place in range(count)]


def _own_prompts(model: Model) -> list[str]:
    """Those that the model's card names; they may be captions of training pictures."""
    return list(model.default("prompts", []))


def _drawn(model: Model) -> str:
    solver, steps = model.default("solver", "ddim"), model.default("steps", 50)
    guidance = f", guidance {model.default('guidance', 1.0):g}" if model.spec.guided else ""
    words = ""
    if "caption" in model.fields:
        chosen = bool(_own_prompts(model))
        words = ", prompts that were chosen for it" if chosen else ", captions of test pictures as prompts"
    return f"{solver}, {steps} steps{guidance}, seed {SEED}{words}"

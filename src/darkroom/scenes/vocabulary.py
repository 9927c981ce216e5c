"""What can be in a scene and how it is said: shapes, colours, sizes, relations, captions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from darkroom.core.errors import InputError

Box = tuple[float, float, float, float]  # x, y, width, height in 0..1 of the canvas

SHAPES: Final = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart")
HUES: Final = {  # degrees of HSV hue
    "red": 0.0,
    "orange": 30.0,
    "yellow": 55.0,
    "green": 120.0,
    "cyan": 180.0,
    "blue": 225.0,
    "purple": 280.0,
    "pink": 330.0,
}
COLOURS: Final = tuple(HUES)
SIZES: Final = ("small", "large")
RELATIONS: Final = ("left of", "right of", "above", "below")
BACKGROUNDS: Final = ("plain", "gradient", "spotlight", "stripes", "checks", "clouds")

HUE_TOLERANCE: Final = 5.0  # degrees
OBJECT_SATURATION: Final = 0.75  # at least
BACKGROUND_SATURATION: Final = 0.3  # at most
SMALLEST: Final = 12  # pixels, either side of an object's box
LARGE_FROM: Final = 20.5  # pixels, longer side of the box: small below, large above
CANVAS: Final = 64  # pixels of the default canvas
NAMED: Final = 3  # a caption names at most so many objects (all of them on the default canvas)

_THING: Final = re.compile(
    f"a (?:(?P<size>{'|'.join(SIZES)}) )?(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})"
)


@final
@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene: what it is and its tight box, relative `(x, y, width, height)`."""

    shape: str
    colour: str
    size: str
    box: Box

    @property
    def category(self) -> str:
        """The word for layouts and maps: the shape."""
        return self.shape


@final
@dataclass(frozen=True)
class Named:
    """One thing that a caption names; size is None where it says nothing about it."""

    shape: str
    colour: str
    size: str | None


@final
@dataclass(frozen=True)
class Claim:
    """What a caption says: its things in order, and between neighbours how the first lies to the second."""

    things: tuple[Named, ...]
    relations: tuple[str, ...]


def relation(first: Box, second: Box) -> str:
    """Where the first box is, seen from the second: the axis on which their centres are farther apart."""
    across = (first[0] + first[2] / 2) - (second[0] + second[2] / 2)
    down = (first[1] + first[3] / 2) - (second[1] + second[3] / 2)
    if abs(across) >= abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


def describe(objects: Sequence[SceneObject], *, sized: Sequence[bool]) -> str:
    """`a [size] colour shape [left of | right of | above | below a ...]`, relations between neighbours.

    objects: at most `NAMED` of them are named, in their order · sized: is the size of each one said?
    """
    named = list(zip(objects, sized, strict=True))[:NAMED]
    parts: list[str] = []
    for place, (thing, with_size) in enumerate(named):
        if place:
            parts.append(relation(named[place - 1][0].box, thing.box))
        parts.append(f"a {thing.size} {thing.colour} {thing.shape}" if with_size else f"a {thing.colour} {thing.shape}")
    return " ".join(parts)


def parse_caption(caption: str) -> Claim:
    """What a caption says, as `describe` words it.

    Raises `InputError` for a caption outside the grammar, or one that names more than `NAMED` things.
    """
    pieces = re.split(f" ({'|'.join(RELATIONS)}) ", caption)
    things = [_THING.fullmatch(piece) for piece in pieces[::2]]
    matched = [thing for thing in things if thing]
    if len(matched) < len(things) or len(things) > NAMED:
        raise InputError(
            f"caption {caption!r}: not in the words of `shapes`; what fits is `a [size] colour shape`, up to {NAMED} "
            f"times, with one of {', '.join(RELATIONS)} in between"
        )
    return Claim(tuple(Named(thing["shape"], thing["colour"], thing["size"]) for thing in matched), tuple(pieces[1::2]))


def map_id(shape: str) -> int:
    """The class id of a shape in a scene's map (0 is the background)."""
    return SHAPES.index(shape) + 1

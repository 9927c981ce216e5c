"""What can be in a scene and how it is said: shapes, colours, sizes, relations, captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

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


def map_id(shape: str) -> int:
    """The class id of a shape in a scene's map (0 is the background)."""
    return SHAPES.index(shape) + 1

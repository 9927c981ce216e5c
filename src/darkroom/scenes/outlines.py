"""Outlines of the eight shapes as signed distances, negative inside, in pixels.

Each is exact or a tight bound near the outline, which is all that antialiasing and shadows look at.
A point is (x, y), right and down from the middle of the shape's box; s is the longer side of that box.
"""

import math
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float

Plane: TypeAlias = Float[np.ndarray, "h w"]
Point: TypeAlias = tuple[Plane, Plane]
Outline: TypeAlias = Callable[[Point, float], Plane]

_RING = 0.36  # thickness of the ring over its outer radius, half of it on either side of the middle line
_ARM = 0.36  # width of a cross's arm over its length
_WAIST = 0.47  # inner over outer radius of the star
_DIAGONAL = math.sqrt(0.5)


def circle(point: Point, s: float) -> Plane:
    """A disc of diameter s."""
    x, y = point
    return np.hypot(x, y) - s / 2


def square(point: Point, s: float) -> Plane:
    """A square of side s."""
    x, y = point
    return np.maximum(np.abs(x), np.abs(y)) - s / 2


def triangle(point: Point, s: float) -> Plane:
    """An upright isosceles triangle, s wide and 0.95 s high."""
    x, y = point
    height = 0.95 * s
    slant = math.hypot(height, s / 2)
    sides = (np.abs(x) * height - (y + height / 2) * (s / 2)) / slant
    return np.maximum(sides, y - height / 2)


def diamond(point: Point, s: float) -> Plane:
    """A square on its tip, s from tip to tip."""
    x, y = point
    return (np.abs(x) + np.abs(y) - s / 2) * _DIAGONAL


def star(point: Point, s: float) -> Plane:
    """An upright five-pointed star, s wide: folded onto half a tip, then the distance to its one edge."""
    x, y = point
    outer = s / (2 * math.cos(math.radians(18)))
    sector = math.radians(72)
    down = y - outer * (1 - math.cos(sector / 2)) / 2
    angle = np.arctan2(x, -down)
    folded = np.abs(angle - sector * np.round(angle / sector))
    radius = np.hypot(x, down)
    dent_u = outer * _WAIST * math.cos(sector / 2)
    dent_v = outer * _WAIST * math.sin(sector / 2)
    length = math.hypot(dent_v, outer - dent_u)
    along, aside = radius * np.cos(folded), radius * np.sin(folded)
    return ((along - outer) * dent_v + aside * (outer - dent_u)) / length


def cross(point: Point, s: float) -> Plane:
    """An upright cross (a plus sign) of extent s."""
    x, y = np.abs(point[0]), np.abs(point[1])
    reach, arm = s / 2, s / 2 * _ARM
    return np.minimum(np.maximum(x - arm, y - reach), np.maximum(x - reach, y - arm))


def ring(point: Point, s: float) -> Plane:
    """A ring of outer diameter s."""
    x, y = point
    half = s / 2 * _RING / 2
    return np.abs(np.hypot(x, y) - (s / 2 - half)) - half


def heart(point: Point, s: float) -> Plane:
    """A heart s wide: a square on its tip with a disc on each of its two upper sides."""
    x, y = point
    radius = s / (2 + math.sqrt(2))
    middle = radius * _DIAGONAL
    down = y - radius * (1 - _DIAGONAL) / 2
    aside = np.abs(x)
    lobes = np.hypot(aside - middle, down + middle) - radius
    point = (aside + np.abs(down)) * _DIAGONAL - radius
    return np.minimum(lobes, point)


OUTLINES: Final[dict[str, Outline]] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "diamond": diamond,
    "star": star,
    "cross": cross,
    "ring": ring,
    "heart": heart,
}

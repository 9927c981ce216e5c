"""Outlines of the eight shapes as signed distances, negative inside, in pixels.

Each is exact or a tight bound near the outline, which is all that antialiasing and shadows look at.
x (to the right) and y (down) are relative to the middle of the shape's box; s is the longer side of that box.
"""

import math
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float

Plane: TypeAlias = Float[np.ndarray, "h w"]
Outline: TypeAlias = Callable[[Plane, Plane, float], Plane]

_RING = 0.36  # thickness of the ring over its outer radius, half of it on either side of the middle line
_ARM = 0.36  # width of a cross's arm over its length
_WAIST = 0.47  # inner over outer radius of the star
_DIAGONAL = math.sqrt(0.5)


def circle(x: Plane, y: Plane, s: float) -> Plane:
    """A disc of diameter s."""
    return np.hypot(x, y) - s / 2


def square(x: Plane, y: Plane, s: float) -> Plane:
    """A square of side s."""
    return np.maximum(np.abs(x), np.abs(y)) - s / 2


def triangle(x: Plane, y: Plane, s: float) -> Plane:
    """An upright isosceles triangle, s wide and 0.95 s high."""
    height = 0.95 * s
    slant = math.hypot(height, s / 2)
    sides = (np.abs(x) * height - (y + height / 2) * (s / 2)) / slant
    return np.maximum(sides, y - height / 2)


def diamond(x: Plane, y: Plane, s: float) -> Plane:
    """A square on its tip, s from tip to tip."""
    return (np.abs(x) + np.abs(y) - s / 2) * _DIAGONAL


def star(x: Plane, y: Plane, s: float) -> Plane:
    """An upright five-pointed star, s wide: folded onto half a tip, then the distance to its one edge."""
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


def cross(x: Plane, y: Plane, s: float) -> Plane:
    """An upright cross (a plus sign) of extent s."""
    x, y = np.abs(x), np.abs(y)
    reach, arm = s / 2, s / 2 * _ARM
    return np.minimum(np.maximum(x - arm, y - reach), np.maximum(x - reach, y - arm))


def ring(x: Plane, y: Plane, s: float) -> Plane:
    """A ring of outer diameter s."""
    half = s / 2 * _RING / 2
    return np.abs(np.hypot(x, y) - (s / 2 - half)) - half


def heart(x: Plane, y: Plane, s: float) -> Plane:
    """A heart s wide: a square on its tip with a disc on each of its two upper sides."""
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

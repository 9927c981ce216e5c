"""Scenes of the `shapes` world: a picture and everything that is true of it, a function of (seed, index)."""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Bool, Float, UInt8

from darkroom.core.errors import InputError
from darkroom.scenes.backgrounds import draw_background, grid
from darkroom.scenes.dice import Dice
from darkroom.scenes.outlines import OUTLINES
from darkroom.scenes.vocabulary import (
    CANVAS,
    COLOURS,
    HUES,
    NAMED,
    SHAPES,
    SIZES,
    Box,
    SceneObject,
    describe,
    map_id,
)

Kind = Literal["captioned", "single"]
Canvas = Float[np.ndarray, "h w 3"]

_COUNTS = (1, 1, 1, 2, 2, 2, 2, 3, 3, 3)  # objects on the default canvas, drawn evenly from here
_EXTENTS = {"small": (15.0, 18.5), "large": (24.0, 29.0)}  # pixels, longer side
_GAP = 2.5  # pixels between the cells of two objects
_BORDER = 1.5  # pixels between a cell and the edge of the canvas
_CLEAR = 3.0  # pixels by which one axis of a named relation exceeds the other
_HUE_SPREAD = 4.0  # degrees; rounding to 8 bits stays within the tolerance of 5
_SHADOW = 3  # pixels of softness, on either side of the outline


@final
@dataclass(frozen=True)
class Scene:
    """A picture with its exact fields.

    image: (h, w, 3) · label: the shape of the only object, else None · map: (h, w), `map_id` of the shape
    that covers at least half the pixel, 0 for the background.
    """

    image: UInt8[np.ndarray, "h w 3"]
    caption: str
    label: str | None
    objects: tuple[SceneObject, ...]
    map: UInt8[np.ndarray, "h w"]


@final
@dataclass(frozen=True)
class _Plan:
    """One object before it is drawn: a square cell around (x, y) with side `extent`, pixels."""

    shape: str
    colour: str
    size: str
    extent: float
    x: float
    y: float


def draw(seed: int, index: int, *, size: int | tuple[int, int] = CANVAS, kind: Kind = "captioned") -> Scene:
    """Scene `index` of the endless series `seed`.

    size: side in pixels or (height, width), each at least 32; a larger canvas has more objects of the same
    pixel size · kind: `captioned` has 1-3 objects on 64 x 64, `single` always one, its label is the shape.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < CANVAS // 2:
        raise InputError(f"shapes: a canvas of {height} x {width} is too small; at least 32 x 32 fits")
    dice = Dice(seed, index)
    count = 1 if kind == "single" else max(1, round(dice.pick(_COUNTS) * height * width / CANVAS**2))
    plans = _plan(dice, count, shape=(height, width))
    canvas, map_ = draw_background(dice, (height, width)), np.zeros((height, width), np.uint8)
    objects = _paint(dice, plans, canvas=canvas, map_=map_)
    caption = describe(objects[:NAMED], sized=[dice.chance(0.5) for _ in objects[:NAMED]])
    label = plans[0].shape if kind == "single" else None
    return Scene(np.rint(canvas * 255).astype(np.uint8), caption, label, tuple(objects), map_)


def _plan(dice: Dice, count: int, *, shape: tuple[int, int]) -> list[_Plan]:
    """Kinds and places of all objects; when they do not fit, they are placed anew, at last all small."""
    attempt = 0
    while True:
        sizes = [dice.pick(SIZES) if attempt < 6 else "small" for _ in range(count)]
        plans: list[_Plan] = []
        for each in sizes:
            plan = _place(dice, each, others=plans, shape=shape)
            if plan is None:
                break
            plans.append(plan)
        else:
            return plans
        attempt += 1
        count -= attempt % 12 == 0  # a canvas so narrow that even small ones do not fit holds fewer


def _place(dice: Dice, size: str, *, others: Sequence[_Plan], shape: tuple[int, int]) -> _Plan | None:
    """An object that keeps clear of the others, or None when no place is found soon."""
    taken = {(other.shape, other.colour) for other in others}
    kind = dice.pick(SHAPES), dice.pick(COLOURS)
    for _ in range(8):
        if kind not in taken:
            break
        kind = dice.pick(SHAPES), dice.pick(COLOURS)
    extent = dice.between(*_EXTENTS[size])
    margin = extent / 2 + _BORDER
    for _ in range(24):
        x, y = dice.between(margin, shape[1] - margin), dice.between(margin, shape[0] - margin)
        plan = _Plan(*kind, size, extent, x, y)
        if _fits(plan, others):
            return plan
    return None


def _fits(plan: _Plan, others: Sequence[_Plan]) -> bool:
    for other in others:
        apart = (plan.extent + other.extent) / 2 + _GAP
        if max(abs(plan.x - other.x), abs(plan.y - other.y)) < apart:
            return False
    if 0 < len(others) < NAMED:  # the caption will relate this one to the last: one axis must clearly win
        last = others[-1]
        return abs(abs(plan.x - last.x) - abs(plan.y - last.y)) >= _CLEAR
    return True


def _paint(dice: Dice, plans: Sequence[_Plan], *, canvas: Canvas, map_: UInt8[np.ndarray, "h w"]) -> list[SceneObject]:
    """Light, shadows and objects painted onto the canvas, the objects' ids onto the map."""
    height, width = map_.shape
    x, y = grid(height, width)
    turn = dice.between(math.radians(210), math.radians(330))  # the light comes from above
    light = math.cos(turn), math.sin(turn)
    far = math.hypot(height, width) / 2
    canvas *= 1 + 0.06 * ((x - width / 2) * light[0] + (y - height / 2) * light[1])[..., None] / far - 0.04
    windows = [_window(plan, map_.shape) for plan in plans]
    distances = [
        OUTLINES[plan.shape]((x[window] - np.float32(plan.x), y[window] - np.float32(plan.y)), plan.extent)
        for plan, window in zip(plans, windows, strict=True)
    ]
    for window, distance in zip(windows, distances, strict=True):
        _cast_shadow(canvas[window], distance, light=light)
    objects: list[SceneObject] = []
    for plan, window, distance in zip(plans, windows, distances, strict=True):
        side = ((x[window] - plan.x) * light[0] + (y[window] - plan.y) * light[1]) / (plan.extent / 2)
        _fill(canvas[window], distance, tint=_tint(dice, plan.colour), shade=0.9 + 0.12 * side)
        inside = distance <= 0
        map_[window][inside] = map_id(plan.shape)
        objects.append(SceneObject(plan.shape, plan.colour, plan.size, _box(inside, window, shape=map_.shape)))
    return objects


def _window(plan: _Plan, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The part of the canvas that an object and its shadow touch."""
    reach = plan.extent / 2 + 2 * _SHADOW + 1
    top, left = max(0, int(plan.y - reach)), max(0, int(plan.x - reach))
    return slice(top, min(shape[0], int(plan.y + reach))), slice(left, min(shape[1], int(plan.x + reach)))


def _cast_shadow(part: Canvas, distance: Float[np.ndarray, "h w"], *, light: tuple[float, float]) -> None:
    """Darken the ground away from the light: the outline moved by about two pixels, softened."""
    right, down = round(-2 * light[0]), round(-2 * light[1])
    height, width = distance.shape
    source = distance[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    target = part[max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)]
    depth = np.clip(0.5 - source / (2 * _SHADOW), 0, 1)
    target *= (1 - 0.4 * depth * depth * (3 - 2 * depth))[..., None]


def _tint(dice: Dice, colour: str) -> np.ndarray:
    """The object's own colour at full light: hue within the tolerance, saturation from 0.8."""
    hue = (HUES[colour] + dice.between(-_HUE_SPREAD, _HUE_SPREAD)) % 360
    return np.array(colorsys.hsv_to_rgb(hue / 360, dice.between(0.8, 1.0), dice.between(0.82, 0.98)), np.float32)


def _fill(
    part: Canvas, distance: Float[np.ndarray, "h w"], *, tint: np.ndarray, shade: Float[np.ndarray, "h w"]
) -> None:
    """Paint inside the outline with antialiased edges; the shade scales the value alone."""
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    part += cover * (np.clip(shade, 0.6, 1.02)[..., None] * tint - part)


def _box(inside: Bool[np.ndarray, "h w"], window: tuple[slice, slice], *, shape: tuple[int, ...]) -> Box:
    """The tight box of the pixels that are at least half covered, relative to the canvas."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    left, top = window[1].start + int(columns[0]), window[0].start + int(rows[0])
    across, down = int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1
    return left / shape[1], top / shape[0], across / shape[1], down / shape[0]

"""The six kinds of backgrounds: for every pixel a mixture, 0..1, of two pale or grey colours."""

import colorsys
import functools
import math

import numpy as np
from jaxtyping import Float

from darkroom.scenes.dice import Dice
from darkroom.scenes.vocabulary import BACKGROUNDS

Plane = Float[np.ndarray, "h w"]
Canvas = Float[np.ndarray, "h w 3"]
_CELL = 14  # pixels between the random values of the clouds


@functools.lru_cache(maxsize=16)
def grid(height: int, width: int) -> tuple[Plane, Plane]:
    """x and y of every pixel's middle, in pixels; shared, so never written to."""
    x, y = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    planes = np.meshgrid(x, y)
    for plane in planes:
        plane.flags.writeable = False
    return planes[0], planes[1]


def draw_background(dice: Dice, shape: tuple[int, int]) -> Canvas:
    """A background in 0..1, saturation at most 0.25 (0.3 after rounding)."""
    kind = dice.pick(BACKGROUNDS)
    mixture = _mixture(dice, kind=kind, shape=shape)
    first, second = _two_colours(dice, apart=0.12 if kind in ("stripes", "checks") else 0.25)
    return first + mixture[..., None] * (second - first)


def _two_colours(dice: Dice, *, apart: float) -> tuple[np.ndarray, np.ndarray]:
    hue, saturation = dice.between(0.0, 1.0), dice.between(0.0, 0.24) if dice.chance(0.8) else 0.0
    value = dice.between(0.32, 0.95)
    step = dice.between(apart / 2, apart) * (1 if value < 0.62 else -1)
    first = colorsys.hsv_to_rgb(hue, saturation, value)
    second = colorsys.hsv_to_rgb(
        (hue + dice.between(-0.06, 0.06)) % 1, saturation * dice.between(0.5, 1.0), value + step
    )
    return np.array(first, np.float32), np.array(second, np.float32)


def _mixture(dice: Dice, *, kind: str, shape: tuple[int, int]) -> Plane:
    height, width = shape
    x, y = grid(height, width)
    turn = dice.between(0.0, 2 * math.pi)
    along = x * math.cos(turn) + y * math.sin(turn)
    match kind:
        case "gradient":
            low, high = float(along.min()), float(along.max())
            return (along - low) / (high - low)
        case "spotlight":
            middle_x, middle_y = dice.between(0.2, 0.8) * width, dice.between(0.2, 0.8) * height
            reach = dice.between(0.35, 0.6) * min(height, width)
            return np.exp(-((x - middle_x) ** 2 + (y - middle_y) ** 2) / (2 * reach**2))
        case "stripes":
            return _soft_square(along * (2 * math.pi / dice.between(8.0, 20.0)))
        case "checks":
            period = 2 * math.pi / dice.between(14.0, 28.0)
            across = y * math.cos(turn) - x * math.sin(turn)
            first, second = _soft_square(along * period), _soft_square(across * period)
            return first + second - 2 * first * second
        case "clouds":
            return _clouds(dice, shape)
        case _:
            return np.zeros((height, width), np.float32)


def _soft_square(phase: Plane) -> Plane:
    """A square wave 0..1 with edges of about two pixels."""
    return np.clip(np.sin(phase) * 2 + 0.5, 0, 1)


def _clouds(dice: Dice, shape: tuple[int, int]) -> Plane:
    rows, columns = _spread(shape[0]), _spread(shape[1])
    heights = [[dice.between(0.0, 1.0) for _ in range(columns.shape[1])] for _ in range(rows.shape[1])]
    hills = rows @ np.array(heights, np.float32) @ columns.T
    return np.clip(1.8 * hills - 0.4, 0, 1)


@functools.lru_cache(maxsize=16)
def _spread(length: int) -> Plane:
    """Weights (length, values) of a cubic B-spline through one value every `_CELL` pixels."""
    count = math.ceil(length / _CELL) + 3
    at = np.arange(length, dtype=np.float32)[:, None] / _CELL + 1
    away = np.abs(at - np.arange(count, dtype=np.float32))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6
    return np.where(away < 1, near, far).astype(np.float32)

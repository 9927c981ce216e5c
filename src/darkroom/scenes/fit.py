"""Which outline explains a patch of coverage best, and where it lies: least squares over place and extent."""

import functools
import math
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float

from darkroom.scenes.backgrounds import grid
from darkroom.scenes.outlines import OUTLINES

Plane = Float[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]

_EDGE: Final = 1.4  # pixels from covered to bare: 1 as drawn, a little more after a loss of detail
_BLURS: Final = (0, 2)  # times that an outline is softened before it is compared, by 0.7 pixels each
_HOPEFUL: Final = 3  # fits, at most, that are worth a closer look
_MUCH_WORSE: Final = 3.0  # times as unlike as the best of them: not worth it
_STEPS: Final = 2  # of Gauss-Newton; the first guess is good to half a pixel
_STRIDE: Final = 2.0  # pixels, at most, of one step


@final
@dataclass(frozen=True)
class Fit:
    """A square cell around (x, y) with side `extent`, in pixels of the window.

    blurs: how often its outline was softened · unlike: from 0 (explains the coverage) to 1 (explains nothing).
    """

    shape: str
    x: float
    y: float
    extent: float
    blurs: int = 0
    unlike: float = 1.0


def best_fit(cover: Plane, valid: Mask) -> Fit:
    """The outline most like the coverage of a window (about 0..1), judged by its valid pixels."""
    guesses = sorted((_judged(guess, cover, valid) for guess in _guesses(cover, valid)), key=_badness)
    limit = _MUCH_WORSE * guesses[0].unlike + 0.03
    hopeful = [guess for guess in guesses[:_HOPEFUL] if guess.unlike <= limit]
    return min((_settled(guess, cover, valid) for guess in hopeful), key=_badness)


def distance_to(fit: Fit, shape: tuple[int, ...]) -> Plane:
    """Signed distance in pixels from the fitted outline, over a window of this (height, width)."""
    x, y = grid(shape[0], shape[1])
    return OUTLINES[fit.shape]((x - np.float32(fit.x), y - np.float32(fit.y)), fit.extent)


def _badness(fit: Fit) -> float:
    return fit.unlike


def _guesses(cover: Plane, valid: Mask) -> list[Fit]:
    """Every outline with the area and the centre of mass of the coverage."""
    x, y = grid(cover.shape[0], cover.shape[1])
    mass = cover.clip(0, 1) * valid
    area = max(float(mass.sum()), 1.0)
    middle_x, middle_y = float((mass * x).sum()) / area, float((mass * y).sum()) / area
    fits: list[Fit] = []
    for shape in OUTLINES:
        share, drop = _moments(shape)
        extent = math.sqrt(area / share)
        fits.append(Fit(shape, middle_x, middle_y - drop * extent, extent))
    return fits


@functools.cache
def _moments(shape: str) -> tuple[float, float]:
    """Area over the squared extent, and how far below the middle of the box the centre of mass is, over the extent."""
    x, y = grid(256, 256)
    inside = OUTLINES[shape]((x - 128, y - 128), 200.0) <= 0
    return float(inside.sum()) / 200**2, float((y[inside] - 128).mean()) / 200


def _settled(fit: Fit, cover: Plane, valid: Mask) -> Fit:
    """The fit moved to where it is most like the coverage, with sharp or soft edges as suits it better."""
    fit = _focused(fit, cover, valid)
    for _ in range(_STEPS):
        fit = _nearer(fit, cover, valid)
    return _focused(fit, cover, valid)


def _focused(fit: Fit, cover: Plane, valid: Mask) -> Fit:
    """The fit with sharp or with soft edges, whichever is more like the coverage."""
    return min((_judged(replace(fit, blurs=blurs), cover, valid) for blurs in _BLURS), key=_badness)


def _judged(fit: Fit, cover: Plane, valid: Mask) -> Fit:
    """The fit with the share of the variance that it leaves unexplained, whatever the contrast."""
    model, seen = _softened(_drawn(distance_to(fit, cover.shape)), fit.blurs)[valid], cover[valid]
    model, seen = model - model.sum() / model.size, seen - seen.sum() / seen.size
    along, power = float(model @ seen), float((model @ model) * (seen @ seen))
    return replace(fit, unlike=1 - along * along / power if along > 0 else 1.0)


def _drawn(distance: Plane) -> Plane:
    """Coverage 0..1 of each pixel by the inside of an outline."""
    return (0.5 - distance / _EDGE).clip(0, 1)


def _softened(planes: Float[np.ndarray, "*planes h w"], times: int) -> Float[np.ndarray, "*planes h w"]:
    """Weights 1 2 1 in both directions, so many times; nothing beyond the window."""
    for _ in range(times):
        down = planes * 2
        down[..., 1:, :] += planes[..., :-1, :]
        down[..., :-1, :] += planes[..., 1:, :]
        planes = down * 2
        planes[..., 1:] += down[..., :-1]
        planes[..., :-1] += down[..., 1:]
        planes /= 16
    return planes


def _nearer(fit: Fit, cover: Plane, valid: Mask) -> Fit:
    """One step of Gauss-Newton over place, extent, contrast and ground.

    An outline of twice the extent is the same outline seen from half as far, so by Euler's theorem on homogeneous
    functions the slope of the distance in the extent is `(d - x d_x - y d_y) / extent`.
    """
    x, y = grid(cover.shape[0], cover.shape[1])
    distance = distance_to(fit, cover.shape)
    down, right = np.gradient(distance)
    wider = ((x - fit.x) * right + (y - fit.y) * down - distance) / fit.extent
    rim = np.abs(distance) < _EDGE / 2
    slopes = np.stack([right * rim, down * rim, wider * rim, _drawn(distance) * _EDGE]) / np.float32(_EDGE)
    columns = np.concatenate([_softened(slopes, fit.blurs), np.ones_like(x)[None]])[:, valid].astype(np.float64)
    answer = np.linalg.solve(columns @ columns.T + 1e-6 * np.eye(5), columns @ cover[valid])
    step = (answer[:3] / max(float(answer[3]), 0.1)).clip(-_STRIDE, _STRIDE)
    return replace(
        fit, x=fit.x + float(step[0]), y=fit.y + float(step[1]), extent=max(fit.extent + float(step[2]), 4.0)
    )

"""Reading the objects of a `shapes` picture back: analysis by synthesis, with nothing learnt.

Chroma (colour less grey) is strong in objects only and blind to light and shadow, so patches of it are candidates.
Each is turned into coverage, a number from bare ground (0) to object (1), and compared with every outline.
"""

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from darkroom.scenes.backgrounds import grid
from darkroom.scenes.fit import Fit, best_fit, distance_to
from darkroom.scenes.vocabulary import HUES, LARGE_FROM, SMALLEST, Box, SceneObject, map_id

Mask = Bool[np.ndarray, "h w"]
Plane = Float[np.ndarray, "h w"]
Colours = Float[np.ndarray, "h w 3"]
Colour = Float[np.ndarray, "3"]

# Backgrounds stay below chroma 0.25 and objects above 0.41. A patch that fits no outline may be two objects that a
# blur runs together, so it is looked at again where chroma is stronger.
_LEVELS: Final = (0.33, 0.45, 0.6)
_MARGIN: Final = 4  # pixels around a patch that belong to the comparison
_FEWEST: Final = 40  # pixels of a patch that may be an object
_WIDEST: Final = 40  # pixels, either side of such a patch
_UNLIKE: Final = 0.12  # share of the coverage's variance that its outline may leave unexplained
_EXTENTS: Final = (13.0, 33.0)  # pixels, longer side of an object: 15 to 29 as drawn
_OUTSIDE: Final = 0.75  # pixels by which a whole object may seem to cross the edge of the picture
_GRAIN: Final = 0.02  # standard deviation of colours that is taken for granted, in 0..1
_HUE_SLACK: Final = 12.0  # degrees; half the way from orange to yellow is 12.5
_PURE: Final = 0.62  # saturation of an object, at least: 0.75 as drawn
_PALE: Final = 0.42  # saturation of the ground around it, at most: 0.3 as drawn
_LIGHT: Final = 0.4  # value of an object, at least


@final
@dataclass(frozen=True)
class _Patch:
    """Neighbouring pixels of strong chroma in a window of the picture.

    inside: the patch · others: other patches · top, left: of the window.
    """

    colours: Colours
    inside: Mask
    others: Mask
    top: int
    left: int


@final
@dataclass(frozen=True)
class _Found:
    """An object, and the pixels within its outline in a window of the picture."""

    thing: SceneObject
    inside: Mask
    top: int
    left: int


def read(image: UInt8[np.ndarray, "h w 3"]) -> list[SceneObject]:
    """The objects of the `shapes` world in any picture, ordered by the top, then the left side of their boxes."""
    return sorted((each.thing for each in _found(image)), key=lambda thing: (thing.box[1], thing.box[0]))


def read_map(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """The picture's map as it is read: `map_id` of the shape whose outline holds the middle of a pixel, 0 elsewhere."""
    map_ = np.zeros(image.shape[:2], np.uint8)
    for each in _found(image):
        height, width = each.inside.shape
        map_[each.top : each.top + height, each.left : each.left + width][each.inside] = map_id(each.thing.shape)
    return map_


def _found(image: UInt8[np.ndarray, "h w 3"]) -> list[_Found]:
    colours = image.astype(np.float32) / 255
    strength = _chroma(colours)
    unread, found = np.ones(strength.shape, bool), list[_Found]()
    for level in _LEVELS:
        for patch in _patches(strength > level, unread, colours=colours):
            recognised = _recognised(patch, strength.shape)
            if recognised is not None:
                found.append(recognised)
                height, width = patch.inside.shape
                unread[patch.top : patch.top + height, patch.left : patch.left + width] &= ~_grown(patch.inside)
    return found


def _chroma(colours: Colours) -> Plane:
    """Distance from the greys: 0 for those, 0.87 to 1 for the purest colours; linear along a mixture with grey."""
    red, green, blue = colours[..., 0], colours[..., 1], colours[..., 2]
    return np.hypot(red - (green + blue) / 2, (green - blue) * np.float32(np.sqrt(0.75)))


def _patches(strong: Mask, unread: Mask, *, colours: Colours) -> Iterator[_Patch]:
    """Each connected patch of strong and unread pixels, of a size that an object may have."""
    fresh = strong & unread
    if fresh.sum() < _FEWEST:
        return
    labels = _connected(fresh)
    names, counts = np.unique(labels[fresh], return_counts=True)
    for name in names[counts >= _FEWEST]:
        mask = labels == name
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        if min(bottom - top, right - left) >= SMALLEST / 2 and max(bottom - top, right - left) <= _WIDEST:
            top, left = max(0, top - _MARGIN), max(0, left - _MARGIN)
            window = slice(top, bottom + _MARGIN), slice(left, right + _MARGIN)
            yield _Patch(colours[window], mask[window], strong[window] & ~mask[window], top, left)


def _connected(mask: Mask) -> Int[np.ndarray, "h w"]:
    """One number for each patch, the place of one of its pixels; corners connect.

    Every pixel takes the smallest number around it, then the number of the pixel so named, until nothing changes.
    """
    nowhere = mask.size
    labels = np.where(mask, np.arange(nowhere).reshape(mask.shape), nowhere)
    while True:
        rows = labels.copy()
        np.minimum(rows[1:], labels[:-1], out=rows[1:])
        np.minimum(rows[:-1], labels[1:], out=rows[:-1])
        lowest = rows.copy()
        np.minimum(lowest[:, 1:], rows[:, :-1], out=lowest[:, 1:])
        np.minimum(lowest[:, :-1], rows[:, 1:], out=lowest[:, :-1])
        names = np.append(np.where(mask, lowest, nowhere), nowhere)
        names = names[names]
        after = names[names][:-1].reshape(mask.shape)
        if np.array_equal(after, labels):
            return labels
        labels = after


def _grown(mask: Mask) -> Mask:
    """One pixel larger in eight directions."""
    tall = mask.copy()
    tall[1:] |= mask[:-1]
    tall[:-1] |= mask[1:]
    grown = tall.copy()
    grown[:, 1:] |= tall[:, :-1]
    grown[:, :-1] |= tall[:, 1:]
    return grown


def _recognised(patch: _Patch, shape: tuple[int, ...]) -> _Found | None:
    """What a patch is, or None when it is no object of the world."""
    core, valid = ~_grown(~patch.inside), ~_grown(patch.others)
    if core.sum() < SMALLEST:
        core = patch.inside
    around = valid & ~_grown(patch.inside)
    if around.sum() < SMALLEST:
        return None
    own, ground = np.median(patch.colours[core], axis=0), np.median(patch.colours[around], axis=0)
    name = _named(own)
    if name is None or colorsys.rgb_to_hsv(*ground.tolist())[1] > _PALE:
        return None
    direction = _telling(own - ground, patch.colours[around])
    fit = best_fit(_coverage(patch, core, direction=direction, ground=ground), valid)
    if fit.unlike > _UNLIKE or not _EXTENTS[0] <= fit.extent <= _EXTENTS[1] or not _whole(fit, patch, shape):
        return None
    inside = distance_to(fit, patch.inside.shape) <= 0
    box, longest = _box(inside, patch, shape)
    thing = SceneObject(fit.shape, name, "large" if longest > LARGE_FROM else "small", box)
    return _Found(thing, inside, patch.top, patch.left)


def _named(colour: Colour) -> str | None:
    """The world's word for a colour in 0..1, if its hue is near one and it is as pure and light as objects are."""
    hue, saturation, value = colorsys.rgb_to_hsv(*colour.tolist())
    away = {name: abs((hue * 360 - middle + 180) % 360 - 180) for name, middle in HUES.items()}
    nearest = min(away, key=lambda name: away[name])
    fits = away[nearest] <= _HUE_SLACK and saturation >= _PURE and value >= _LIGHT
    return nearest if fits else None


def _telling(apart: Colour, around: Float[np.ndarray, "n 3"]) -> Colour:
    """The direction in colour that tells an object best from the ground around it: Fisher's linear discriminant.

    Shadows, stripes and checks vary the ground mostly along the greys; that direction then counts for little.
    """
    spread = np.cov(around.T) + _GRAIN**2 * np.eye(3)
    direction = np.linalg.solve(spread, apart)
    return (direction / np.linalg.norm(direction)).astype(np.float32)


def _coverage(patch: _Patch, core: Mask, *, direction: Colour, ground: Colour) -> Plane:
    """How much of each pixel the object covers: 0 like the ground, 1 like the core, whose light may slope."""
    x, y = grid(*patch.inside.shape)
    along = (patch.colours - ground) @ direction
    terms = np.stack([np.ones_like(x), x - x.mean(), y - y.mean()])
    inner, seen = terms[:, core], along[core]
    plane = np.linalg.solve(inner @ inner.T + 1e-3 * np.eye(3), inner @ seen).astype(np.float32)
    middle = max(float(seen.mean()), 0.05)
    full = np.tensordot(plane, terms, axes=1).clip(0.75 * middle, 1.3 * middle)
    return (along / full).clip(-0.5, 1.5)


def _whole(fit: Fit, patch: _Patch, shape: tuple[int, ...]) -> bool:
    """Is all of the object's cell in the picture?"""
    x, y = fit.x + patch.left, fit.y + patch.top
    return min(x, y, shape[1] - x, shape[0] - y) >= fit.extent / 2 - _OUTSIDE


def _box(inside: Mask, patch: _Patch, shape: tuple[int, ...]) -> tuple[Box, int]:
    """The tight box of the pixels whose middles lie within the outline, relative; and its longer side in pixels."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    left, top = int(columns[0]) + patch.left, int(rows[0]) + patch.top
    across, down = int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1
    return (left / shape[1], top / shape[0], across / shape[1], down / shape[0]), max(across, down)

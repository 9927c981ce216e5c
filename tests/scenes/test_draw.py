"""The `shapes` world keeps its promises: exact fields, readable objects, a function of (seed, index)."""

import colorsys
import functools
import re
import statistics
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.core.errors import InputError
from darkroom.scenes.draw import Scene, draw
from darkroom.scenes.vocabulary import (
    BACKGROUND_SATURATION,
    COLOURS,
    HUE_TOLERANCE,
    HUES,
    LARGE_FROM,
    OBJECT_SATURATION,
    RELATIONS,
    SHAPES,
    SMALLEST,
    SceneObject,
    map_id,
    relation,
)

THING = re.compile(rf"a (?:(small|large) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")


@functools.cache
def scenes() -> list[Scene]:
    return [draw(3, index) for index in range(300)]


def pixels(thing: SceneObject, side: int = 64) -> tuple[int, int, int, int]:
    """x, y, width, height in whole pixels."""
    values = [value * side for value in thing.box]
    assert all(abs(value - round(value)) < 1e-6 for value in values)
    x, y, width, height = (round(value) for value in values)
    return x, y, width, height


def inside(scene: Scene, thing: SceneObject) -> np.ndarray:
    """Pixels of the map that belong to this object."""
    x, y, width, height = pixels(thing, scene.map.shape[0])
    mask = np.zeros(scene.map.shape, bool)
    mask[y : y + height, x : x + width] = True
    return mask & (scene.map == map_id(thing.shape))


def hsv(colours: np.ndarray) -> np.ndarray:
    return np.array([colorsys.rgb_to_hsv(*(colour / 255)) for colour in colours])


def test_scenes_are_a_function_of_seed_and_index():
    first, again, other = draw(7, 5), draw(7, 5), draw(7, 6)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.map, again.map)
    assert (first.caption, first.objects) == (again.caption, again.objects)
    assert not np.array_equal(first.image, other.image)
    assert not np.array_equal(first.image, draw(8, 5).image)


def test_objects_do_not_overlap_and_are_large_enough():
    for scene in scenes():
        assert 1 <= len(scene.objects) <= 3
        boxes = [pixels(thing) for thing in scene.objects]
        for x, y, width, height in boxes:
            assert min(width, height) >= SMALLEST
            assert x >= 1
            assert y >= 1
            assert x + width <= 63
            assert y + height <= 63
        for one, two in combinations(boxes, 2):
            gap_x = max(one[0], two[0]) - min(one[0] + one[2], two[0] + two[2])
            gap_y = max(one[1], two[1]) - min(one[1] + one[3], two[1] + two[3])
            assert max(gap_x, gap_y) >= 1


def test_sizes_can_be_told_apart():
    for scene in scenes():
        for thing in scene.objects:
            longest = max(pixels(thing)[2:])
            assert (thing.size == "large") == (longest > LARGE_FROM)
            assert abs(longest - LARGE_FROM) > 1.4


def test_map_and_boxes_agree():
    for scene in scenes():
        covered = np.zeros(scene.map.shape, bool)
        for thing in scene.objects:
            mask = inside(scene, thing)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            tight = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
            assert tight == pixels(thing)
            covered |= mask
        assert np.array_equal(covered, scene.map > 0)


def test_colours_of_objects_and_backgrounds():
    for scene in scenes()[:120]:
        for thing in scene.objects:
            hue, saturation, value = np.median(hsv(scene.image[core(inside(scene, thing))]), axis=0)
            if thing.colour == "red":
                hues = hsv(scene.image[core(inside(scene, thing))])[:, 0]
                hue = np.median((hues + 0.5) % 1) - 0.5
            assert abs(hue * 360 - HUES[thing.colour]) <= HUE_TOLERANCE
            assert saturation >= OBJECT_SATURATION
            assert value >= 0.45
        ground = ~grown(grown(grown(scene.map > 0)))  # antialiased tips reach out
        sample = scene.image[ground][::7]
        assert hsv(sample)[:, 1].max() <= BACKGROUND_SATURATION


def grown(mask: np.ndarray) -> np.ndarray:
    """One pixel larger in four directions."""
    wide = np.pad(mask, 1)
    return wide[1:-1, 1:-1] | wide[2:, 1:-1] | wide[:-2, 1:-1] | wide[1:-1, 2:] | wide[1:-1, :-2]


def core(mask: np.ndarray) -> np.ndarray:
    """Without the antialiased rim."""
    return ~grown(~mask)


def test_captions_say_what_is_there():
    counts = set()
    for scene in scenes():
        words = THING.findall(scene.caption)
        relations = re.findall("|".join(RELATIONS), scene.caption)
        assert len(words) == len(scene.objects) == len(relations) + 1
        counts.add(len(words))
        for (size, colour, shape), thing in zip(words, scene.objects, strict=True):
            assert (colour, shape) == (thing.colour, thing.shape)
            assert size in ("", thing.size)
        for said, first, second in zip(relations, scene.objects, scene.objects[1:], strict=False):
            ax, ay, aw, ah = pixels(first)
            bx, by, bw, bh = pixels(second)
            holds = {
                "left of": ax + aw <= bx,
                "right of": bx + bw <= ax,
                "above": ay + ah <= by,
                "below": by + bh <= ay,
            }
            assert holds[said], scene.caption
            assert relation(first.box, second.box) == said
    assert counts == {1, 2, 3}


def test_the_world_is_varied():
    things = [thing for scene in scenes() for thing in scene.objects]
    for options, seen in ((SHAPES, "shape"), (COLOURS, "colour")):
        counts = [sum(getattr(thing, seen) == option for thing in things) for option in options]
        assert min(counts) > 0.5 * statistics.mean(counts)
    assert len({scene.caption for scene in scenes()}) > 250


def test_single_scenes_are_class_data():
    single = [draw(0, index, kind="single") for index in range(100)]
    assert all(len(scene.objects) == 1 and scene.label == scene.objects[0].shape for scene in single)
    assert {scene.label for scene in single} == set(SHAPES)
    assert draw(0, 0).label is None


def test_larger_canvases_hold_more_objects_of_the_same_size():
    for index in range(12):
        scene = draw(1, index, size=128)
        assert scene.image.shape == (128, 128, 3)
        assert 4 <= len(scene.objects) <= 12
        assert all(SMALLEST <= min(pixels(thing, 128)[2:]) <= 30 for thing in scene.objects)
        assert len(THING.findall(scene.caption)) == 3
    assert draw(1, 0, size=(96, 160)).map.shape == (96, 160)


@given(seed=st.integers(0, 2**40), index=st.integers(0, 2**40), side=st.sampled_from([32, 40, 64, 100]))
@settings(max_examples=60, deadline=None)
def test_any_seed_draws(seed: int, index: int, side: int):
    scene = draw(seed, index, size=side)
    assert scene.image.shape == (side, side, 3)
    assert scene.objects


def test_a_canvas_too_small_is_refused():
    with pytest.raises(InputError, match="at least 32 x 32"):
        draw(0, 0, size=24)

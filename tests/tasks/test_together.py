"""Requests that share a batch: which may, and that the company changes nothing but rounding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from darkroom.tasks.generate import Member, draw
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request, given
from darkroom.tasks.settle import settle
from darkroom.tasks.together import alike

Small = Callable[[str], Model]
ROUNDING = 2  # levels of 255
OURS = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def asked(model: Model, **fields: Any) -> Request:
    return settle(model, Request(**given(fields)))


def alone(model: Model, request: Request) -> list[Image.Image]:
    members = [Member(request, wish) for wish in request.wishes()]
    return [each.picture for each in draw(model, members, watch=lambda _: None)]


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8))


def hole(at: int) -> Image.Image:
    levels = np.zeros((16, 16), np.uint8)
    levels[at : at + 6, 4:12] = 255
    return Image.fromarray(levels)


PAIRS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "seeds": ("plain", {"seed": 3}, {"seed": 4, "first": 7}),
    "noise in every step": ("plain", {"seed": 3, "eta": 1.0}, {"seed": 4, "eta": 1.0}),
    "prompts": ("text", {"prompt": "a red circle"}, {"prompt": "a blue square", "negative": "a star", "seed": 9}),
    "labels": ("class", {"label": 1}, {"label": "star", "seed": 2}),
    "two seeds": ("plain", {"seed": 1, "to_seed": 2, "at": 0.3}, {"seed": 5, "to_seed": 6, "at": 0.9}),
    "two ends": ("text", {"prompt": "a", "to": "a star", "at": 0.5}, {"prompt": "b", "to": "a circle", "at": 0.2}),
    "holes": ("inpaint", {"image": noise(1), "mask": hole(2)}, {"image": noise(2), "mask": hole(8), "seed": 4}),
    "variations": ("plain", {"image": noise(1)}, {"image": noise(2), "seed": 4}),
    "guide": ("plain", {"guide": noise(1)}, {"guide": noise(2), "seed": 4}),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_picture_does_not_depend_on_its_company(small: Small, case: str) -> None:
    name, *both = PAIRS[case]
    model = small(name)
    one, other = (asked(model, **fields) for fields in both)
    assert alike(one) == alike(other)
    mixed = [Member(other, other.wishes()[0]), Member(one, one.wishes()[0])]
    drawn = [each.picture for each in draw(model, mixed, watch=lambda _: None)]
    for picture, request in zip(drawn, (other, one), strict=True):
        (expected,) = alone(model, request)
        assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= ROUNDING
    assert drawn[0].tobytes() != drawn[1].tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 4},
        {"solver": "euler"},
        {"size": (16, 24)},
        {"guidance": 5.0},
        {"eta": 0.5},
        {"to": "a star", "at": 0.5},
        {"to_seed": 2, "at": 0.5},
        {"image": noise(1)},
        {"guide": noise(1)},
        {"times": "trailing"},
    ],
)
def test_what_a_batch_shares_must_be_equal(small: Small, change: dict[str, Any]) -> None:
    model = small("text")
    assert alike(asked(model, prompt="a")) != alike(asked(model, prompt="a", **change))


def test_a_walk_ends_by_what_its_watcher_raises(small: Small) -> None:
    model, seen = small("plain"), []

    def watch(step: Any) -> None:
        seen.append(step.index)
        if step.index == 1:
            raise KeyError

    with pytest.raises(KeyError):
        draw(model, [Member(request := asked(model, steps=5), request.wishes()[0])], watch=watch)
    assert seen == [0, 1]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_pictures_say_that_they_were_generated(small: Small, tmp_path: Path, ending: str) -> None:
    (drawn,) = small("plain").sample()
    (painted,) = small("inpaint").sample(image=noise(1), mask=hole(4))
    for picture, kind in ((drawn, "trainedAlgorithmicMedia"), (painted, "compositeWithTrainedAlgorithmicMedia")):
        picture.save(tmp_path / f"a.{ending}")
        with Image.open(tmp_path / f"a.{ending}") as opened:
            root = ElementTree.fromstring(opened.info["xmp"])
        (described,) = (each for each in root.iter() if each.tag.endswith("}Description"))
        assert described.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType") == OURS + kind

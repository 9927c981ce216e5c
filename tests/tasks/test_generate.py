"""From a request to pictures: what repeats, what comes in which order, what is refused in one sentence."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.core.compute import Compute
from darkroom.core.errors import InputError, SpecError
from darkroom.diffusion.model import LatentDiffusion
from darkroom.process.objective import NoisiestTimeSpec, ObjectiveSpec
from darkroom.process.schedule import LinearSpec
from darkroom.tasks.generate import generate
from darkroom.tasks.input_picture import input_picture
from darkroom.tasks.model import Model
from darkroom.tasks.note import Note, again
from darkroom.tasks.request import Request
from darkroom.tasks.settle import hardly_meant, settle

Small = Callable[[str], Model]


def levels(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture, dtype=np.int16) for picture in pictures])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain", {"solver": "ddpm", "steps": 3}),
        ("plain", {"eta": 1.0, "steps": 3}),
        ("pixels", {"solver": "heun", "steps": 2}),
        ("text", {"prompt": "a red circle", "solver": "dpm++2m"}),
        ("plain", {"solver": "dpm++2m", "eta": 1.0, "steps": 3}),
        ("class", {"label": "star", "guidance": 3.0}),
        ("both", {"prompt": "a red circle", "label": 1}),
    ],
)
def test_a_seed_gives_the_same_pictures_in_any_batch(small: Small, name: str, options: dict[str, Any]) -> None:
    model = small(name)
    first, again, split, alone = (
        levels(model.sample(count=3, seed=3, batch=batch, **options)) for batch in (3, 3, 2, 1)
    )
    assert (first == again).all()
    assert abs(first - split).max() <= 1
    assert abs(first - alone).max() <= 1
    assert abs(first - levels(model.sample(count=3, seed=4, **options))).max() > 1
    assert len({picture.tobytes() for picture in first}) == 3


def test_a_model_may_have_an_eta_of_its_own(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("plain")
    monkeypatch.setitem(model.card, "sample", {"solver": "dpm++2m", "eta": 0.5, "steps": 3})
    assert settle(model, Request()).eta == 0.5
    assert settle(model, Request(solver="dpmpp-2m")) == settle(model, Request())
    assert settle(model, Request(eta=0.0)).eta == 0
    assert settle(model, Request(solver="heun")).eta == 0
    (made,) = generate(model, Request(seed=1, steps=2))
    picture = input_picture(made.picture)
    assert settle(model, Request(images=(picture,))).eta == 0.5
    assert settle(model, Request(images=(picture,), inverted=True)).eta == 0
    assert settle(model, again(Note(**made.recipe), {"images": (picture,), "inverted": True})).eta == 0
    with pytest.raises(InputError, match="walked back to without noise, and ddpm with eta 0 adds some"):
        settle(model, Request(images=(picture,), inverted=True, solver="ddpm"))
    drawn, plain = model.sample(seed=1)[0], model.sample(seed=1, eta=0)[0]
    assert drawn.tobytes() != plain.tobytes()
    assert json.loads(drawn.info["darkroom"])["eta"] == 0.5
    assert model.sample(like=drawn)[0].tobytes() == drawn.tobytes()


def test_first_says_where_in_the_seed_to_begin(small: Small) -> None:
    model = small("plain")
    whole = [each.picture for each in generate(model, Request(count=4, seed=1), batch=1)]
    later = list(generate(model, Request(count=2, seed=1, first=2), batch=1))
    assert [each.index for each in later] == [2, 3]
    assert (levels([each.picture for each in later]) == levels(whole[2:])).all()


@pytest.mark.parametrize(
    ("name", "options", "key", "expected"),
    [
        ("text", {"prompts": ["a", "b"]}, "prompt", ["a", "a", "a", "b", "b", "b"]),
        ("class", {"labels": ["star", 0]}, "label", ["star", "star", "star", 0, 0, 0]),
        ("both", {"prompts": ["a", "b"], "labels": [2, 1]}, "label", [2, 2, 2, 1, 1, 1]),
        ("plain", {}, "prompt", [None] * 3),
    ],
)
def test_count_pictures_of_each(
    small: Small, *, name: str, options: dict[str, Any], key: str, expected: list[object]
) -> None:
    made = list(generate(small(name), Request.of(others={"count": 3, **options}), batch=2))
    assert [each.recipe[key] for each in made] == expected
    assert [each.index for each in made] == list(range(len(expected)))


def test_a_label_by_name_or_number_is_the_same(small: Small) -> None:
    model = small("class")
    named, numbered, written, other = (levels(model.sample(label=each)) for each in ("square", 1, "1", "circle"))
    assert (named == numbered).all()
    assert (named == written).all()
    assert (named != other).any()


def test_the_prompt_the_negative_and_guidance_have_an_effect(small: Small) -> None:
    model = small("text")
    plain = levels(model.sample("a red circle"))
    others = (
        model.sample("a blue square"),
        model.sample("a red circle", guidance=1.0),
        model.sample("a red circle", guidance=6.0),
        model.sample("a red circle", negative="a green star"),
        model.sample("a red circle", guidance_rescale=0.9),
        model.sample("a red circle", guidance_interval=(0.0, 0.5)),
        model.sample("a red circle", solver="unipc"),
        model.sample("a red circle", steps=7),
        model.sample("a red circle", times="original", steps=4),
    )
    assert all((plain != levels(each)).any() for each in others)
    assert (plain == levels(model.sample("a red circle", negative=""))).all()  # what null says
    assert (plain == levels(model.sample("a red circle", guidance=2.0, steps=3, solver="ddim"))).all()  # the card's


def test_each_prompt_may_have_its_negative(small: Small) -> None:
    model = small("text")
    found = levels(model.sample(["a star"] * 3, negative=["", "a circle", "a red square"]))
    for place, negative in enumerate((None, "a circle", "a red square")):
        (alone,) = levels(model.sample("a star", negative=negative, first=place))
        assert abs(found[place] - alone).max() <= 1
        if negative is not None:
            assert (alone != levels(model.sample("a star", first=place))).any()


def test_an_interval_without_an_upper_bound(small: Small) -> None:
    model = small("text")
    open_ended, infinite, everywhere = (
        levels(model.sample("a", guidance=5, guidance_interval=interval))
        for interval in ((4, None), (4, math.inf), (0, None))
    )
    assert (open_ended == infinite).all()
    assert (open_ended != everywhere).any()
    assert (everywhere == levels(model.sample("a", guidance=5))).all()


@pytest.mark.parametrize(("size", "expected"), [((8, 24), (24, 8)), (32, (32, 32)), (None, (16, 16))])
def test_other_sizes_work(small: Small, size: Any, expected: tuple[int, int]) -> None:
    (picture,) = small("plain").sample(size=size)
    assert picture.size == expected


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown label": ("class", {"label": "sqare"}, r"unknown label 'sqare' \(did you mean 'square'\?\)"),
    "label too high": ("class", {"label": 3}, r"label '3' is out of range; this model has 3, 0\.\.2"),
    "negative label": ("class", {"label": "-1"}, r"label '-1' is out of range"),
    "odd label": ("class", {"label": "--1"}, "unknown label '--1'"),
    "odd digit": ("class", {"label": "²"}, "unknown label '²'"),
    "prompt for classes": ("class", {"prompt": "a"}, "class takes no prompt; it is steered by a label"),
    "prompt for nothing": ("plain", {"prompt": "a"}, "plain takes no prompt; it is unconditional"),
    "label for text": ("text", {"prompt": "a", "label": 1}, "text takes no label; it is steered by a prompt"),
    "no prompt": ("text", {}, "text needs a prompt"),
    "no label": ("class", {}, r"class needs a label; give one \(--label\), such as circle, square, star"),
    "unequal": ("both", {"prompt": ["a", "b"], "label": [1, 2, 0]}, "2 prompts, 3 labels came; give one for all or"),
    "nothing at once": ("plain", {"batch": 0}, "batch 0 does not fit"),
    "less than nothing at once": ("plain", {"batch": -1}, "batch -1 does not fit"),
    "no end of a size": ("plain", {"size": (0, 10**400)}, "size 0x1000.* does not fit"),
    "a map": ("map", {}, "map needs a semantic map"),
    "odd size": ("plain", {"size": (18, 30)}, "size 18x30 .* multiples of 4, the nearest that fits is 16x32"),
    "no size": ("plain", {"size": (0, 16)}, "size 0x16 does not fit"),
    "negative size": ("plain", {"size": -4}, "size -4x-4 does not fit"),
    "guidance": ("unguided", {"label": 1, "guidance": 2.0}, "guidance 2 does not fit: training dropped no condition"),
    "negative alone": ("text", {"prompt": "a", "negative": "b", "guidance": 1.0}, "works through guidance"),
    "negative of class": ("class", {"label": 1, "negative": "b"}, "takes no negative prompt"),
    "two negatives": ("text", {"prompt": ["a"] * 3, "negative": ["b", "c"]}, "2 negative prompts came for 3; give one"),
    "rescale alone": ("class", {"label": 1, "guidance": 1, "guidance_rescale": 0.5}, "guidance_rescale works through"),
    "interval alone": ("unguided", {"label": 1, "guidance_interval": (0, 1)}, "guidance_interval works through"),
    "interval": ("class", {"label": 1, "guidance_interval": (2, 1)}, "guidance_interval 2 to 1 does not fit"),
    "low interval": (
        "class",
        {"label": 1, "guidance_interval": (-1, None)},
        "guidance_interval -1 to any does not fit",
    ),
    "odd interval": (
        "class",
        {"label": 1, "guidance_interval": (math.nan, 1)},
        "'guidance_interval.0': input should be a finite number",
    ),
    "no guidance": ("class", {"label": 1, "guidance": math.nan}, "'guidance': input should be a finite number"),
    "no weight": ("plain", {"guide_weight": math.nan}, "'guide_weight': input should be"),
    "no text": ("text", {"prompt": "\udcff"}, "'prompts.0': this is no UTF-8 text"),
    "too large": (
        "plain",
        {"size": 2**40},
        "is too large for a model of .* to draw as a whole; say another --size, or --window",
    ),
    "negative of both": ("both", {"prompt": "a", "label": 1, "negative": "b"}, "steered by a prompt alone"),
    "solver": ("plain", {"solver": "eular"}, r"unknown solver 'eular' \(did you mean 'euler'\?\)"),
    "steps": ("pixels", {"steps": 21}, "more steps than times: 21 steps asked for, the schedule has 20 times"),
    "times": ("plain", {"times": "orignal"}, r"unknown times 'orignal' \(did you mean 'original'\?\)"),
    "much eta": ("plain", {"eta": 1.5}, "eta=1.5 adds more noise than time"),
    "edge of nothing": (
        "plain",
        {"match": 2},
        "match is about the edge of what is painted, and about",
    ),
    "weight of nothing": ("plain", {"guide_weight": 0.5}, "guide_weight is about a guide"),
    "eta": ("plain", {"solver": "heun", "eta": 0.5}, r"'ddim' and 'dpm\+\+2m' take an eta"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_sentence(small: Small, case: str) -> None:
    name, options, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        small(name).sample(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"solver": "eular"}, {"times": "orignal"}, {"steps": 2000}, {"solver": "heun", "eta": 1.0}, {"eta": 1.5}],
)
def test_it_is_refused_before_any_work(small: Small, options: dict[str, Any]) -> None:
    """Not when the first picture is asked for."""
    with pytest.raises(InputError):
        generate(small("plain"), Request(**options))


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"seed": -1}, {"steps": 0}, {"eta": -0.1}, {"guidance_rescale": 2.0}, {"batches": 3}]
)
def test_requests_are_parsed_at_the_door(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"request: .*{next(iter(options))}"):
        Request.of(others=options)


def test_a_label_is_one_for_all_prompts(small: Small) -> None:
    asked = {"seed": 1, "batch": 1}
    one, each = (small("both").sample(["a star", "a circle"], label=label, **asked) for label in (2, [2, 2]))
    assert [picture.tobytes() for picture in one] == [picture.tobytes() for picture in each]


@pytest.mark.parametrize(
    ("change", "steps"),
    [({}, 20), ({"schedule": LinearSpec()}, 50), ({"objective": ObjectiveSpec(times=NoisiestTimeSpec())}, 1)],
)
def test_a_model_that_says_no_steps_takes_no_more_than_it_can(small: Small, change: dict[str, Any], steps: int) -> None:
    spec = small("pixels").spec.model_copy(update=change)
    model = Model(LatentDiffusion(spec), compute=Compute(torch.device("cpu")))
    settled = settle(model, Request())
    assert (settled.steps, hardly_meant(model, settled)) == (steps, [])
    said = hardly_meant(model, settle(model, Request(steps=2)))
    assert ["is a regression, which answers in one step" in each for each in said] == [True] * spec.regresses


def test_every_step_is_told(small: Small) -> None:
    told: list[tuple[int, int]] = []
    small("plain").sample(count=5, steps=4, batch=2, on_step=lambda *each: told.append(each))
    assert told == [(done, 12) for done in range(1, 13)]


def test_a_guided_model_without_a_wish_follows_its_card(small: Small) -> None:
    (made,) = generate(small("class"), Request(labels=(1,)))
    assert made.recipe["guidance"] == 2.0
    (free,) = generate(small("unguided"), Request(labels=(1,)))
    assert free.recipe["guidance"] == 1.0


def test_a_picture_says_how_it_was_made(small: Small) -> None:
    model = small("both")
    request = Request.of(prompt=["a", "é"], label=["star", 1], size=(16, 8), others={"seed": 5, "eta": 0.5})
    made = list(generate(model, request))
    assert set(made[1].metadata) == {"darkroom", "XML:com.adobe.xmp"}
    told = json.loads(made[1].metadata["darkroom"])
    assert Path(told.pop("model")).stem == "both"
    assert told == {
        "spec_hash": model.card["spec_hash"],
        "prompt": "é",
        "label": 1,
        "negative": None,
        "seed": 5,
        "size": [16, 8],
        "solver": "ddim",
        "steps": 3,
        "eta": 0.5,
        "guidance": 2.0,
        "guidance_interval": None,
        "guidance_rescale": 0.0,
        "times": None,
        "index": 1,
    }
    again = list(generate(model, request))
    assert [each.metadata for each in again] == [each.metadata for each in made]


def test_when_memory_does_not_suffice_it_is_one_sentence(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Model, "decode", without)
    with pytest.raises(
        InputError, match="2 pictures of 16x16 at once need more memory than there is; ask for a smaller"
    ):
        small("plain").sample(count=2, steps=2)


def test_what_is_no_number_is_no_picture(small: Small) -> None:
    """It would be saved black, and looked like somebody's wish."""
    model = small("class")
    with pytest.raises(InputError, match="numbers that are not finite"):
        model.sample(label=1, guidance=1e38, steps=2)

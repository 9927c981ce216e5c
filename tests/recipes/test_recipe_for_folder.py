"""A folder gets the recipe that its pictures and fields ask for."""

from typing import Any

import pytest

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.conditioning.boxes import BoxesSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec
from darkroom.conditioning.text import TextSpec
from darkroom.core.errors import DataError, InputError, SpecError
from darkroom.data.degrade import BicubicSpec
from darkroom.process.objective import ShiftedTimesSpec
from darkroom.recipes.describe import count
from darkroom.recipes.folder import recipe_for_folder


def told(*fields: str, pictures: int = 3323, side: int = 64, classes: int = 0) -> dict[str, Any]:
    """What `darkroom.data.summary` says of a folder."""
    extent = {"min": side, "median": side, "max": side}
    summary: dict[str, Any] = {"count": pictures, "fields": list(fields), "width": extent, "height": extent}
    if classes:
        summary["classes"] = {f"class {number}": 5 for number in range(classes)}
    return summary


def test_captions_make_a_text_model_that_is_never_flipped() -> None:
    made = recipe_for_folder(told("caption", "label", classes=3), place="data/emoji")
    assert made.denoiser is not None
    (conditioner,) = made.denoiser.conditioners
    assert isinstance(conditioner, TextSpec)
    assert conditioner.drop > 0
    assert not made.data.flip
    assert made.denoiser.sample.guidance > 1
    assert (made.name, made.data.source, made.data.size) == ("emoji", "data/emoji", 64)


def test_labels_make_a_class_model() -> None:
    made = recipe_for_folder(told("label", classes=10), place="digits")
    assert made.denoiser is not None
    (conditioner,) = made.denoiser.conditioners
    assert isinstance(conditioner, ClassSpec)
    assert (conditioner.classes, conditioner.null) == (10, 10)
    assert not made.data.flip


def test_captions_that_say_no_more_than_labels_make_a_class_model() -> None:
    found = told("caption", "label", classes=3) | {"captioned": 3323, "captions": 3}
    kinds = (ClassSpec, TextSpec)
    for most, kind in zip((1, 2), kinds, strict=True):
        made = recipe_for_folder(found | {"captions_of_a_class": most}, place="digits")
        assert made.denoiser is not None
        assert isinstance(made.denoiser.conditioners[0], kind)


SAME = told("caption") | {"captioned": 3323, "captions": 1}


@pytest.mark.parametrize("summary", [told(), told("label", classes=1), told("objects"), SAME])
def test_without_words_it_is_unconditional(summary: dict[str, Any]) -> None:
    made = recipe_for_folder(summary, place="pictures")
    assert made.denoiser is not None
    assert made.denoiser.conditioners == ()
    assert made.denoiser.sample.guidance == 1
    assert made.data.flip


BOXES = {"categories": ["cell", "dot"], "objects": {"min": 0, "median": 6, "max": 17}}


def test_maps_and_boxes_steer_where_there_are_no_words() -> None:
    both = recipe_for_folder(told("objects", "map") | BOXES | {"map_classes": ["ground", "cell"]}, place="pictures")
    assert both.denoiser is not None
    (conditioner,) = both.denoiser.conditioners
    assert isinstance(conditioner, MapSpec)
    assert (conditioner.classes, conditioner.patch) == (2, 4)
    assert both.denoiser.network.in_channels == 4 + conditioner.channels
    boxes = recipe_for_folder(told("objects") | BOXES, place="pictures")
    assert boxes.denoiser is not None
    (conditioner,) = boxes.denoiser.conditioners
    assert isinstance(conditioner, BoxesSpec)
    assert conditioner.categories == 2
    assert boxes.denoiser.network.in_channels == 4 + conditioner.channels
    assert boxes.denoiser.network.context_width is None
    assert both.data.flip
    assert boxes.data.flip


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("unconditional", []),
        ("super-resolution", ["low_res"]),
        ("inpainting", ["masked"]),
        ("text+layout", ["caption", "objects"]),
        ("class+super-resolution", ["label", "low_res"]),
    ],
)
def test_a_task_can_be_asked_for(task: str, fields: list[str]) -> None:
    summary = told("caption", "label", "objects", classes=3) | BOXES
    made = recipe_for_folder(summary, place="pictures", task=task)
    assert made.denoiser is not None
    assert [each.field for each in made.denoiser.conditioners] == fields


@pytest.mark.parametrize(("small", "patch", "enlarge", "planes"), [(2, 2, 1, 12), (4, 1, 1, 3), (8, 1, 2, 3)])
def test_small_pictures_lie_beside_the_latents(small: int, patch: int, enlarge: int, planes: int) -> None:
    degradation = BicubicSpec(factor=small)
    made = recipe_for_folder(told(), place="pictures", task="super-resolution", degradation=degradation)
    assert made.denoiser is not None
    (low_res,) = made.denoiser.conditioners
    assert isinstance(low_res, LowResSpec)
    assert (low_res.patch, low_res.enlarge, low_res.channels) == (patch, enlarge, planes)
    assert isinstance(made.first_stage.model, AutoencoderSpec)
    assert made.first_stage.model.latent_channels == made.denoiser.network.out_channels == low_res.guesses == 12
    assert made.denoiser.network.in_channels == 12 + planes
    assert made.denoiser.spread is not None
    with pytest.raises(SpecError, match="must be a multiple or a part of 4"):
        recipe_for_folder(told(), place="pictures", task="super-resolution", degradation=BicubicSpec(factor=3))


@pytest.mark.parametrize(
    ("task", "size", "attention", "turn"),
    [
        ("super-resolution", 128, (), True),
        ("inpainting", 64, (2,), True),
        ("inpainting", 128, (4,), True),
        ("super-resolution+inpainting", 128, (4,), True),
        ("text+inpainting", 128, (2,), False),
        ("semantic", 128, (2,), False),
    ],
)
def test_what_is_given_of_the_picture_is_guessed_from(
    task: str, size: int, attention: tuple[int, ...], turn: bool
) -> None:
    """One condition guesses; then, and for large latents, there are more steps of fewer pictures."""
    summary = told("caption", "map")
    made = recipe_for_folder(summary, place="pictures", task=task, size=size)
    assert made.denoiser is not None
    assert made.denoiser.train is not None
    assert made.denoiser.network.attention == attention
    assert (made.data.turn, made.data.flip) == (turn, "text" not in task)
    spec = made.model_spec()
    assert spec is not None
    guesses = [bool(getattr(each, "guesses", False)) for each in made.denoiser.conditioners]
    assert sum(guesses) == spec.guesses == (task != "semantic")
    plain = recipe_for_folder(summary, place="pictures", task=task, size=size, guess=False)
    assert plain.denoiser is not None
    assert plain.denoiser.train is not None
    assert isinstance(plain.denoiser.objective.times, ShiftedTimesSpec)
    assert plain.denoiser.network.attention == (2,)
    assert made.denoiser.train.batch == (16 if spec.guesses or size > 64 else 32)
    assert plain.denoiser.train.batch == (16 if size > 64 else 32)
    steps = {each.batch * each.steps for each in (made.denoiser.train, plain.denoiser.train)}
    assert len(steps) == 1
    assert isinstance(made.denoiser.objective.times, ShiftedTimesSpec) == (task == "semantic")


@pytest.mark.parametrize(
    ("task", "steps", "eta", "match"),
    [("inpainting", 8, 1.0, 2), ("super-resolution", 8, 0.0, 0), ("semantic", 25, 0.0, 0), ("text", 25, 0.0, 0)],
)
def test_how_it_is_sampled(task: str, steps: int, eta: float, match: int) -> None:
    made = recipe_for_folder(told("caption", "map"), place="pictures", task=task)
    assert made.denoiser is not None
    sample = made.denoiser.sample
    assert (sample.steps, sample.eta, sample.match) == (steps, eta, match)


def test_many_pictures_are_not_turned() -> None:
    few, many = (recipe_for_folder(told(pictures=n), place="pictures", task="inpainting") for n in (600, 60_000))
    assert few.data.turn
    assert not many.data.turn


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("layouts", "did you mean 'layout'"),
        ("text+text", "each task comes once"),
        ("unconditional+text", "unconditional alone"),
        ("semantic", "needs the field 'map', this data set has caption; add maps in a folder masks beside images"),
    ],
)
def test_a_task_that_does_not_fit(task: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        recipe_for_folder(told("caption"), place="pictures", task=task)


@pytest.mark.parametrize(("side", "size"), [(8, 16), (28, 16), (32, 32), (50, 48), (64, 64), (1024, 64)])
def test_the_size_follows_the_pictures_up_to_64(side: int, size: int) -> None:
    assert recipe_for_folder(told(side=side), place="pictures").data.size == size


def test_a_run_of_another_task_has_another_name() -> None:
    names = [
        recipe_for_folder(told("caption"), place="data/emoji", task=task).name for task in (None, "text+inpainting")
    ]
    assert names == ["emoji", "emoji-text-inpainting"]


def test_a_size_can_be_asked_for() -> None:
    assert recipe_for_folder(told(), place="pictures", size=128).data.size == 128
    with pytest.raises(SpecError, match=r"multiple of 16, e\.g\. 96"):
        recipe_for_folder(told(), place="pictures", size=100)


def test_it_is_a_small_model() -> None:
    counted = count(recipe_for_folder(told("caption"), place="pictures"))
    assert 0.5e6 < counted["first_stage"] < 1.5e6
    assert 4e6 < counted["network"] < 6e6


def test_more_pictures_are_worth_more_steps() -> None:
    def steps(pictures: int) -> tuple[int, int]:
        made = recipe_for_folder(told(pictures=pictures), place="pictures")
        assert made.denoiser is not None
        assert made.denoiser.train is not None
        assert made.first_stage.train is not None
        return made.first_stage.train.steps, made.denoiser.train.steps

    assert steps(10) < steps(3000) < steps(10_000) == steps(10**6)


def test_an_empty_folder_is_refused() -> None:
    with pytest.raises(DataError, match="no pictures"):
        recipe_for_folder(told(pictures=0), place="pictures")

"""A plan says why it is so, and what there is too little of."""

from typing import Any

import pytest

from darkroom.recipes.advice import doubts, reasons
from darkroom.recipes.folder import recipe_for_folder
from darkroom.recipes.schema import Recipe, StartSpec


def told(
    *fields: str, pictures: int = 3000, side: int = 128, least: int | None = None, **classes: int
) -> dict[str, Any]:
    extent = {"min": least or side, "median": side, "max": side}
    summary: dict[str, Any] = {"count": pictures, "fields": list(fields), "width": extent, "height": extent}
    return summary | ({"classes": classes} if classes else {})


def made(found: dict[str, Any]) -> Recipe:
    return recipe_for_folder(found, place="pictures")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (told("caption"), "steered by text, for captions stand beside the pictures"),
        (told("label", cat=1500, dog=1500), "steered by class, for the pictures have 2 classes"),
        (
            told("label", "caption", cat=1500, dog=1500) | {"captions": 2, "captions_of_a_class": 1},
            "the pictures have 2 classes, and their captions say no more than that",
        ),
        (told(), "an unconditional model, for the pictures stand alone"),
        (told("caption") | {"captions": 1}, "an unconditional model, for all captions are the same"),
    ],
)
def test_the_task_follows_from_what_is_known_of_the_pictures(found: dict[str, Any], words: str) -> None:
    assert words in reasons(made(found), found)[0]


def test_the_size_and_the_latents_are_explained() -> None:
    found = told(side=128, least=40)
    _, size, latents = reasons(made(found), found)
    assert (
        size == "64 px a side; the pictures have about 128 pixels a side; smaller ones are enlarged, which blurs them"
    )
    assert "16 x 16 x 4 numbers of each, 12 times fewer" in latents
    assert "smaller" not in reasons(made(told()), told())[1]


def test_a_few_captions_make_no_text_model_and_missing_ones_are_said() -> None:
    few, most = (told("caption", pictures=5000) | {"captioned": count} for count in (40, 4000))
    alike = few | {"captions": 1}
    assert "for only 40 of 5000 pictures have a caption" in reasons(made(alike), alike)[0]
    assert "unconditional model, for only 40 of 5000 pictures have a caption" in reasons(made(few), few)[0]
    assert "1000 of 5000 pictures have no caption" in " | ".join(doubts(made(most), most, test=200))


def test_maps_in_black_and_white_are_said() -> None:
    white, named = (told("map") | {"map_classes": [f"{number}" for number in range(count)]} for count in (256, 3))
    assert "maps have the id 255, so there are 256 classes" in " | ".join(doubts(made(white), white, test=200))
    assert "255" not in " | ".join(doubts(made(named), named, test=200))


def test_a_large_folder_leaves_no_doubt() -> None:
    found = told(pictures=20_000)
    assert doubts(made(found), found, test=1000) == []


def test_few_pictures_few_of_a_class_few_to_measure_and_few_steps_are_said() -> None:
    found = told("label", pictures=120, cat=100, dog=12, owl=8)
    recipe = made(found)
    assert recipe.denoiser is not None
    assert recipe.denoiser.train is not None
    short = recipe.denoiser.train.model_copy(update={"steps": 1400})
    brief = recipe.model_copy(update={"denoiser": recipe.denoiser.model_copy(update={"train": short})})
    words = " | ".join(doubts(brief, found, test=6))
    assert "120 pictures are few: expect variations of them rather than new things; fine-tuning" in words
    assert "2 of 3 classes have fewer than 50 pictures: owl (8), dog (12)" in words
    assert "every picture is seen 373 times" in words
    assert "1400 steps are few" in words
    assert "6 test pictures say little" in words
    tuned = brief.model_copy(update={"start": StartSpec(name="shapes", weights="0")})
    other = " | ".join(doubts(tuned, found, test=6))
    assert "--from" not in other
    assert "steps are few" not in other

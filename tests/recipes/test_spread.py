"""Every latent channel may have a deviation of its own, and a given first stage says which."""

from typing import Any

import pytest

from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.checkpoint.store import StoredModel
from darkroom.core.errors import SpecError
from darkroom.core.spec import parse
from darkroom.recipes.given import coarse_first, with_first_stage
from darkroom.recipes.read import recipe
from darkroom.recipes.schema import Recipe


def test_the_recipe_of_the_built_in_world_says_what_its_first_stage_would() -> None:
    written = recipe("shapes-text")
    assert written.denoiser is not None
    assert isinstance(written.first_stage.model, AutoencoderSpec)
    assert written.denoiser.spread == coarse_first(written.first_stage.model)


def spread_on(**first_stage: Any) -> tuple[float, ...] | None:
    """What a recipe that asks for deviations makes of a given first stage."""
    sizes: dict[str, Any] = {"channels": 8, "multipliers": (1, 1), "blocks": 1, "norm_groups": 4}
    spec = AutoencoderSpec(**sizes | first_stage)
    given = StoredModel("first-stage", spec, Autoencoder(spec).state_dict())
    made = with_first_stage(recipe("shapes-text"), given)
    assert made.denoiser is not None
    return made.denoiser.spread


def test_on_another_first_stage_the_small_picture_still_spreads_wider_than_its_detail() -> None:
    assert spread_on(latent_channels=6, shortcut="linear") == (1, 1, 1, 0.4, 0.4, 0.4)
    assert spread_on(latent_channels=6) is None  # nobody knows what is coarse there


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"spread": [1, 2]}, "names 2 channels, latents have 4"),
        ({"spread": [1, 1, 1, 0]}, "greater than 0"),
        ({"spread": [1, 1, 1, 1], "scale": 2.0}, "keep one"),
    ],
)
def test_spreads_that_cannot_be_given_are_refused(changed: dict[str, Any], complaint: str) -> None:
    values = recipe("tiny-text").plain()
    values["denoiser"] |= changed
    with pytest.raises(SpecError, match=complaint):
        parse(Recipe, values, where="recipe")


def test_pixels_have_no_spread() -> None:
    values = recipe("tiny-text").plain()
    values["first_stage"] = {"model": {"kind": "pixels"}}
    values["denoiser"]["network"] |= {"in_channels": 3, "out_channels": 3}
    values["denoiser"]["spread"] = [1, 1, 1]
    with pytest.raises(SpecError, match="works on pixels"):
        parse(Recipe, values, where="recipe")

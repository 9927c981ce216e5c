"""What a model file says about itself: the recipe that made it, and how good it is."""

from collections.abc import Mapping
from typing import Any

from darkroom.data.masks import MasksSpec
from darkroom.data.place import called
from darkroom.recipes.length import trained
from darkroom.recipes.schema import Recipe


def card_of(recipe: Recipe, *, pictures: int, quality: Mapping[str, Any]) -> dict[str, Any]:
    """The card of what a recipe made of so many training pictures; `quality` is what was measured, by stage."""
    card: dict[str, Any] = {
        "name": recipe.name,
        "summary": recipe.summary,
        "data": {
            "source": called(recipe.data.source or ""),
            "pictures": pictures,
            "size": recipe.data.size,
            "seed": recipe.seed,
            "license": recipe.data.license,
            **_words(recipe),
            **_spoiling(recipe),
        },
        "trained": {stage: {"steps": spec.steps, "batch": spec.batch} for stage, spec in trained(recipe).items()},
        "quality": dict(quality),
    }
    if recipe.start is not None:
        card["start"] = recipe.start.plain()
    if recipe.denoiser is not None:
        if recipe.denoiser.distill is not None:
            card["distill"] = recipe.denoiser.distill.plain()
        sample = recipe.denoiser.sample
        card["sample"] = {
            "solver": sample.solver,
            "eta": sample.eta,
            "steps": sample.steps,
            "guidance": sample.guidance,
            **({"match": sample.match} if sample.match else {}),
            "prompts": list(sample.prompts),
        }
    return card


def _words(recipe: Recipe) -> dict[str, Any]:
    """The field that captions were read from, for a model that they steer."""
    steered = recipe.denoiser is not None and any(each.field == "caption" for each in recipe.denoiser.conditioners)
    return {"caption_field": recipe.data.caption_field} if steered else {}


def _spoiling(recipe: Recipe) -> dict[str, Any]:
    """How pictures were made small or given holes, for a model that completes such."""
    fields = set[str]() if recipe.denoiser is None else {each.field for each in recipe.denoiser.conditioners}
    found: dict[str, Any] = {}
    if "low_res" in fields:
        found["degradation"] = recipe.data.degradation.plain()
    if "masked" in fields and isinstance(recipe.data.masks, MasksSpec):
        found["masks"] = recipe.data.masks.plain()
    return found

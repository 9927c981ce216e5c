"""Which stages of a recipe are trained, and for how many steps."""

from pathlib import Path
from typing import Final

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.core.spec import parse
from darkroom.recipes.read import read_recipe
from darkroom.recipes.schema import Recipe
from darkroom.train.optim import TrainSpec

FEW, MANY = 2, 16  # looks at a stage
FITTED: Final = ("steps", "warmup", "sample_every", "save_every")


def trained(recipe: Recipe) -> dict[str, TrainSpec]:
    """The training specs of the stages that are trained, by stage."""
    found: dict[str, TrainSpec] = {}
    if recipe.first_stage.train is not None and isinstance(recipe.first_stage.model, AutoencoderSpec):
        found["first_stage"] = recipe.first_stage.train
    if recipe.denoiser is not None and recipe.denoiser.train is not None:
        found["denoiser"] = recipe.denoiser.train
    return found


def with_steps(recipe: Recipe, *, stage: str, steps: int) -> Recipe:
    """The recipe with another length of a stage; what happens every so many steps is made to fit into it."""
    values = recipe.plain()
    spec = values[stage]["train"]
    spec["steps"] = steps
    spec["warmup"] = min(spec["warmup"], steps // 10)
    spec["sample_every"] = min(spec["sample_every"], max(1, steps // 4))
    spec["save_every"] = min(spec["save_every"], max(1, steps // 10))
    return parse(Recipe, values, where=f"recipe {recipe.name!r}")


def stretched(recipe: Recipe, *, stage: str, steps: int) -> Recipe:
    """The recipe with another length of a stage that has begun; looks and saves move where they no longer suit it."""
    values = with_steps(recipe, stage=stage, steps=steps).plain()
    before = trained(recipe)[stage]
    looks = steps / before.sample_every
    values[stage]["train"] |= {
        "warmup": before.warmup,
        "sample_every": before.sample_every if FEW <= looks <= MANY else max(1, steps // 4),
        "save_every": max(before.save_every, steps // 40),
    }
    return parse(Recipe, values, where=f"recipe {recipe.name!r}")


def as_fitted(recipe: Recipe, before: Recipe) -> Recipe:
    """The recipe with what `with_steps` changed in another one of the same stages (of others it stays as it is)."""
    values = recipe.plain()
    others = trained(before)
    for stage in trained(recipe):
        if stage in others:
            values[stage]["train"] |= {key: getattr(others[stage], key) for key in FITTED}
    return parse(Recipe, values, where=f"recipe {recipe.name!r}")


def written(recipe: Recipe, path: Path) -> Recipe:
    """A recipe of so many minutes with the steps it was given when it was begun, if it was: they stand in `path`."""
    return recipe if recipe.minutes is None or not path.exists() else as_fitted(recipe, read_recipe(path))

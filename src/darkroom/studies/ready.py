"""What can be found wrong with a study before anything of it is written: hours of training shall not end with it."""

from typing import Final

from darkroom.core.compute import sampling_compute
from darkroom.core.errors import InputError
from darkroom.data.sources import open_data
from darkroom.diffusion.walk import check_walk
from darkroom.evaluate.conditions import check_says
from darkroom.evaluate.networks import open_networks
from darkroom.process.schedule import build_schedule
from darkroom.recipes.schema import Recipe
from darkroom.studies.cells import Against, Pace, Quality, Sampling, Study, Training
from darkroom.studies.measure import real_pictures
from darkroom.tasks.load import outline

FEWEST: Final = 2  # pictures of a set


def check_ready(study: Study, *, device: str) -> None:
    """`InputError` in one sentence for what no cell could be finished with.

    Networks that sets are seen through are opened (and fetched, as `open_network` does), every number of steps must fit
    a model's times, pictures to compare with are counted and must say what steers a model that exists.
    """
    compute = sampling_compute(device)
    drawn = [cell for cell in study.cells if isinstance(cell, Quality)]
    if drawn:
        open_networks(study.features, compute)
    recipes = {cell.name: cell.recipe for cell in study.cells if isinstance(cell, Training)}
    for cell in study.cells:
        if isinstance(cell, Quality | Pace):
            timed = cell.recipe if isinstance(cell, Pace) else None
            _check_steps(cell.sampling, timed or recipes.get(cell.model or ""), model=cell.model)
    looked = set[str]()
    for cell in drawn:
        recipe = recipes.get(cell.model)
        key = cell.model if recipe is None else f"{_steered(recipe)}"
        if key not in looked:
            looked.add(key)
            _check_pictures(cell.against, recipe, model=cell.model)


def _check_steps(sampling: Sampling, recipe: Recipe | None, *, model: str | None) -> None:
    """Other defaults than steps were checked with the recipe or with the model."""
    if sampling.steps is None:
        return
    if recipe is None:
        assert model is not None
        schedule = outline(model).schedule
    else:
        assert recipe.denoiser is not None
        schedule = build_schedule(recipe.denoiser.schedule)
    check_walk(schedule, solver=sampling.solver or "ddim", steps=sampling.steps, eta=sampling.eta or 0.0)


def _check_pictures(against: Against, recipe: Recipe | None, *, model: str) -> None:
    if recipe is None:
        known = outline(model)
        source, _ = real_pictures(known, against.data, most=against.most)
        if known.fields:
            check_says(known, source)
    else:
        splits = open_data(against.data, seed=recipe.seed, size=recipe.data.size)
        source = splits.test if _steered(recipe) else splits.train
    if len(source) < FEWEST:
        raise InputError(
            f"{source.name}: {len(source)} of its pictures are there to compare with, and a set has {FEWEST} at least; "
            "give more pictures"
        )


def _steered(recipe: Recipe) -> bool:
    """Is such a model compared with held-out pictures, by which it is asked?"""
    return recipe.denoiser is not None and bool(recipe.denoiser.conditioners)

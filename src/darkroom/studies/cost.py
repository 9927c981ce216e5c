"""What a study would take on this machine: a few steps and pictures of each kind are made, none is kept."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from darkroom.core.compute import sampling_compute
from darkroom.recipes.length import trained
from darkroom.recipes.pace import pace
from darkroom.recipes.resolve import resolve
from darkroom.recipes.run import open_recipe_data
from darkroom.recipes.schema import Recipe
from darkroom.studies.carry import DONE
from darkroom.studies.cells import Cell, Pace, Quality, Study, Training
from darkroom.studies.measure import REPEATS, asking_of, untrained
from darkroom.tasks.generate import generate
from darkroom.tasks.load import load
from darkroom.tasks.model import Model

TRIED: Final = 4  # pictures
STEPS: Final = 2
LOOKS: Final = 5  # models that are kept of a training of so many minutes, about


@final
@dataclass(frozen=True)
class Cost:
    """A cell, what it does in words, and seconds it may take; None for what was not tried. done: it is finished."""

    name: str
    what: str
    seconds: float | None
    done: bool

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"name": self.name, "what": self.what, "seconds": self.seconds, "done": self.done}


def costs(study: Study, folder: Path, *, device: str) -> list[Cost]:
    """Of every cell, in order; trainings of so many minutes are taken at their word."""
    trainings = {cell.name: cell for cell in study.cells if isinstance(cell, Training)}
    known: dict[str, float] = {}
    found: list[Cost] = []
    for cell in study.cells:
        done = (folder / "cells" / cell.name / DONE).exists()
        seconds = 0.0 if done else _seconds(cell, trainings, known, device=device)
        found.append(Cost(cell.name, _words(cell), round(seconds, 1), done))
    return found


def told(found: Sequence[Cost]) -> str:
    """A line for each cell, and the sum."""
    width = max(len(each.name) for each in found) + 2
    lines = [f"{each.name:<{width}}{_time(each):>14}  {each.what}" for each in found]
    total = sum(each.seconds or 0.0 for each in found)
    return "\n".join([*lines, f"{len(found)} cells, about {total / 60:.1f} minutes here"])


def _time(cost: Cost) -> str:
    return "done" if cost.done else f"{(cost.seconds or 0.0) / 60:.1f} minutes"


def _words(cell: Cell) -> str:
    match cell:
        case Training():
            lengths = ", ".join(f"{stage} {spec.steps} steps" for stage, spec in trained(cell.recipe).items())
            stages = " and ".join(trained(cell.recipe))
            return f"training: {lengths if cell.recipe.minutes is None else stages}"
        case Quality():
            drawn = ", ".join(
                f"{name} {value}"
                for name, value in cell.sampling.plain().items()
                if value is not None and name != "seed"
            )
            along = ", all along its training" if cell.course else ""
            return f"{cell.count} pictures of {cell.model}{along}" + (f": {drawn}" if drawn else "")
        case Pace():
            return f"pictures a second of {cell.model or cell.name}"


def _seconds(cell: Cell, trainings: Mapping[str, Training], known: dict[str, float], *, device: str) -> float:
    match cell:
        case Training(recipe=recipe):
            if recipe.minutes is not None:
                return recipe.minutes * 60
            measured = pace(_fitted(recipe), device=device)
            return sum(measured[stage] * spec.steps for stage, spec in trained(recipe).items())
        case Quality():
            data = cell.against.data
            each = _each(cell, trainings, known, data=data, device=device)
            return each * cell.count * (_looks(trainings[cell.model].recipe) if cell.course else 1)
        case Pace():
            return _each(cell, trainings, known, data=cell.data, device=device) * cell.batch * REPEATS


def _looks(recipe: Recipe) -> int:
    """At a training's denoiser."""
    spec = trained(recipe)["denoiser"]
    return LOOKS if recipe.minutes is not None else math.ceil(spec.steps / spec.sample_every)


def _each(
    cell: Quality | Pace, trainings: Mapping[str, Training], known: dict[str, float], *, data: str | None, device: str
) -> float:
    """Seconds of one picture, from those of one step of a few; solvers and guidance differ in what a step takes."""
    training = trainings.get(cell.model or "")
    recipe = cell.recipe if isinstance(cell, Pace) and cell.recipe else training.recipe if training else None
    size = cell.size if isinstance(cell, Pace) else None
    how = cell.sampling
    key = f"{cell.model} {recipe.name if recipe else ''} {size} {how.solver} {how.guidance == 1} {how.match}"
    model: Model | None = None
    if key not in known:
        model = _model(cell.model or "", recipe, device=device)
        data = data if recipe is None else recipe.data.source
        known[key] = _of_a_step(cell, model, data=data, size=size)
        known[f"{key} steps"] = float(model.default("steps", 50))
    return known[key] * (cell.sampling.steps or known[f"{key} steps"])


def _model(name: str, recipe: Recipe | None, *, device: str) -> Model:
    if recipe is None:
        return load(name, device=device)
    return untrained(_fitted(recipe), device=device, compute=sampling_compute(device))


def _fitted(recipe: Recipe) -> Recipe:
    splits = open_recipe_data(recipe.data, seed=recipe.seed)
    return resolve(recipe, splits.train, held_out=splits.test).recipe


def _of_a_step(cell: Quality | Pace, model: Model, *, data: str | None, size: int | None) -> float:
    """Seconds of a step of one picture, the first draw left out."""
    sampling = cell.sampling.model_copy(update={"steps": STEPS})
    asking = asking_of(model, sampling, data=data, most=TRIED, count=TRIED)
    request = asking.request(range(TRIED))
    if size is not None:
        request = request.model_copy(update={"size": (size, size)})
    taken = list[float]()
    for _ in range(2):
        begun = time.perf_counter()
        list(generate(model, request, batch=TRIED))
        taken.append(time.perf_counter() - begun)
    return min(taken) / (TRIED * STEPS)

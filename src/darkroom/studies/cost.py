"""What a study would take on this machine: a few steps and pictures of each kind are made, none is kept."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

from darkroom.core.compute import sampling_compute
from darkroom.recipes.describe import describe
from darkroom.recipes.length import trained
from darkroom.recipes.pace import OVERHEAD, pace
from darkroom.recipes.resolve import resolve
from darkroom.recipes.run import open_recipe_data
from darkroom.recipes.schema import Recipe
from darkroom.studies.carry import DONE, PLAN
from darkroom.studies.cells import Cell, HeldOut, Pace, Quality, Study, Training
from darkroom.studies.measure import REPEATS, asking_of, untrained
from darkroom.studies.ready import check_ready
from darkroom.tasks.generate import generate
from darkroom.tasks.load import load
from darkroom.tasks.model import Model

TRIED: Final = 4  # pictures
STEPS: Final = 2  # beyond the first
FETCHED: Final = "inception"  # a network that may not be here yet
LOOKS: Final = 4  # models of a training of so many minutes that are measured
Drawing = tuple[float, float]  # seconds of a picture in one step, decoded, and of every further step


@final
@dataclass(frozen=True)
class Cost:
    """A cell, what it does in words, and seconds it may take. done: it is finished, and nothing was tried.

    work: numbers behind the words, as JSON values: of each stage that is trained, or pictures a second of what draws.
    """

    name: str
    what: str
    seconds: float
    done: bool
    work: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        told = {"name": self.name, "what": self.what, "seconds": round(self.seconds, 1), "done": self.done}
        return told | ({"work": dict(self.work)} if self.work else {})


def costs(study: Study, folder: Path, *, device: str) -> list[Cost]:
    """Of every cell, in order; trainings of so many minutes are taken at their word.

    `InputError` for what would be refused when the study begins (`check_ready`); nothing is fetched for that.
    """
    if not (folder / PLAN).exists():
        check_ready(replace(study, features=[each for each in study.features if each != FETCHED]), device=device)
    trainings = {cell.name: cell for cell in study.cells if isinstance(cell, Training)}
    known: dict[str, Any] = {}
    found: list[Cost] = []
    for cell in study.cells:
        if (folder / "cells" / cell.name / DONE).exists():
            found.append(Cost(cell.name, _words(cell), 0.0, done=True))
        elif isinstance(cell, HeldOut):
            found.append(Cost(cell.name, _words(cell), 0.0, done=False))  # looking at so few takes seconds
        elif isinstance(cell, Training):
            found.append(_training(cell, device=device))
        else:
            found.append(_drawing(cell, trainings, known, device=device))
    return found


def told(found: Sequence[Cost]) -> str:
    """A line for each cell, and the sum."""
    width = max(len(each.name) for each in found) + 2
    lines = [f"{each.name:<{width}}{_time(each):>14}  {each.what}" for each in found]
    total = sum(each.seconds for each in found)
    return "\n".join([*lines, f"{len(found)} cells, about {total / 60:.1f} minutes here"])


def _time(cost: Cost) -> str:
    return "done" if cost.done else f"{cost.seconds / 60:.1f} minutes"


def _words(cell: Cell) -> str:
    match cell:
        case Training():
            return f"training: {' and '.join(trained(cell.recipe))}"
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
        case HeldOut():
            return f"{cell.count} real pictures that nothing was trained on"


def _training(cell: Training, *, device: str) -> Cost:
    """By the pace of a few steps."""
    recipe = _fitted(cell.recipe)
    measured = pace(recipe, device=device)
    work = {stage: _work(recipe, stage, seconds=measured[stage]) for stage in measured}
    words = " and ".join(_said(stage, each) for stage, each in work.items())
    taken = sum(measured[stage] * each["steps"] for stage, each in work.items())
    seconds = taken if recipe.minutes is None else recipe.minutes * 60
    return Cost(cell.name, f"training: {words}", seconds, done=False, work=work)


def _work(recipe: Recipe, stage: str, *, seconds: float) -> dict[str, Any]:
    """What training a stage is, in numbers. seconds: of a step."""
    facts, spec = describe(recipe), trained(recipe)[stage]
    first = stage == "first_stage"
    fitting = None if recipe.minutes is None else int(recipe.minutes * 60 * (1 - OVERHEAD) / seconds)
    return {
        "parameters": facts["parameters"]["first_stage" if first else "network"],
        "multiply_adds": sum(facts["flops"][part] for part in (("encode", "decode") if first else ("network",))),
        "pictures_per_second": spec.batch / seconds,
        "steps": fitting or spec.steps,
        "batch": spec.batch,
    }


def _said(stage: str, work: Mapping[str, Any]) -> str:
    return (
        f"{stage.replace('_', ' ')}, {work['parameters'] / 1e6:.2f} M parameters, "
        f"{work['multiply_adds'] / 1e6:.0f} M multiply-adds a picture, {work['pictures_per_second']:.0f} pictures/s, "
        f"{work['steps']:,} steps of {work['batch']}"
    )


def _drawing(cell: Quality | Pace, trainings: Mapping[str, Training], known: dict[str, Any], *, device: str) -> Cost:
    """By the pace of a few steps of a few pictures."""
    against = cell.against.data if isinstance(cell, Quality) else cell.data
    each = _each(cell, trainings, known, data=against, device=device)
    match cell:
        case Quality():
            pictures = cell.count * (_looks(trainings[cell.model].recipe) if cell.course else 1)
        case Pace():
            pictures = cell.batch * REPEATS
    words = f"{_words(cell)}, {1 / each:.3g} pictures/s"
    return Cost(cell.name, words, each * pictures, done=False, work={"pictures_per_second": 1 / each})


def _looks(recipe: Recipe) -> int:
    """At a training's denoiser."""
    spec = trained(recipe)["denoiser"]
    return LOOKS if recipe.minutes is not None else math.ceil(spec.steps / spec.sample_every)


def _each(
    cell: Quality | Pace, trainings: Mapping[str, Training], known: dict[str, Any], *, data: str | None, device: str
) -> float:
    """Seconds of one picture, from a few of few steps; solvers and guidance differ in what a step takes."""
    training = trainings.get(cell.model or "")
    recipe = cell.recipe if isinstance(cell, Pace) and cell.recipe else training.recipe if training else None
    size = cell.size if isinstance(cell, Pace) else None
    how = cell.sampling
    key = f"{cell.model} {recipe.name if recipe else ''} {size} {how.solver} {how.guidance == 1} {how.match}"
    if key not in known:
        model = _model(cell.model or "", recipe, device=device)
        data = data if recipe is None else recipe.data.source
        known[key] = *_tried(cell, model, data=data, size=size), model.default("steps", 50)
    first, further, usual = known[key]
    return first + further * ((cell.sampling.steps or usual) - 1)


def _model(name: str, recipe: Recipe | None, *, device: str) -> Model:
    if recipe is None:
        return load(name, device=device)
    return untrained(_fitted(recipe), device=device, compute=sampling_compute(device))


def _fitted(recipe: Recipe) -> Recipe:
    splits = open_recipe_data(recipe.data, seed=recipe.seed)
    return resolve(recipe, splits.train, held_out=splits.test).recipe


def _tried(cell: Quality | Pace, model: Model, *, data: str | None, size: int | None) -> Drawing:
    """A few pictures drawn in one step, after one draw to warm up, and in more."""

    def seconds(steps: int) -> float:
        asking = asking_of(model, cell.sampling.model_copy(update={"steps": steps}), data=data, most=TRIED, count=TRIED)
        request = asking.request(range(TRIED))
        if size is not None:
            request = request.model_copy(update={"size": (size, size)})
        begun = time.perf_counter()
        list(generate(model, request, batch=TRIED))
        return (time.perf_counter() - begun) / TRIED

    seconds(1)
    first = seconds(1)
    return first, max(0.0, seconds(1 + STEPS) - first) / STEPS

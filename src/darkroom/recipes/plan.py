"""What a recipe would cost on this machine, and fitting one into a time; measured, then written down."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from darkroom.core.errors import SpecError
from darkroom.core.shapes import Number
from darkroom.data.aspects import rows_by_shape
from darkroom.data.place import called
from darkroom.data.remote import shown
from darkroom.data.sources import Splits
from darkroom.data.summary import summary
from darkroom.nn.vgg import present
from darkroom.recipes.advice import doubts, reasons
from darkroom.recipes.clock import RECIPE
from darkroom.recipes.describe import count, describe
from darkroom.recipes.length import trained, with_steps
from darkroom.recipes.pace import OVERHEAD, Pace
from darkroom.recipes.schema import Recipe

LARGE: Final = 100_000_000
NAMED: Final = 5  # of the pictures that are left out
FIRST_STAGE_SHARE: Final = 0.3
BEGUN_SHARE: Final = 0.1  # of one that begins with weights of another
Measure = Callable[[], Pace]


def plan_of(recipe: Recipe, splits: Splits, *, measure: Measure) -> dict[str, Any]:
    """Pictures, parameters, memory, steps, and seconds of each stage at the pace that `measure` finds.

    recipe: fitted to its data (`resolve`). A model of more than 100 million parameters is not tried, nor one that needs
    a network which is not here yet; its seconds are None, and `untried` says why.
    """
    facts = describe(recipe)
    why = untried(recipe)
    measured = {} if why else measure()
    stages = {
        stage: {
            "steps": spec.steps,
            "batch": spec.batch,
            "seconds": None if why else round(measured[stage] * spec.steps, 1),
        }
        for stage, spec in trained(recipe).items()
    }
    found = summary(splits.train)
    return {
        "recipe": recipe.name,
        "summary": recipe.summary,
        "why": reasons(recipe, found),
        "doubts": doubts(recipe, found, test=len(splits.test)),
        "data": {
            "source": shown(recipe.data.source or ""),
            "train": len(splits.train),
            "test": len(splits.test),
            "left_out": [{"name": name, "reason": reason} for name, reason in splits.left_out],
            "size": recipe.data.size,
            "shapes": _shapes(recipe, splits),
        },
        "parameters": facts["parameters"],
        "flops": facts["flops"],
        "memory": facts["memory"],
        "stages": stages,
        "untried": why,
        "seconds": None if why else round(sum(each["seconds"] for each in stages.values()), 1),
    }


def _shapes(recipe: Recipe, splits: Splits) -> dict[str, int]:
    """How many training pictures have which height and width, where they keep their aspects."""
    if recipe.data.aspects is None:
        return {}
    groups = rows_by_shape(splits.train, recipe.transform)
    return {f"{height}x{width}": len(rows) for (height, width), rows in groups.items()}


def untried(recipe: Recipe) -> str | None:
    """Why the pace is not measured by a few steps; None where it is."""
    loss = recipe.first_stage.loss
    if sum(count(recipe).values()) > LARGE:
        return "too large"
    if recipe.first_stage.train is not None and loss.perceptual_weight and loss.perceptual == "lpips" and not present():
        return "LPIPS would have to be downloaded first"
    return None


def told(plan: dict[str, Any]) -> str:
    """The plan in words."""
    data, parameters = plan["data"], plan["parameters"]
    shapes = ", ".join(f"{name} {number}" for name, number in data["shapes"].items())
    lines = [
        f"{plan['recipe']}: {plan['summary']}",
        f"data        {data['train']} training and {data['test']} test pictures of {called(data['source'])} "
        f"at {data['size']} px" + (f", {len(data['left_out'])} left out" if data["left_out"] else ""),
        *([f"shapes      {shapes}"] if shapes else []),
        "parameters  " + ", ".join(f"{name} {number / 1e6:.2f} M" for name, number in parameters.items() if number),
        "operations  "
        + ", ".join(f"{name} {number / 1e6:.0f} M" for name, number in plan["flops"].items() if number)
        + " multiply-adds a picture",
        "memory      "
        + ", ".join(f"{name} {number / 1e6:.0f} MB" for name, number in plan["memory"].items() if number)
        + ", and activations",
    ]
    for stage, cost in plan["stages"].items():
        seconds = cost["seconds"]
        time_ = f"not tried here: {plan['untried']}" if seconds is None else f"about {seconds / 60:.1f} minutes here"
        lines.append(f"{stage:<11} {cost['steps']} steps of {cost['batch']} pictures, {time_}")
    lines += [f"{'left out':<11} {each['name']}: {each['reason']}" for each in data["left_out"][:NAMED]]
    lines += [f"{word:<11} {sentence}" for word in ("why", "doubts") for sentence in plan[word]]
    return "\n".join(lines)


def fit(
    recipe: Recipe, *, minutes: Number, folder: Path | None, measure: Measure, spent: Callable[[], float] = lambda: 0.0
) -> Recipe:
    """The recipe with steps that take about `minutes` here: 30 % for the first stage, 10 % if it begins as another.

    8 % are kept for looking and saving.

    measure: finds the pace of the recipe fitted to its data · spent: seconds of the time that are gone, asked when the
    pace is known, for finding it takes a while where steps are compiled. The run itself settles the steps of the
    denoiser when it knows what time is left for it, and keeps what was begun in `folder` as it is written there (None:
    a plan, which is of a new run).
    `SpecError` for what cannot be tried here.
    """
    recipe = recipe.model_copy(update={"minutes": float(minutes)})
    if folder is not None and (folder / RECIPE).exists():
        return recipe
    why = untried(recipe)
    if why is not None:
        raise SpecError(f"minutes={minutes:g} cannot be fitted: {why}; say how many steps each stage makes instead")
    measured = measure()
    budget = max(0.0, minutes * 60 - spent()) * (1 - OVERHEAD)
    shares = _shares(list(measured), begun=recipe.first_stage.begin is not None)
    counts = {stage: max(20, int(budget * shares[stage] / seconds)) for stage, seconds in measured.items()}
    if "first_stage" in counts:
        recipe = with_steps(recipe, stage="first_stage", steps=counts["first_stage"])
    if recipe.denoiser is not None and recipe.denoiser.train is not None:  # a first guess; all else is settled later
        guess = recipe.denoiser.train.model_copy(update={"steps": counts["denoiser"]})
        recipe = recipe.model_copy(update={"denoiser": recipe.denoiser.model_copy(update={"train": guess})})
    return recipe


def _shares(stages: list[str], *, begun: bool) -> dict[str, float]:
    if len(stages) == 1:
        return {stages[0]: 1.0}
    share = BEGUN_SHARE if begun else FIRST_STAGE_SHARE
    return {"first_stage": share, "denoiser": 1 - share}

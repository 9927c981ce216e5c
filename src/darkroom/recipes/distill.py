"""Distillation: a recipe that begins with a model, its teacher, and ends with one that draws likewise in few steps."""

from typing import Final, cast

from darkroom.checkpoint.store import StoredModel
from darkroom.core.errors import InputError
from darkroom.core.spec import parse
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.recipes.resolve import Resolved
from darkroom.recipes.schema import Recipe
from darkroom.recipes.tune import begin_with, from_model
from darkroom.train.distill import DistillSpec, FrozenDenoiser, Lesson
from darkroom.train.optim import TrainSpec

STEPS: Final = 4  # that a student takes by itself; 1, 2 and 3 are as good to ask for
TRAIN: Final = TrainSpec(
    steps=4000, batch=32, learning_rate=2e-4, warmup=100, decay="cosine", betas=(0.9, 0.99), ema=0.998
)


def distilled(recipe: Recipe, stored: StoredModel, *, name: str, size: int | None = None) -> Recipe:
    """A recipe that distills a model called `name`: the data of `recipe`, all else of the model.

    The student learns the teacher's guidance, as its card tells it, and is sampled without; conditions are dropped in
    training as before. The length does not depend on the data, for the teacher's answers are learnt. A recipe that
    distills already keeps its own settings. size: side of the pictures (None: the teacher's). `SpecError` as of
    `from_model`, and for a regression.
    """
    before = recipe.denoiser if recipe.denoiser is not None and recipe.denoiser.distill is not None else None
    train = TRAIN if before is None else before.train
    made = from_model(recipe, stored, name=name, size=size, train=train, teach=False)
    guided, values = cast("ModelSpec", stored.spec).guided, made.plain()
    if before is None:
        own, drawn = values["denoiser"]["sample"], {"solver": "lcm", "eta": 0.0, "steps": STEPS, "guidance": 1.0}
        values["name"] = f"{recipe.name}-distilled"
        values["summary"] = f"{name} in few steps, learnt from the model itself."
        values["denoiser"]["distill"] = DistillSpec(guidance=own["guidance"] if guided else 1.0).plain()
        values["denoiser"]["sample"] = {**own, **drawn, "prompts": _prompts(stored)}
    else:
        values["denoiser"] |= {key: before.plain()[key] for key in ("distill", "sample")}
    return parse(Recipe, values, where=f"recipe {recipe.name!r} distilled from {name}")


def check_taught(recipe: Recipe, stored: StoredModel | None) -> None:
    """`InputError` where a student would learn a guidance that its teacher does not have."""
    part = recipe.denoiser
    if part is None or part.distill is None or not isinstance(stored, StoredModel):
        return
    assert isinstance(stored.spec, ModelSpec)
    if part.distill.guidance != 1 and not stored.spec.guided:
        raise InputError(
            f"denoiser.distill.guidance={part.distill.guidance:g} does not fit: training dropped no condition of the "
            "teacher; use 1"
        )


def lesson_of(resolved: Resolved, start: StoredModel | None) -> Lesson | None:
    """What the student of a recipe that has met its data learns; None for a recipe that distills nothing."""
    part = resolved.recipe.denoiser
    if part is None or part.distill is None:
        return None
    assert start is not None
    assert isinstance(start.spec, ModelSpec)
    teacher = LatentDiffusion(start.spec)
    begin_with(teacher, start)
    resolved.tell_empty(teacher.conditioning)
    return Lesson(FrozenDenoiser(teacher.network, teacher.conditioning), part.distill)


def _prompts(stored: StoredModel) -> list[str]:
    """What the teacher's card offers."""
    match stored.card:
        case {"sample": {"prompts": [*prompts]}}:
            return prompts
        case _:
            return []

"""The last thing that a run does: it looks back, and writes the page."""

import shlex
from pathlib import Path

from darkroom.core.compute import training_compute
from darkroom.data.sources import Splits
from darkroom.data.summary import summary
from darkroom.data.transforms import TransformSpec
from darkroom.recipes.report.commands import Command
from darkroom.recipes.report.look_back import LookBack, Tell, look_back
from darkroom.recipes.report.page import Data, this_machine, write_page
from darkroom.recipes.schema import Recipe
from darkroom.tasks.model import Model


def report_on(
    folder: Path,
    recipe: Recipe,
    *,
    splits: Splits,
    transform: TransformSpec,
    model: Model | None,
    device: str = "auto",
    tell: Tell | None = None,
) -> Path:
    """`report.html` of a finished run; model: what it made, None for a first stage alone · device: that trained it."""
    look = None if model is None else _look(model, splits, transform=transform, tell=tell)
    return write_page(
        folder,
        look=look,
        data=Data(summary(splits.train), len(splits.test), splits.skipped),
        commands=_onward(folder, recipe),
        machine=this_machine(training_compute(device, "auto").device),
    )


def _look(model: Model, splits: Splits, *, transform: TransformSpec, tell: Tell | None) -> LookBack | None:
    if set(model.fields) - {"caption", "label"}:  # steered by what sampling cannot give yet
        return None
    return look_back(model, splits, transform=transform, tell=tell)


def _onward(folder: Path, recipe: Recipe) -> list[Command]:
    """How training goes on from here."""
    place = shlex.quote(str(folder))
    if recipe.denoiser is None:
        source = shlex.quote(recipe.data.source or "my_pictures")
        return [Command("Train a denoiser on it", f"darkroom train {source} --first-stage {place}")]
    written, more = shlex.quote(str(folder / "recipe.yaml")), shlex.quote(f"{folder}-more")
    return [  # the recipe knows which pictures are kept apart
        Command("Train it longer", f"darkroom train {written} --from {place} --out {more}"),
        Command("Teach it other pictures, in ten minutes", f"darkroom train my_pictures --from {place} minutes=10"),
    ]

"""The last thing that a run does: it looks back, and writes the page."""

import contextlib
import shlex
from pathlib import Path

from darkroom.core.compute import training_compute
from darkroom.core.errors import InputError
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
    tell: Tell | None = None,
) -> Path:
    """`report.html` of a finished run; model: what it made, None for a first stage alone."""
    look = None if model is None else _look(model, splits, transform=transform, tell=tell)
    skipped = sorted({*splits.train.skipped, *splits.test.skipped})
    device = training_compute("auto", "auto").device if model is None else model.compute.device
    return write_page(
        folder,
        look=look,
        data=Data(summary(splits.train), len(splits.test), skipped),
        commands=_onward(folder, recipe),
        machine=this_machine(device),
    )


def _look(model: Model, splits: Splits, *, transform: TransformSpec, tell: Tell | None) -> LookBack | None:
    with contextlib.suppress(InputError):  # steered by what sampling cannot give yet
        return look_back(model, splits, transform=transform, tell=tell)
    return None


def _onward(folder: Path, recipe: Recipe) -> list[Command]:
    """How training goes on from here."""
    source, place = (shlex.quote(str(each)) for each in (recipe.data.source or "my_pictures", folder))
    if recipe.denoiser is None:
        return [Command("Train a denoiser on it", f"darkroom train {source} --first-stage {place}")]
    more = shlex.quote(f"{folder}-more")
    return [
        Command("Train it longer", f"darkroom train {source} --from {place} --out {more}"),
        Command("Teach it other pictures, in ten minutes", f"darkroom train my_pictures --from {place} minutes=10"),
    ]

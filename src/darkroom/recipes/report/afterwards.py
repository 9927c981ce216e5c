"""The last thing that a run does: it looks back, and writes the page."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.core.compute import training_compute
from darkroom.core.pictures import save_png
from darkroom.core.record import writable_folder, write_json
from darkroom.data.remote import shown
from darkroom.data.sources import Splits
from darkroom.data.summary import summary
from darkroom.data.transforms import TransformSpec
from darkroom.recipes.clock import RECIPE
from darkroom.recipes.report.commands import EXAMPLE, Command
from darkroom.recipes.report.look_back import Tell, look_back
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
    look = (
        None
        if model is None
        else look_back(model, splits, transform=transform, spoiling=recipe.data.spoiling, tell=tell)
    )
    if look is not None:
        _write_example(folder / EXAMPLE, look.first)
    return write_page(
        folder,
        look=look,
        data=Data(summary(splits.train), len(splits.test), splits.left_out),
        commands=_onward(folder, recipe),
        machine=this_machine(training_compute(device, "auto").device),
    )


def _write_example(folder: Path, asked: Mapping[str, Any]) -> None:
    """What the first sample was asked to follow, as files that `darkroom sample` takes."""
    pictures = {"maps": "map.png", "low_res": "low-res.png", "images": "image.png", "masks": "mask.png"}
    for field, name in pictures.items():
        if field in asked:
            save_png(asked[field].picture, folder / name)
    if "layouts" in asked:
        write_json(writable_folder(folder) / "layout.json", [each.plain() for each in asked["layouts"]])


def _onward(folder: Path, recipe: Recipe) -> list[Command]:
    """How training goes on from here."""
    place = shlex.quote(str(folder))
    if recipe.denoiser is None:
        source = shlex.quote(shown(recipe.data.source or "my-pictures"))
        return [Command("Train a denoiser on it", f"darkroom train {source} --first-stage {place}")]
    if recipe.denoiser.distill is not None:  # only its teacher can go on, and where that lies the recipe does not say
        return []
    written, more = shlex.quote(str(folder / RECIPE)), shlex.quote(f"{folder}-more")
    line = f"darkroom train {written} --from {place} --out {more}"
    longer = f"Train it longer, for {recipe.denoiser.train.steps:,} steps more" if recipe.denoiser.train else ""
    if recipe.minutes is not None:
        longer, line = f"Train it longer, for {recipe.minutes:g} minutes more", f"{line} minutes={recipe.minutes:g}"
    return [  # the recipe knows which pictures are kept apart
        Command(longer or "Train it longer", line),
        Command("Teach it other pictures, in ten minutes", f"darkroom train my-pictures --from {place} minutes=10"),
    ]

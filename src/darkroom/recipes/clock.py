"""A run of so many minutes: its denoiser is as long as the time that is left allows, settled anew on the way."""

import time
from pathlib import Path
from typing import Final, final

from darkroom.core.parallel import on_first
from darkroom.core.record import read_lines, writable_folder, write_json, write_yaml
from darkroom.recipes.length import stretched, trained, with_steps
from darkroom.recipes.pace import OVERHEAD, denoiser_pace
from darkroom.recipes.schema import Recipe

RECIPE: Final = "recipe.yaml"
PACE: Final = "pace.json"  # that the clock has settled the denoiser's steps, and when
WORTH: Final = 0.02  # of all steps: a smaller difference is not worth another length
FEWEST: Final = 20


@final
class Clock:
    """The time of one run in its folder; what it decides stands in the recipe from then on. spent: seconds gone."""

    def __init__(self, folder: Path, *, spent: float) -> None:
        self._folder = folder
        self._began = time.monotonic() - spent

    def settled(self, recipe: Recipe, *, device: str) -> Recipe:
        """The recipe with as many denoiser steps as the time that is left allows; decided once and kept."""
        if recipe.minutes is None or (self._folder / "denoiser" / PACE).exists():
            return recipe
        used = max(time.monotonic() - self._began, self._seconds("first_stage"))
        pace = denoiser_pace(recipe, device=device)
        left = max(0.0, recipe.minutes * 60 - used) * (1 - OVERHEAD)
        fitted = with_steps(recipe, stage="denoiser", steps=max(FEWEST, int(left / pace)))
        return on_first(lambda: self._keep(fitted, pace=pace, used=used, at=0))

    def settled_again(self, recipe: Recipe, *, step: int) -> Recipe:
        """The recipe with another number of steps in all, where the pace has changed; step: how many are made.

        `OVERHEAD` was kept for looking and caching, too, most of which is behind by now; half of it is kept.
        """
        if recipe.minutes is None:
            return recipe
        taken = max(0.01, self._seconds("denoiser"))  # the log has hundredths
        used = max(time.monotonic() - self._began, self._seconds("first_stage") + taken)
        left = max(0.0, recipe.minutes * 60 * (1 - OVERHEAD / 2) - used)
        steps, before = step + max(1, int(left * step / taken)), trained(recipe)["denoiser"].steps
        if abs(steps - before) < WORTH * before:
            return recipe
        return self._keep(stretched(recipe, stage="denoiser", steps=steps), pace=taken / step, used=used, at=step)

    def _keep(self, recipe: Recipe, *, pace: float, used: float, at: int) -> Recipe:
        folder = writable_folder(self._folder / "denoiser")
        write_yaml(self._folder / RECIPE, recipe.plain())
        steps = trained(recipe)["denoiser"].steps
        write_json(folder / PACE, {"at": at, "steps": steps, "seconds_used": used, "seconds_of_a_step": pace})
        return recipe

    def _seconds(self, stage: str) -> float:
        """How long a stage has taken so far, over all its interruptions."""
        lines = read_lines(self._folder / stage / "log.jsonl")
        return max((line["seconds"] for line in lines if "seconds" in line), default=0.0)

"""A run of so many minutes: its denoiser is as long as the time that is left allows, settled anew on the way."""

import time
from pathlib import Path
from typing import Final, final

from darkroom.core.parallel import on_first
from darkroom.core.record import known_json, read_lines, writable_folder, write_json, write_yaml
from darkroom.recipes.length import stretched, trained, with_steps
from darkroom.recipes.pace import OVERHEAD, denoiser_pace
from darkroom.recipes.schema import Recipe

RECIPE: Final = "recipe.yaml"
PACE: Final = "pace.json"  # that the clock has settled the denoiser's steps, and when
BEFORE: Final = "seconds_before"  # of the run, gone when its denoiser began
WORTH: Final = 0.02  # of all steps: a smaller difference is not worth another length
FEWEST: Final = 20


@final
class Clock:
    """The time of one run in its folder; what it decides stands in the recipe from then on. spent: seconds gone."""

    def __init__(self, folder: Path, *, spent: float) -> None:
        self._folder = folder
        self._began = time.monotonic() - spent

    def settled(self, recipe: Recipe, *, device: str) -> Recipe:
        """With as many steps of the denoiser as the time left by all before it allows; decided once and kept."""
        if recipe.minutes is None or (self._folder / "denoiser" / PACE).exists():
            return recipe
        used = max(time.monotonic() - self._began, self._seconds("first_stage"))
        pace = denoiser_pace(recipe, device=device)
        left = max(0.0, recipe.minutes * 60 - used) * (1 - OVERHEAD)
        fitted = with_steps(recipe, stage="denoiser", steps=max(FEWEST, int(left / pace)))
        return on_first(lambda: self._keep(fitted, pace=pace, used=used, at=0, before=used))

    def settled_again(self, recipe: Recipe, *, step: int) -> Recipe:
        """So many steps are made: with another number of them in all, where the pace has changed.

        `OVERHEAD` was kept for looking and caching, too, most of which is behind by now; half of it is kept.
        """
        if recipe.minutes is None:
            return recipe
        taken = max(0.01, self._seconds("denoiser"))  # the log has hundredths
        before = seconds_before(self._folder / "denoiser", otherwise=self._seconds("first_stage"))
        used = max(time.monotonic() - self._began, before + taken)  # whoever was killed gains no time by it
        left = max(0.0, recipe.minutes * 60 * (1 - OVERHEAD / 2) - used)
        steps, planned = step + max(1, int(left * step / taken)), trained(recipe)["denoiser"].steps
        if abs(steps - planned) < WORTH * planned:
            return recipe
        longer = stretched(recipe, stage="denoiser", steps=steps)
        return self._keep(longer, pace=taken / step, used=used, at=step, before=before)

    def _keep(self, recipe: Recipe, *, pace: float, used: float, at: int, before: float) -> Recipe:
        folder = writable_folder(self._folder / "denoiser")
        write_yaml(self._folder / RECIPE, recipe.plain())
        told = {"at": at, "steps": trained(recipe)["denoiser"].steps, "seconds_used": used, BEFORE: before}
        write_json(folder / PACE, {**told, "seconds_of_a_step": pace})
        return recipe

    def _seconds(self, stage: str) -> float:
        """How long a stage has taken so far, over all its interruptions."""
        lines = read_lines(self._folder / stage / "log.jsonl")
        return max((line["seconds"] for line in lines if "seconds" in line), default=0.0)


def seconds_before(denoiser: Path, *, otherwise: float = 0.0) -> float:
    """Of a run's minutes, gone when its denoiser began: opening, the first stage, encoding, finding the pace.

    denoiser: its folder · otherwise: what is answered where the clock kept none.
    """
    known = known_json(denoiser / PACE)
    found = known.get(BEFORE) if isinstance(known, dict) else None
    return float(found) if isinstance(found, int | float) else otherwise

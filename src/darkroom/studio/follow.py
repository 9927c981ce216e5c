"""A training followed while it runs: what its folder says, for a page that asks again and again."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeGuard, final

from fastapi import APIRouter
from fastapi.responses import Response

from darkroom.core.errors import InputError
from darkroom.core.record import read_lines
from darkroom.core.spec import parse_yaml
from darkroom.pages.plot import Line, chart, smoothed
from darkroom.serve.limits import Refused

LOG: Final = "log.jsonl"
STAGES: Final = {"first_stage": "first stage", "denoiser": "denoiser"}
PICTURES: Final = {"reconstructions": "Reconstructions, originals above", "samples": "Samples"}
SHOWN: Final = ("loss", "pixel", "perceptual", "test_psnr", "validation_loss", "learning_rate", "pictures_per_second")
RECENT: Final = 20  # lines of a log that say how fast a step is now


@final
class Followed:
    """The folder of a run. clock: seconds since 1970. `InputError` where it has no recipe."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock
        self._read: dict[str, tuple[object, dict[str, Any] | None]] = {}
        if not (folder / "recipe.yaml").is_file():
            raise InputError(f"{folder}: no run to follow, for there is no recipe.yaml; give the folder of a training")

    def state(self) -> dict[str, Any]:
        """All that the page shows: name, stages as far as they went, pictures by stage and name with their age.

        silent: seconds since a log grew, None where there is none.
        """
        recipe = self._recipe()
        stages = [self._stage(key, recipe.get(key)) for key in STAGES]
        grown = [changed[0] for key in STAGES if (changed := _changed(self.folder / key / LOG))]
        return {
            "name": str(recipe.get("name", self.folder.name)),
            "summary": str(recipe.get("summary", "")),
            "finished": (self.folder / "model.safetensors").exists(),
            "silent": max(0.0, self._clock() - max(grown) / 1e9) if grown else None,
            "stages": [each for each in stages if each is not None],
        }

    def _stage(self, key: str, spec: Any) -> dict[str, Any] | None:
        """One stage, read anew when its files have changed: a page is left open, and logs grow long."""
        folder = self.folder / key
        now = (_steps(spec), *(_changed(folder / name) for name in (LOG, *(f"{each}.png" for each in PICTURES))))
        if key not in self._read or self._read[key][0] != now:
            self._read[key] = now, _stage(folder, STAGES[key], spec)
        return self._read[key][1]

    def _recipe(self) -> dict[str, Any]:
        """Empty while there is none to be read: the folder is gone, or somebody writes into the file."""
        try:
            found = parse_yaml((self.folder / "recipe.yaml").read_text(encoding="utf-8"), where="recipe.yaml")
        except (OSError, UnicodeDecodeError, InputError):
            return {}
        return found if isinstance(found, dict) else {}

    def picture(self, stage: str, name: str) -> bytes:
        """A picture of a stage, a PNG, both names out of the tables above; `Refused` where there is none."""
        if stage in STAGES and name in PICTURES:
            with contextlib.suppress(OSError):
                return (self.folder / stage / f"{name}.png").read_bytes()
        raise Refused("this run has no such picture, or not yet", status=404, code="no_picture")

    def router(self) -> APIRouter:
        """Its routes: `/v1/training`, and the pictures below that."""
        router = APIRouter(prefix="/v1/training", tags=["training"])

        @router.get("")
        def training() -> dict[str, Any]:
            """The training that this server was started to follow, as it stands."""
            return self.state()

        @router.get("/{stage}/{name}", response_class=Response)
        def picture(stage: str, name: str) -> Response:
            """A sheet of pictures that the training wrote last: `samples` or `reconstructions`."""
            headers = {"Cache-Control": "no-cache"}
            return Response(self.picture(stage, name), media_type="image/png", headers=headers)

        return router


def _changed(path: Path) -> tuple[int, int] | None:
    """When a file was written last, in nanoseconds since 1970, and how long it is; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _stage(folder: Path, words: str, spec: Any) -> dict[str, Any] | None:
    """One stage as far as it went; None before it began."""
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(OSError):  # it may go away while it is looked at
        lines = [line for line in read_lines(folder / LOG) if isinstance(line.get("step"), int)]
    if not lines:
        return None
    step = max(line["step"] for line in lines)
    steps = _steps(spec)
    latest: dict[str, Any] = {}
    for line in lines:
        latest |= {key: line[key] if _is_number(line[key]) else None for key in SHOWN if key in line}
    return {
        "key": folder.name,
        "name": words,
        "step": step,
        "steps": steps,
        "left": None if steps is None else _left(lines, steps - step),
        "latest": latest,
        "chart": _chart(lines),
        "pictures": [
            {"name": name, "title": title, "version": changed[0]}
            for name, title in PICTURES.items()
            if (changed := _changed(folder / f"{name}.png"))
        ],
    }


def _is_number(value: object) -> TypeGuard[float]:
    """Is it one that JSON can tell? What has diverged is logged as it is."""
    return isinstance(value, int | float) and math.isfinite(value)


def _steps(spec: Any) -> int | None:
    train = spec.get("train") if isinstance(spec, dict) else None
    steps = train.get("steps") if isinstance(train, dict) else None
    return steps if isinstance(steps, int) else None


def _left(lines: list[dict[str, Any]], steps: int) -> float | None:
    """Seconds that so many steps take at the pace of the last lines; None where that is not known."""
    timed = [(line["step"], line["seconds"]) for line in lines if _is_number(line.get("seconds"))]
    recent = timed[-RECENT:]
    if len(recent) < 2 or recent[-1][0] <= recent[0][0] or recent[-1][1] <= recent[0][1]:
        return None
    return max(0.0, steps * (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0]))


def _chart(lines: list[dict[str, Any]]) -> str:
    def points(key: str) -> list[tuple[int, float]]:
        return [(line["step"], line[key]) for line in lines if _is_number(line.get(key))]

    raw = points("loss")
    held = Line("validation", points("validation_loss"), "held")
    return chart([Line("each step", raw, "faint"), Line("training, smoothed", smoothed(raw)), held], title="Loss")

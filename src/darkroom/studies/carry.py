"""Carrying a study out in its folder: cell after cell, each once; killed anywhere and run again it goes on."""

import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Final

from darkroom.checkpoint.store import load_model
from darkroom.core.errors import InputError
from darkroom.core.record import read_json, read_log, writable_folder, write_json
from darkroom.core.spec import parse
from darkroom.recipes.describe import count
from darkroom.recipes.given import with_first_stage
from darkroom.recipes.length import trained
from darkroom.recipes.pace import pace as pace_of
from darkroom.recipes.plan import fit
from darkroom.recipes.resolve import resolve
from darkroom.recipes.run import MODEL, Run, Tell, open_recipe_data
from darkroom.studies import page
from darkroom.studies.cells import Cell, Found, Made, Pace, Quality, Study, Training
from darkroom.studies.lengths import speed_of
from darkroom.studies.measure import Place, pace, quality
from darkroom.studies.ready import check_ready
from darkroom.train.events import Event, Note, Wrote

PLAN: Final = "study.json"
DONE: Final = "done.json"


def carry_out(study: Study, folder: Path, *, device: str, tell: Tell) -> Generator[Event]:
    """Make every cell that is not there yet, then write what is read from them; stop listening at any event.

    tell: called with (what, done, of) during work between events; it may raise. `InputError` when another study was
    begun in the folder, and, before anything is written, for what `check_ready` finds.
    """
    if not (folder / PLAN).exists():
        check_ready(study, device=device)
    _claim(study, folder)
    trainings = {cell.name: cell for cell in study.cells if isinstance(cell, Training)}
    place = Place(folder, trainings, tuple(study.features), device, tell)
    for number, cell in enumerate(study.cells, start=1):
        if not (place.of(cell.name) / DONE).exists():
            yield Note(f"{number}/{len(study.cells)} {cell.name}")
            found = yield from _made(cell, place)
            write_json(writable_folder(place.of(cell.name)) / DONE, Made(cell=cell, found=found).plain())
    yield from page.write(folder, study, reading=study.read(finished(study, folder)))


def finished(study: Study, folder: Path) -> dict[str, Found]:
    """What the cells that are finished found, by name."""
    paths = {cell.name: folder / "cells" / cell.name / DONE for cell in study.cells}
    return {name: parse(Made, _read(path), where=str(path)).found for name, path in paths.items() if path.exists()}


def _claim(study: Study, folder: Path) -> None:
    """Write into a new folder what shall be done there; refuse one where something else was begun."""
    path = writable_folder(folder) / PLAN
    if not path.exists():
        write_json(path, study.plain())
        return
    known, wanted = _read(path), study.plain()
    if known != wanted:
        raise InputError(
            f"{folder}: another study was begun here ({_difference(known, wanted)}); choose another --out, or ask for "
            "the same to go on"
        )


def _read(path: Path) -> Any:
    """JSON that a study wrote; `InputError` for what is none any more."""
    try:
        return read_json(path)
    except InputError as error:
        raise InputError(f"{error}; remove it to have it made again, or choose another --out") from None


def _difference(known: Any, wanted: Mapping[str, Any]) -> str:
    """The first thing that is not the same."""
    cells = known.get("cells") if isinstance(known, dict) else None
    if not isinstance(cells, list) or not all(isinstance(each, dict) for each in cells):
        return f"{PLAN} is none that a study wrote"
    for key in ("study", "features"):
        if known.get(key) != wanted[key]:
            return f"{key} was {known.get(key)!r} and is {wanted[key]!r} now"
    before, now = ({str(cell.get("name")): cell for cell in each} for each in (cells, wanted["cells"]))
    for name in [*now, *before]:
        if name not in before or name not in now:
            return f"the cell {name} is only in one of them"
        if before[name] != now[name]:
            keys = [key for key in [*now[name], *before[name]] if before[name].get(key) != now[name].get(key)]
            return f"{', '.join(keys[:1])} of the cell {name}"
    return "cells in another order"


def _made(cell: Cell, place: Place) -> Generator[Event, None, dict[str, Any]]:
    match cell:
        case Training():
            return (yield from _train(cell, place))
        case Quality():
            return quality(cell, place)
        case Pace():
            return pace(cell, place)


def _train(cell: Training, place: Place) -> Generator[Event, None, dict[str, Any]]:
    """The run, and what its log says of it. Nobody reads pages of runs, so none is written."""
    began = time.monotonic()
    given = None if cell.on is None else load_model(place.of(cell.on) / MODEL)
    recipe = cell.recipe if given is None else with_first_stage(cell.recipe, given)
    splits = open_recipe_data(recipe.data, seed=recipe.seed)
    if recipe.minutes is not None:

        def measure() -> Mapping[str, float]:
            fitted = resolve(recipe, splits.train, held_out=splits.test).recipe
            return pace_of(fitted, device=place.device)

        minutes, folder = recipe.minutes, place.of(cell.name)
        recipe = fit(recipe, minutes=minutes, folder=folder, measure=measure, spent=lambda: time.monotonic() - began)
    run = Run(
        recipe,
        place.of(cell.name),
        device=place.device,
        first_stage=given,
        splits=splits,
        spent=time.monotonic() - began,
        marks=cell.marks,
    )
    for event in run.develop(tell=place.tell, page=False):
        if not isinstance(event, Wrote):  # what a run writes is in its folder; here are too many of them to name each
            yield event
    return _of_run(run)


def _of_run(run: Run) -> dict[str, Any]:
    """Steps, seconds and quality of each stage that was trained, and the model's size."""
    stages: dict[str, Any] = {}
    for stage, spec in trained(run.recipe).items():
        folder = run.folder / stage
        lines = read_log(folder / "log.jsonl")
        stages[stage] = {
            "steps": spec.steps,
            "seconds": max((line["seconds"] for line in lines if "seconds" in line), default=0.0),
            "pictures_per_second": speed_of(lines, batch=spec.batch),
            "report": read_json(folder / "report.json"),
        }
    return {"parameters": count(run.recipe), "stages": stages, "pictures": len(run.splits.train)}

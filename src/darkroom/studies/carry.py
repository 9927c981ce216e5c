"""Carrying a study out in its folder: cell after cell, each once; killed anywhere and run again it goes on."""

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

from pydantic import Field

from darkroom.checkpoint.store import load_model
from darkroom.core.errors import InputError
from darkroom.core.record import read_json, read_log, writable_folder, write_json
from darkroom.core.spec import Spec, parse
from darkroom.recipes.clock import seconds_before
from darkroom.recipes.describe import describe
from darkroom.recipes.given import with_first_stage
from darkroom.recipes.length import trained
from darkroom.recipes.pace import pace as pace_of
from darkroom.recipes.plan import fit
from darkroom.recipes.resolve import resolve
from darkroom.recipes.run import MODEL, Run, Tell, open_recipe_data
from darkroom.studies import page
from darkroom.studies.cells import Cell, Found, HeldOut, Made, Pace, Quality, Study, Training
from darkroom.studies.lengths import slowed, speed_of
from darkroom.studies.measure import Place, held_out, pace, quality
from darkroom.studies.ready import check_ready
from darkroom.train.events import Event, Sentence, Wrote

PLAN: Final = "study.json"
DONE: Final = "done.json"


def carry_out(study: Study, folder: Path, *, device: str, tell: Tell) -> Generator[Event]:
    """Make every cell that is not there yet, and write what is read from those there are; stop listening at any event.

    tell: called with (what, done, of) during work between events; it may raise. `InputError` when another study was
    begun in the folder, and, before anything is written, for what `check_ready` finds.
    """
    if (folder / PLAN).exists():
        asked, study = study, begun(study, folder)
        if study is not asked:
            yield Sentence("this study was begun by another version, and goes on with the cells that it was begun with")
    else:
        check_ready(study, device=device)
        write_json(writable_folder(folder) / PLAN, study.plain())
    trainings = {cell.name: cell for cell in study.cells if isinstance(cell, Training)}
    place = Place(folder, trainings, tuple(study.features), device, tell)
    for number, cell in enumerate(study.cells, start=1):
        if not (place.of(cell.name) / DONE).exists():
            yield Sentence(f"{number}/{len(study.cells)} {cell.name}")
            found = yield from _made(cell, place)
            write_json(writable_folder(place.of(cell.name)) / DONE, Made(cell=cell, found=found).plain())
            if not isinstance(cell, Training):  # a page of what there is, for whoever has no time for the rest
                list(_page(study, folder))
    yield from _page(study, folder)


def _page(study: Study, folder: Path) -> Iterator[Event]:
    found = finished(study, folder)
    reading = study.read(found)
    if len(found) < len(study.cells):
        missing = f"{len(found)} of {len(study.cells)} cells are finished; tables and plots lack what the others find."
        reading = replace(reading, notes=(missing, *reading.notes))
    yield from page.write(folder, study, reading=reading)


def finished(study: Study, folder: Path) -> dict[str, Found]:
    """What the cells that are finished found, by name."""
    paths = {cell.name: folder / "cells" / cell.name / DONE for cell in study.cells}
    return {name: parse(Made, _read(path), where=str(path)).found for name, path in paths.items() if path.exists()}


def begun(study: Study, folder: Path) -> Study:
    """The study with the cells that it was begun with in the folder, if it was and they are others than these.

    Sizes and lengths that a study chooses itself may change from version to version; what was begun goes on as it is.
    `InputError` when something else was asked for there.
    """
    path = folder / PLAN
    known, wanted = _read(path) if path.exists() else study.plain(), study.plain()
    if not isinstance(known, dict):
        raise _another(folder, f"{PLAN} is none that a study wrote")
    if all(known.get(key) == wanted[key] for key in ("study", "features", "cells")):
        return study
    before, now = _words(known), _words(wanted)
    if "study" not in before:
        raise _another(folder, f"{PLAN} does not say what was asked for")
    for word in [*now, *before]:
        if before.get(word) != now.get(word):
            raise _another(folder, f"{word} was {before.get(word)!r} and is {now.get(word)!r} now")
    try:
        cells = parse(_Cells, {"cells": known.get("cells")}, where=str(path)).cells
    except InputError as error:
        raise InputError(f"{error}; another version wrote it, choose another --out") from None
    return replace(study, cells=cells)


@final
class _Cells(Spec):
    """Those of a study that was begun."""

    cells: tuple[Cell, ...] = Field(min_length=1)


def _words(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, word by word; nothing where a plan does not say."""
    asked = plan.get("asked")
    return {"study": plan.get("study"), "features": plan.get("features"), **asked} if isinstance(asked, dict) else {}


def _another(folder: Path, why: str) -> InputError:
    return InputError(
        f"{folder}: another study was begun here ({why}); choose another --out, or ask for the same to go on"
    )


def _read(path: Path) -> Any:
    """JSON that a study wrote; `InputError` for what is none any more."""
    try:
        return read_json(path)
    except InputError as error:
        raise InputError(f"{error}; remove it to have it made again, or choose another --out") from None


def _made(cell: Cell, place: Place) -> Generator[Event, None, dict[str, Any]]:
    match cell:
        case Training():
            return (yield from _train(cell, place))
        case Quality():
            return quality(cell, place)
        case Pace():
            return pace(cell, place)
        case HeldOut():
            return held_out(cell, place)


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
    return _of_run(run, name=cell.name)


def _of_run(run: Run, *, name: str) -> dict[str, Any]:
    """Steps, seconds and quality of each stage that was trained, the model's size and cost.

    before: seconds of the cell's minutes that were gone when the stage's steps began, for opening and encoding.
    """
    stages, notes = dict[str, Any](), list[str]()
    for stage, spec in trained(run.recipe).items():
        folder = run.folder / stage
        lines = read_log(folder / "log.jsonl")
        stages[stage] = {
            "steps": spec.steps,
            "seconds": max((line["seconds"] for line in lines if "seconds" in line), default=0.0),
            "before": seconds_before(folder),
            "pictures_per_second": speed_of(lines, batch=spec.batch),
            "report": read_json(folder / "report.json"),
        }
        disturbed = slowed(lines, batch=spec.batch)
        notes += [] if disturbed is None else [f"{name}: {disturbed}"]
    known = describe(run.recipe)
    return {
        "parameters": known["parameters"],
        "flops": known["flops"],
        "stages": stages,
        "pictures": len(run.splits.train),
        "notes": notes,
    }

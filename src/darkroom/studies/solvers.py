"""Quality against steps for every solver, of a model that exists; the paper shows DDIM alone (Figure 7)."""

from collections.abc import Mapping, Sequence
from typing import Final

from darkroom.core.errors import SpecError, did_you_mean
from darkroom.diffusion.solvers.choose import SOLVERS
from darkroom.pages.figure import Figure, Series
from darkroom.studies import published
from darkroom.studies.cells import Against, Cell, Found, Quality, Sampling, Study
from darkroom.studies.models import asks, data_of
from darkroom.studies.reading import Reading, Table, short, told, value_of
from darkroom.studies.wishes import DRAWS, Wishes

TAKES: Final = (*DRAWS, "solvers", "samplings")
STEPS: Final = (5, 10, 20, 50)
USUAL: Final = tuple(each for each in SOLVERS if each != "lcm")  # which is for distilled models, and may be asked for
DISTANCE: Final = "Fréchet distance"
OBEYED: Final = "caption obeyed"


def solvers(model: str, asked: Wishes) -> Study:
    """Every solver without added noise where it can do without, at the same seeds and the model's own guidance."""
    names, samplings = asked.solvers or USUAL, asked.samplings or STEPS
    for name in names:
        if name not in SOLVERS:
            raise SpecError(f"study solvers: unknown solver {name!r}{did_you_mean(name, SOLVERS)}")
    against = Against(data=data_of(model, asked), most=asked.real)
    cells: list[Cell] = [
        Quality(
            name=_cell(name, steps),
            model=model,
            against=against,
            count=asked.count,
            sampling=Sampling(solver=name, steps=steps, eta=0.0, seed=asked.seed),
        )
        for steps in samplings
        for name in names
    ]
    return Study(
        "solvers",
        f"How many steps does each solver need to draw what {model} can draw?",
        cells,
        lambda found: _read(found, names, samplings, of=model),
    )


def evaluations(solver: str, steps: int) -> int:
    """Of the network: Heun asks twice but for the last step, PLMS once more at the first."""
    return {"heun": 2 * steps - 1, "plms": steps + 1}.get(solver, steps)


def _cell(solver: str, steps: int) -> str:
    return f"{solver.replace('+', 'p')}-{steps}"


def _read(found: Mapping[str, Found], names: Sequence[str], samplings: Sequence[int], *, of: str) -> Reading:
    obeyed = any(value_of(each, OBEYED) is not None for each in found.values())
    measures = {"distance": DISTANCE, **({"obeyed": OBEYED} if obeyed else {})}
    rows = [
        (
            name,
            str(steps),
            str(evaluations(name, steps)),
            told(found[_cell(name, steps)], DISTANCE),
            short(value_of(found[_cell(name, steps)], "kernel distance")),
            *([told(found[_cell(name, steps)], OBEYED)] if obeyed else []),
        )
        for name in names
        for steps in samplings
        if _cell(name, steps) in found
    ]
    head = ("solver", "steps", "evaluations", DISTANCE, "kernel distance", *(["caption obeyed"] if obeyed else []))
    return Reading(
        tables=(Table(f"Solvers, model {of}", head, rows), published.SOLVERS),
        plots={
            name: Figure(
                f"{measure} against evaluations of the network",
                "evaluations of the network for each picture",
                measure,
                [Series(each, _line(found, each, samplings, measure=measure)) for each in names],
            )
            for name, measure in measures.items()
        },
        notes=asks(found),
    )


def _line(
    found: Mapping[str, Found], solver: str, samplings: Sequence[int], *, measure: str
) -> list[tuple[float, float]]:
    known = ((steps, value_of(found.get(_cell(solver, steps)), measure)) for steps in sorted(samplings))
    return [(evaluations(solver, steps), value) for steps, value in known if value is not None]

"""Quality against steps for every solver, of a model that exists; the paper shows DDIM alone (Figure 7)."""

from collections.abc import Mapping
from typing import Final, final

import torch

from darkroom.core.conditions import Conditions
from darkroom.core.errors import SpecError, did_you_mean
from darkroom.core.shapes import Latent, Time
from darkroom.diffusion.denoiser import AnyDiffusion, Network
from darkroom.diffusion.solvers.choose import SOLVERS
from darkroom.diffusion.walk import walk
from darkroom.pages.figure import Figure, Series
from darkroom.studies import published
from darkroom.studies.cells import Against, Cell, Found, Quality, Sampling, Study
from darkroom.studies.models import asks, data_of
from darkroom.studies.reading import Reading, Table, short, told, value_of
from darkroom.studies.wishes import DRAWS, Wishes
from darkroom.tasks.load import outline

TAKES: Final = (*DRAWS, "solvers", "samplings")
STEPS: Final = (5, 10, 20, 50)
USUAL: Final = tuple(each for each in SOLVERS if each != "lcm")  # which is for distilled models, and may be asked for
DISTANCE: Final = "Fréchet distance"
OBEYED: Final = "caption obeyed"


def solvers(model: str, asked: Wishes) -> Study:
    """Every solver without added noise where it can do without, at the same seeds and the model's own guidance.

    `InputError` for more steps than the model has times.
    """
    names, samplings = asked.solvers or USUAL, asked.samplings or STEPS
    for name in names:
        if name not in SOLVERS:
            raise SpecError(f"study solvers: unknown solver {name!r}{did_you_mean(name, SOLVERS)}")
    against, known = Against(data=data_of(model, asked), most=asked.real), outline(model)
    asks_for = {(name, steps): evaluations(known, solver=name, steps=steps) for name in names for steps in samplings}
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
        lambda found: _read(found, asks_for, of=model),
    )


@final
class _Counted:
    """A model of nothing that counts how often it is asked."""

    def __init__(self, model: AnyDiffusion) -> None:
        self.schedule, self.prediction, self.asked = model.schedule, model.prediction, 0
        self.network: Network = self._answer

    def _answer(self, x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        self.asked += 1
        return torch.zeros_like(x_t)


def evaluations(model: AnyDiffusion, *, solver: str, steps: int) -> int:
    """How often a walk asks this model's denoiser: counted, for where a formula asks twice depends on the noise."""
    counted = _Counted(model)
    for _ in walk(counted, torch.zeros(1, 1, 1, 1), solver=solver, steps=steps):
        pass
    return counted.asked


def _cell(solver: str, steps: int) -> str:
    return f"{solver.replace('+', 'p')}-{steps}"


def _read(found: Mapping[str, Found], asks_for: Mapping[tuple[str, int], int], *, of: str) -> Reading:
    obeyed = any(value_of(each, OBEYED) is not None for each in found.values())
    measures = {"distance": DISTANCE, **({"obeyed": OBEYED} if obeyed else {})}
    rows = [
        (
            name,
            str(steps),
            str(count),
            told(found[_cell(name, steps)], DISTANCE),
            short(value_of(found[_cell(name, steps)], "kernel distance")),
            *([told(found[_cell(name, steps)], OBEYED)] if obeyed else []),
        )
        for (name, steps), count in asks_for.items()
        if _cell(name, steps) in found
    ]
    head = ("solver", "steps", "evaluations", DISTANCE, "kernel distance", *(["caption obeyed"] if obeyed else []))
    return Reading(
        tables=(Table(f"Solvers, model {of}", head, rows), published.SOLVERS),
        plots={
            name: Figure(
                f"{measure} against evaluations of the denoiser",
                "evaluations of the denoiser for each picture",
                measure,
                [
                    Series(each, _line(found, asks_for, solver=each, measure=measure))
                    for each in dict.fromkeys(name for name, _ in asks_for)
                ],
            )
            for name, measure in measures.items()
        },
        notes=(
            "An evaluation is one pass through the network, or two where guidance compares with none.",
            *asks(found),
        ),
    )


def _line(
    found: Mapping[str, Found], asks_for: Mapping[tuple[str, int], int], *, solver: str, measure: str
) -> list[tuple[float, float]]:
    known = (
        (count, value_of(found.get(_cell(name, steps)), measure))
        for (name, steps), count in asks_for.items()
        if name == solver
    )
    return [(float(count), value) for count, value in known if value is not None]

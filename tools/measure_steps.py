"""Do few steps of a text model's own solver draw what many steps of DDIM draw? Obedience and the judge's distance.

    python tools/measure_steps.py shapes --steps 10 --beside 250 --count 512

Both sets are asked for by the same captions of test scenes, from the same noise, at the model's own guidance, and are
compared with the test pictures; few steps are told within if a figure lies in the other's interval (of 95 %: Wilson's
for shares, else a bootstrap). Run again with the same words, what was interrupted goes on.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from darkroom.cli.evaluate_sets import Wanted, evaluate_whole
from darkroom.evaluate.card import Card, Figure
from darkroom.tasks.load import load
from darkroom.tasks.model import Model

MEASURES: Final = ("caption obeyed", "Fréchet distance", "kernel distance")


def measured(model: Model, options: argparse.Namespace, sample: dict[str, Any]) -> dict[str, Figure]:
    """The figures of a set drawn so, by measure."""
    wanted = Wanted(
        data=options.data,
        features=("judge",),
        split=None,
        against=None,
        count=options.count,
        batch=options.batch,
        out=options.out,
        device=options.device,
        precision=options.precision,
    )
    unsaid = {"seed": 0, "solver": None, "steps": None, "eta": None, "guidance": None, "match": None}
    card: Card = evaluate_whole(model, wanted, sample=unsaid | sample, masks=None).card
    return {each.measure: each for each in card.figures if each.measure in MEASURES}


def told(few: Figure, many: Figure) -> dict[str, Any]:
    """Both figures with their intervals, and whether the first lies in the second's."""
    inside = many.low is not None and many.high is not None and many.low <= few.value <= many.high
    return {"few": [few.value, few.low, few.high], "many": [many.value, many.low, many.high], "within": inside}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--steps", type=int, default=10, help="of the model's own solver, unless another is named")
    parser.add_argument("--solver", default=None)
    parser.add_argument("--eta", type=float, default=None)
    parser.add_argument("--beside", type=int, default=250, help="of DDIM without noise")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path("evaluations/steps"), help="folder for pictures and features")
    options = parser.parse_args()
    model = load(options.model, device=options.device, dtype=options.precision)
    few = measured(model, options, {"steps": options.steps, "solver": options.solver, "eta": options.eta})
    many = measured(model, options, {"solver": "ddim", "steps": options.beside, "eta": 0.0})
    found = {measure: told(few[measure], many[measure]) for measure in MEASURES if measure in few}
    for measure, each in found.items():
        sides = (f"{value:.4g} ({low:.4g} to {high:.4g})" for value, low, high in (each["few"], each["many"]))
        print(f"{measure:18} {' beside '.join(sides)}  {'within' if each['within'] else 'outside'}")
    print(json.dumps({"steps": options.steps, "beside": options.beside, "count": options.count, **found}))


if __name__ == "__main__":
    main()

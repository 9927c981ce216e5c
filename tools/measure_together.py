"""Is each of several conditions obeyed as well as by the model that takes it alone, on the same test scenes?

    python tools/measure_together.py shapes-text-map shapes shapes-semantic --count 512

Every model is asked for the same scenes by all that it takes of them, and read back.
"""

import argparse
import json

import torch

import darkroom
from darkroom.core.errors import DarkroomError
from darkroom.core.seeds import generator
from darkroom.core.spec import parse
from darkroom.data.sources import CANVAS, Subset, open_data
from darkroom.evaluate.conditions import evaluate_conditions
from darkroom.nn.features import judge
from darkroom.tasks.held_out import Spoiling


def measure(names: list[str], *, count: int, batch: int, precision: str) -> None:
    """Print a row for each model."""
    test = open_data("shapes", seed=0, size=CANVAS).test
    rows = torch.randperm(len(test), generator=generator(0, 0, purpose="evaluate/count"))[:count]
    scenes = Subset(test, tuple(sorted(rows.tolist())))
    found: dict[str, object] = {}
    for name in names:
        model = darkroom.load(name, device="cpu", dtype=precision)
        report = evaluate_conditions(
            model, scenes, spoiling=parse(Spoiling, {}, where="scenes"), judge=judge(), sample={"seed": 0}, batch=batch
        )
        found[name] = report.ways["read back"]
        figures = ", ".join(f"{key} {value:.4f}" for key, value in report.ways["read back"].items())
        print(f"{name:<24} {figures}", flush=True)
    print(json.dumps({"scenes": count, "read_back": found}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", help="steered by captions, maps, boxes, or several of them")
    parser.add_argument("--count", type=int, default=512, help="of scenes")
    parser.add_argument("--batch", type=int, default=64, help="of pictures taken together")
    parser.add_argument("--precision", default="float32", help="float32 or bfloat16")
    options = parser.parse_args()
    try:
        measure(options.models, count=options.count, batch=options.batch, precision=options.precision)
    except DarkroomError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

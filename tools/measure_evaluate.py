"""What an evaluation holds in memory, and how it fares when it is killed again and again.

    python tools/measure_evaluate.py memory --count 50000             # features and logits as wide as Inception's
    python tools/measure_evaluate.py memory --count 50000 --model untrained       # drawn first, as a model's are
    python tools/measure_evaluate.py memory --count 50000 --features judge --model runs/tiny-uncond-0
    python tools/measure_evaluate.py kills MODEL DATA --kills 10 --count 64 --steps 5

memory: as many scenes of 64 px on both sides, in a process of its own; printed is the most it held beyond what it held
with its networks loaded. Some minutes for 50,000, and 1.3 GB in the folder of temporary files; `untrained` is a
miniature of any weights on squares of pixels, which draws nearly as quickly as scenes are drawn.
kills: `kill -9` at random moments, then the card against that of an undisturbed evaluation.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.cli.main import main as darkroom
from darkroom.core.compute import sampling_compute
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec
from darkroom.evaluate.judges import present_judge
from darkroom.evaluate.lots import Asking, Drawn, OfSource
from darkroom.evaluate.networks import open_network
from darkroom.evaluate.quality import Measuring, Pairs, measure
from darkroom.metrics.extractors import FeatureNetwork
from darkroom.recipes.given import on_pixels
from darkroom.recipes.read import recipe
from darkroom.studies.measure import untrained
from darkroom.tasks.load import load
from darkroom.tasks.model import Model

MADE, REAL = 20_261_128, 20_261_129  # seeds of scenes
PAGE = os.sysconf("SC_PAGE_SIZE")


class Wide:
    """A stand-in as wide as Inception, at no cost: random projections of small pictures."""

    name, hash = "wide", "random"
    preprocessing: Mapping[str, Any] = {"size": "means of 8 x 8 fields"}

    def __init__(self, width: int = 2048, classes: int = 1008) -> None:
        draw = torch.Generator().manual_seed(0)
        self._features, self._classes = (torch.randn(192, each, generator=draw) for each in (width, classes))

    def look(self, images: Tensor) -> dict[str, Tensor]:
        """Features and logits."""
        fields = torch.nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)
        return {"features": (fields @ self._features).relu(), "logits": fields @ self._classes}


def held() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def memory(options: argparse.Namespace) -> None:
    """One evaluation; prints bytes and seconds."""
    compute = sampling_compute("cpu")
    network: FeatureNetwork = Wide() if options.features is None else open_network(options.features, compute)[0]
    real = OfSource(ShapesSource(REAL, count=options.count), TransformSpec(size=64))
    with tempfile.TemporaryDirectory() as folder:
        made: OfSource | Drawn = OfSource(ShapesSource(MADE, count=options.count), TransformSpec(size=64))
        pairs = None
        if options.model is not None:
            asking = Asking(_model(options.model), {"steps": options.steps}, count=options.count)
            made = Drawn.of(asking, folder=Path(folder), batch=64)
            pairs = Pairs(asking, present_judge(compute))
        before, began = held(), time.monotonic()
        card = measure(
            Measuring(
                subject={"kind": "pictures", "name": "scenes"},
                made=made,
                real=real,
                networks=[network],
                folder=Path(folder),
                compute=compute,
                pairs=pairs,
            )
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = round(time.monotonic() - began, 1)
    figures = {each.measure: each.value for each in card.figures}
    print(json.dumps({"pictures": options.count, "bytes": peak - before, "seconds": seconds, "figures": figures}))


def _model(name: str) -> Model:
    if name == "untrained":
        return untrained(on_pixels(recipe("tiny-uncond", overrides=["data.size=64"]), patches=True), device="cpu")
    return load(name, device="cpu")


def evaluate(words: Sequence[str]) -> int:
    """`darkroom evaluate` in a process of its own; answers its number."""
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os._exit(darkroom(["evaluate", *words]))
    return child


def files(folder: Path) -> int:
    """How many shards there are yet."""
    return len(list(folder.rglob("*.safetensors")))


def card_of(folder: Path) -> dict[str, Any]:
    """The card without its times."""
    card = json.loads((folder / "card.json").read_text())
    return {name: value for name, value in card.items() if name != "time"}


def kills(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Ends with an error where the cards differ."""
    torch.set_num_threads(1)
    draw, given = random.Random(options.seed), ["--device", "cpu", *words]
    with tempfile.TemporaryDirectory() as place:
        calm, stormy = Path(place) / "calm", Path(place) / "stormy"
        if os.waitpid(evaluate([*given, "--out", str(calm)]), 0)[1]:
            sys.exit("the evaluation ended with an error")
        for done in range(options.kills):
            wanted = max(files(stormy), round(files(calm) * (done + draw.random()) / options.kills))
            child = evaluate([*given, "--out", str(stormy)])
            while files(stormy) < wanted:
                if os.waitpid(child, os.WNOHANG)[0]:
                    sys.exit(f"the evaluation ended before {wanted} files and could not be killed")
                time.sleep(0.002)
            time.sleep(draw.random() * options.wait)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if (stormy / "card.json").exists():
            sys.exit("it came to its end before the last kill; give a larger --count")
        os.waitpid(evaluate([*given, "--out", str(stormy)]), 0)
        if card_of(calm) != card_of(stormy):
            sys.exit("the cards differ")
        print(f"{options.kills} kills, {files(calm)} files; the same card but for its times")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    modes = parser.add_subparsers(dest="mode", required=True)
    one = modes.add_parser("memory")
    one.add_argument("--count", type=int, default=50_000)
    one.add_argument("--features", help="judge, inception, or a path")
    one.add_argument("--model", help="draws the pictures: a model, or untrained; scenes without")
    one.add_argument("--steps", type=int, default=1)
    other = modes.add_parser("kills")
    other.add_argument("--kills", type=int, default=10)
    other.add_argument("--seed", type=int, default=0)
    other.add_argument("--wait", type=float, default=0.05, help="seconds after a file appeared, at most")
    options, words = parser.parse_known_args()
    if options.mode == "memory":
        memory(options)
    else:
        kills(options, words)


if __name__ == "__main__":
    main()

"""How far losses differ when one training is shared by several processes (gloo, one machine).

python tools/measure_ranks.py                     # 1, 2 and 4 processes, pieces, and 2 -> 1 -> 2 on the way
python tools/measure_ranks.py --precision float32 --learning-rate 1e-5
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from darkroom.core.record import read_lines

STAGES = ("first_stage", "denoiser")


def command(folder: Path, *, ranks: int, options: argparse.Namespace, pieces: bool = False) -> list[str]:
    """`darkroom train` of an adversarial first stage on a codebook and a denoiser, both with dropout."""
    changes = ["data.count=300", "first_stage.loss.perceptual_weight=0.2", "first_stage.model.dropout=0.1"]
    changes += ["first_stage.loss.adversary={start: 10, layers: 2, channels: 16}", "denoiser.network.dropout=0.1"]
    wanted = [f"steps={options.steps}", "warmup=10", "log_every=1", f"precision={options.precision}", "batch=8"]
    wanted += ["micro=2"] if pieces else []
    wanted += [] if options.learning_rate is None else [f"learning_rate={options.learning_rate}"]
    changes += [f"{stage}.train.{each}" for stage in STAGES for each in wanted]
    changes += ["denoiser.sample.count=2", "denoiser.sample.steps=2"]
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
    return [*start, "darkroom.cli.main", "train", "tiny-vq", *changes, "--device", "cpu", "--out", str(folder)]


def carry_out(words: list[str], folder: Path, *, until: tuple[str, int] | None = None) -> None:
    """To the end, or until a stage has made so many steps and TERM has stopped it."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while until is not None and process.poll() is None and reached(folder, until[0]) < until[1]:
            time.sleep(0.05)
        if until is not None:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
        if until is None and process.returncode:
            sys.exit(f"the run ended with {process.returncode}: {said[-800:]}")


def reached(folder: Path, stage: str) -> int:
    """The last step that a stage logged."""
    return max((line["step"] for line in read_lines(folder / stage / "log.jsonl")), default=0)


def curves(folder: Path) -> dict[str, list[float]]:
    """The losses of each stage, step by step."""
    logs = {stage: read_lines(folder / stage / "log.jsonl") for stage in STAGES}
    return {stage: [line["loss"] for line in lines if "loss" in line] for stage, lines in logs.items()}


def furthest(one: list[float], other: list[float]) -> float:
    """The largest difference of two curves, as a share of the loss."""
    return max(abs(a - b) / abs(a) for a, b in zip(one, other, strict=True))


def main() -> None:
    """All ways to share a training, and how far their losses are from those of one process."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--steps", type=int, default=50)
    asked.add_argument("--precision", choices=("float32", "float64"), default="float64")
    asked.add_argument("--learning-rate", type=float, help="of both stages; the recipe's without")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as place:
        alone, pieces, moved = (Path(place, name) for name in ("alone", "pieces", "moved"))
        carry_out(command(alone, ranks=1, options=options), alone)
        carry_out(command(pieces, ranks=1, options=options, pieces=True), pieces)
        found = {"one process, pieces of 2 pictures": curves(pieces)}
        for ranks in (2, 4):
            folder = Path(place, str(ranks))
            carry_out(command(folder, ranks=ranks, options=options), folder)
            found[f"{ranks} processes"] = curves(folder)
        middle = options.steps // 3
        carry_out(command(moved, ranks=2, options=options), moved, until=("first_stage", middle))
        carry_out(command(moved, ranks=1, options=options), moved, until=("denoiser", middle))
        carry_out(command(moved, ranks=2, options=options), moved)
        found["2, then 1, then 2"] = curves(moved)
        wanted = curves(alone)
        for name, each in found.items():
            far = {stage: float(f"{furthest(wanted[stage], each[stage]):.1e}") for stage in STAGES}
            print(f"{name}: {json.dumps(far)}", flush=True)


if __name__ == "__main__":
    main()

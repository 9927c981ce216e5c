"""How a run fares that is killed again and again: `kill -9` at random moments, then the weights against a calm run's.

python tools/measure_resume.py --kills 20                 # an adversarial first stage on a codebook
python tools/measure_resume.py --kills 20 --run text      # both stages of tiny-text, as it is
python tools/measure_resume.py --kills 51 --run all       # both stages, shorter: text and holes on KL, nothing on VQ
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from darkroom.checkpoint.store import load_model
from darkroom.core.record import read_lines

STAGES = ("first_stage", "denoiser")
VQ_STEPS = 400
RUNS = {
    "vq": (
        "tiny-vq",
        "denoiser=null",
        "data.count=400",
        "first_stage.model.bottleneck.codes=64",
        "first_stage.loss.perceptual_weight=0.2",
        "first_stage.loss.adversary={start: {window: 20, gain: 0.5}, layers: 2, channels: 16}",
        f"first_stage.train.steps={VQ_STEPS}",
        "first_stage.train.warmup=10",
        "first_stage.train.log_every=1",
        "first_stage.train.save_every=7",
        "first_stage.train.sample_every=150",
    ),
    "text": ("tiny-text", "first_stage.train.log_every=1", "denoiser.train.log_every=1"),
}
SHORT = (
    "data.count=300",
    "first_stage.loss.perceptual_weight=0.2",
    "first_stage.loss.adversary={start: {window: 20, gain: 0.5}, layers: 2, channels: 16}",
    *(
        f"{stage}.train.{change}"
        for stage in STAGES
        for change in ("steps=150", "warmup=10", "log_every=1", "save_every=7", "sample_every=60")
    ),
    "denoiser.sample.count=4",
    "denoiser.sample.steps=4",
)
ALL = ("short-text", "short-inpaint", "short-vq")
RUNS |= {name: (name.replace("short", "tiny"), *SHORT) for name in ALL}


def command(run: str, folder: Path) -> list[str]:
    """The whole process that is started and killed."""
    return [sys.executable, "-m", "darkroom.cli.main", "train", *RUNS[run], "--device", "cpu", "--out", str(folder)]


def train(run: str, folder: Path) -> None:
    """Train to the end."""
    done = subprocess.run(command(run, folder), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the run ended with {done.returncode}: {done.stderr[-500:]}")


def train_and_kill(run: str, folder: Path, *, step: int, wait: float) -> None:
    """Train on until so many steps of all stages are logged, and so many seconds longer."""
    with subprocess.Popen(command(run, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while reached(folder) < step and process.poll() is None:
            time.sleep(0.02)
        time.sleep(wait)
        if process.poll() is not None:
            sys.exit(f"the run ended before step {step} and could not be killed")
        process.send_signal(signal.SIGKILL)


def reached(folder: Path) -> int:
    """How many steps were logged, of one stage after the other."""
    logs = [read_lines(folder / stage / "log.jsonl") for stage in STAGES]
    return sum(max((line["step"] for line in lines), default=0) for lines in logs)


def disturb(run: str, folder: Path, *, kills: int, total: int, seed: int) -> None:
    """Kill the run so many times, at random moments of its `total` steps, then let it end."""
    dice = random.Random(seed)
    for step in sorted(dice.randrange(total * 9 // 10) for _ in range(kills)):
        train_and_kill(run, folder, step=step, wait=dice.uniform(0, 0.3))
        print(f"killed at step {reached(folder)}", flush=True)
    train(run, folder)


def main() -> None:
    """Both runs, and the verdict."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--kills", type=int, default=20)
    asked.add_argument("--run", choices=sorted([*RUNS, "all"]), default="vq")
    asked.add_argument("--seed", type=int, default=0)
    options = asked.parse_args()
    runs = ALL if options.run == "all" else (options.run,)
    for number, run in enumerate(runs):
        measure(run, kills=options.kills // len(runs), seed=options.seed + number)


def measure(run: str, *, kills: int, seed: int) -> None:
    """A calm run and a disturbed one, and whether they end alike."""
    with tempfile.TemporaryDirectory() as place:
        calm, killed = Path(place, "calm"), Path(place, "killed")
        train(run, calm)
        disturb(run, killed, kills=kills, total=reached(calm), seed=seed)
        first, second = (load_model(folder / "model.safetensors").state for folder in (calm, killed))
        same = sum(torch.equal(first[name], second[name]) for name in first)
        print(f"the run {run} of {reached(calm)} steps was killed {kills} times{_adversary(calm)}")
        print(f"{same} of {len(first)} tensors are equal bit for bit", flush=True)


def _adversary(folder: Path) -> str:
    lines = read_lines(folder / "first_stage" / "log.jsonl")
    began = next((line["step"] for line in lines if "opponent" in line), None)
    return "" if began is None else f"; the adversary began at step {began}"


if __name__ == "__main__":
    main()

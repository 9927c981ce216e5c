"""What plans say, beside what trainings then take: parameters, optimiser, activations, seconds of each stage.

python tools/measure_plan.py                                      # five miniatures, 200 steps of each stage
python tools/measure_plan.py tiny-text shapes-class --steps 50
python tools/measure_plan.py shapes-class --gpu h200              # and, on such a GPU, a step of the denoiser there
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from darkroom.checkpoint.store import load_model
from darkroom.conditioning.conditioner import Conditioning
from darkroom.core.hollow import hollow
from darkroom.core.record import read_log
from darkroom.diffusion.model import LatentDiffusion
from darkroom.network.unet import UNet
from darkroom.recipes.cluster import plan_for
from darkroom.recipes.counted import blank, step_of
from darkroom.recipes.describe import latent_shape
from darkroom.recipes.pace import denoiser_pace
from darkroom.recipes.read import recipe
from darkroom.recipes.schema import Recipe

FIVE = ("tiny-uncond", "tiny-class", "tiny-text", "tiny-layout", "tiny-semantic")
PARTS = {"network": "network.", "conditioner": "conditioning.", "first_stage": "first_stage."}
BATCH = 2


def command(name: str, *more: str, steps: int) -> list[str]:
    """`darkroom train` of a recipe, both stages so long."""
    changes = ["data.count=400"]
    for stage in ("first_stage", "denoiser"):
        changes += [f"{stage}.train.{each}" for each in (f"steps={steps}", f"sample_every={steps}", "log_every=10")]
    return [sys.executable, "-m", "darkroom.cli.main", "train", name, *changes, "--device", "cpu", *more]


def answered(words: list[str]) -> str:
    """What a command prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the command ended with {done.returncode}: {done.stderr[-800:]}")
    return done.stdout


def compared(name: str, *, steps: int) -> dict[str, Any]:
    """A plan and a run of the same command."""
    plan = json.loads(answered(command(name, "--plan", "--json", steps=steps)))
    with tempfile.TemporaryDirectory() as place:
        answered(command(name, "--out", place, steps=steps))
        run = Path(place)
        made = recipe(run / "recipe.yaml")
        state = load_model(run / "model.safetensors").state
        moments = torch.load(run / "denoiser" / "state.pt", weights_only=True)["optimizer"]["state"].values()
        taken = {stage: read_log(run / stage / "log.jsonl") for stage in plan["stages"]}
    held = sum(value.nbytes for each in moments for value in each.values() if value.ndim)
    seconds = {stage: [line["seconds"] for line in lines if "loss" in line][-1] for stage, lines in taken.items()}
    measured, planned = kept(made) / BATCH, step_of(made).kept
    return {
        "parameters": {part: [plan["parameters"][part], each] for part, each in counted(made, state).items()},
        "bytes of moments": [plan_for(made, gpus=1, gpu="h200")["memory"]["optimizer"], held],
        "bytes of activations of a picture": [planned, round(measured)],
        "activations, planned / measured": round(planned / measured, 3),
        "seconds, planned / taken": {
            stage: round(plan["stages"][stage]["seconds"] / each, 2) for stage, each in seconds.items()
        },
    }


def counted(made: Recipe, state: Mapping[str, Tensor]) -> dict[str, int]:
    """Values of the parameters in a model file, by part."""
    spec = made.model_spec()
    assert spec is not None
    with hollow():
        names = [name for name, _ in LatentDiffusion(spec).named_parameters()]
    return {part: sum(state[name].numel() for name in names if name.startswith(start)) for part, start in PARTS.items()}


def kept(made: Recipe) -> int:
    """Bytes that a real forward pass of the denoiser, in float32, left allocated."""
    model, latent = made.model_spec(), latent_shape(made)
    assert model is not None
    network, conditioning = UNet(model.network).train(), Conditioning(model.conditioners).train()
    fields = blank(model, latent=latent, batch=BATCH)
    x, t = torch.randn(BATCH, *latent), torch.zeros(BATCH, dtype=torch.long)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        output = network(x, t, conditioning(fields))
        gc.collect()
    del output
    return sum(each.self_cpu_memory_usage for each in seen.key_averages())


def on_gpu(name: str, gpu: str) -> dict[str, Any]:
    """A step of the denoiser here, and as it is planned for one GPU of this name."""
    made = recipe(name)
    plan = plan_for(made, gpus=1, gpu=gpu)
    torch.cuda.reset_peak_memory_stats()
    taken = denoiser_pace(made, device="cuda")
    most, memory = torch.cuda.max_memory_allocated(), plan["memory"]
    averages = memory.get("averages", 0)  # none are kept while steps are timed
    return {
        "milliseconds of a step": [round(1e3 * plan["seconds_a_step"]["working"], 2), round(1e3 * taken, 2)],
        "MB": [round((sum(memory.values()) - averages) / 1e6, 1), round(most / 1e6, 1)],
    }


def main() -> None:
    """Each recipe; of each pair the first is planned, the second measured."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("recipes", nargs="*", default=FIVE)
    asked.add_argument("--steps", type=int, default=200)
    asked.add_argument("--gpu", help="the name that --plan knows the GPU of this machine by")
    options = asked.parse_args()
    for name in options.recipes:
        found = compared(name, steps=options.steps) if options.gpu is None else on_gpu(name, options.gpu)
        print(f"{name}: {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()

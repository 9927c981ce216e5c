"""Train the perceptual network (`small`) or the judging network (`judge`) from free small data sets, on one thread.

python tools/train_features.py --network small --data ../shared/data --steps 3000 --out small.safetensors
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from feature_corpus import Pool, corpus, sample
from feature_tasks import ManyLabels, SamePicture
from torch import Tensor, nn

from darkroom.nn.feature_file import Features, fresh, save_features
from darkroom.nn.pyramids import PlainSpec, ResidualSpec

SPACE = 40  # pixels of a crop with the margin that degradations draw on
RANKED_EVERY = 2  # steps
RANKED = ("bccd_128", "sign_digits_64", "emoji_64", "leaves", "textured leaves")
SAVE_EVERY = 250
SEEDS = {"small": 1, "judge": 2}  # added to --seed: the networks see different pictures in a different order


def main() -> None:
    """Train, save now and then, and say how it goes."""
    asked = _arguments()
    torch.set_num_threads(1)
    seed = 1000 * asked.seed + SEEDS[asked.network]
    torch.manual_seed(seed)
    pools = corpus(asked.data, procedural_count=asked.procedural, scene_count=asked.scenes, seed=seed)
    features, task = _task(asked.network, sources=len(pools))
    optimizer = torch.optim.AdamW(task.parameters(), lr=asked.rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, asked.rate, total_steps=asked.steps, pct_start=0.1)
    task.to(memory_format=torch.channels_last)
    started, running = time.monotonic(), {}
    for step in range(1, asked.steps + 1):
        losses = _step(task, optimizer, pools=pools, seed=seed + 7919 * step, batch=asked.batch)
        schedule.step()
        running = running | {name: 0.98 * running.get(name, value) + 0.02 * value for name, value in losses.items()}
        if step % 50 == 0 or step == asked.steps:
            words = " ".join(f"{name} {value:.3f}" for name, value in running.items())
            print(f"{step} {time.monotonic() - started:.0f} s {words}", flush=True)
        if step % SAVE_EVERY == 0 or step == asked.steps:
            save_features(asked.out, _trained(features, task, pools=pools, steps=step, seed=asked.seed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=["small", "judge"], required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the free data sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--procedural", type=int, default=700, help="pictures per procedural family")
    parser.add_argument("--scenes", type=int, default=1500)
    return parser.parse_args()


def _task(name: str, *, sources: int) -> tuple[Features, ManyLabels | SamePicture]:
    if name == "small":
        spec = PlainSpec()
        features = fresh(name, spec)
        return features, ManyLabels(features.network, widths=spec.widths, sources=sources, eps=spec.eps)
    spec = ResidualSpec()
    features = fresh(name, spec)
    return features, SamePicture(features.network, widths=spec.widths, sources=sources)


def _step(
    task: ManyLabels | SamePicture, optimizer: torch.optim.Optimizer, *, pools: Sequence[Pool], seed: int, batch: int
) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    crops = sample(pools, count=batch, size=SPACE, generator=generator, mixed=task.mixed)
    ranked = [pool for pool in pools if pool.name in RANKED]
    pairs = sample(ranked, count=8, size=SPACE, generator=generator).pictures if seed % RANKED_EVERY else None
    losses: dict[str, Tensor] = task(crops, pairs, generator)
    optimizer.zero_grad(set_to_none=True)
    sum(losses.values()).backward()
    nn.utils.clip_grad_norm_(task.parameters(), 1.0)
    optimizer.step()
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _trained(
    features: Features, task: ManyLabels | SamePicture, *, pools: Sequence[Pool], steps: int, seed: int
) -> Features:
    heads = tuple(task.heads()) if isinstance(task, ManyLabels) else features.heads
    card = {
        "task": (task.__doc__ or "").splitlines()[0],
        "data": {pool.name: len(pool.pictures) for pool in pools},
        "steps": steps,
        "seed": seed,
        "licence": "Apache-2.0",
    }
    return Features(features.name, features.spec, features.network, heads, card)


if __name__ == "__main__":
    main()

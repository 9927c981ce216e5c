"""Fit the weights of a trained network's taps, so that its distance minds degradations in the order people do.

python tools/calibrate_features.py small.safetensors --data ../shared/data --out small.safetensors

Only the weights of the taps move, by the ranking loss of `ranking.py` on crops of photographs and dead leaves from the
train splits; they stay positive. At last they are scaled so that white noise of 24 dB is 0.2 away on average.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from degradations import at_psnr, trim
from feature_corpus import Pool, corpus, sample
from jaxtyping import Float
from ranking import Trial, contrasts, ranking_loss, trial
from torch import Generator, Tensor

from darkroom.nn.feature_file import Features, load_features, save_features
from darkroom.nn.taps import tap_distance

SPACE = 64  # pixels of a crop with its margin
RANKED = ("bccd_128", "sign_digits_64", "emoji_64", "leaves", "textured leaves")
NOISY = 0.2
STEPS, RATE, PULL = 400, 0.05, 1e-3


@final
@dataclass(frozen=True, eq=False)
class Measured:
    """A trial, and the squared differences of every channel of every tap in it."""

    trial: Trial
    parts: tuple[Float[Tensor, "n c"], ...]


def main() -> None:
    """Read, fit, write, and say what each tap contributes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(asked.seed)
    every = corpus(asked.data, procedural_count=200, scene_count=1, seed=asked.seed)
    pools = [pool for pool in every if pool.name in RANKED]
    features = load_features(asked.file)
    fitted = calibrated(features, pools, trials=asked.trials, generator=generator)
    save_features(asked.out, fitted)


@torch.no_grad()
def _measure(features: Features, pools: Sequence[Pool], *, generator: Generator) -> Measured:
    pairs = sample(pools, count=15, size=SPACE, generator=generator).pictures
    made = trial(pairs, generator=generator)
    return Measured(made, tuple(contrasts(features.network, made, eps=features.spec.eps)))


def calibrated(features: Features, pools: Sequence[Pool], *, trials: int, generator: Generator) -> Features:
    """The same network with fitted heads; prints the loss before and after."""
    measured = [_measure(features, pools, generator=generator) for _ in range(trials)]
    start = [_even(torch.cat([each.parts[tap] for each in measured])) for tap in range(len(features.heads))]
    moves = [torch.zeros_like(head, requires_grad=True) for head in start]
    optimizer = torch.optim.Adam(moves, lr=RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        each = measured[step % len(measured)]
        loss = ranking_loss(each.parts, _heads(start, moves), trial_=each.trial)
        pull = sum(move.square().sum() for move in moves)
        optimizer.zero_grad()
        (loss + PULL * pull).backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"{step} {float(loss.detach()):.4f}")
    heads = tuple(head.detach() for head in _heads(start, moves))
    card = {**features.card, "heads": "ranking of degradations at equal PSNR, on crops of train splits"}
    return _scaled(replace(features, heads=heads, card=card), pools, generator=generator)


def _even(parts: Float[Tensor, "n c"]) -> Float[Tensor, " c"]:
    """Weights with which every channel contributes the same on average."""
    return 1 / parts.mean(0).clamp(min=1e-3 * float(parts.mean())) / parts.shape[1]


def _heads(start: Sequence[Tensor], moves: Sequence[Tensor]) -> list[Tensor]:
    return [head * F.softplus(move * 4) / math.log(2) for head, move in zip(start, moves, strict=True)]


@torch.no_grad()
def _scaled(features: Features, pools: Sequence[Pool], *, generator: Generator) -> Features:
    """Weights scaled so that crops with white noise of 24 dB are `NOISY` away from their originals on average."""
    crops = sample(pools, count=100, size=SPACE, generator=generator).pictures
    noisy, _ = at_psnr("noise", crops, psnr=torch.full((len(crops),), 24.0), generator=generator)
    clean = features.network(trim(crops))
    away = tap_distance(features.network(noisy), clean, heads=features.heads, eps=features.spec.eps)
    return replace(features, heads=tuple(head * (NOISY / float(away.mean())) for head in features.heads))


if __name__ == "__main__":
    main()

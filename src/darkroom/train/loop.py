"""The one training loop: a generator for both stages; who watches, logs or saves stands in the caller's `for`."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from torch import Tensor

from darkroom.core.compute import Compute
from darkroom.core.errors import TrainingError
from darkroom.core.seeds import stream
from darkroom.train.optim import TrainSpec, learning_rate, parameters_of, set_learning_rate
from darkroom.train.state import Training

MOST_SKIPPED = 100
RECENT = 100
B = TypeVar("B")
Losses = Callable[[B], Mapping[str, Tensor]]
After = Callable[[Training], None]


@final
@dataclass(frozen=True)
class Progress:
    """After a step: its number (from 1), its values (`loss` among them), rate in pictures/s, seconds left.

    Both as the last `RECENT` steps went: what compiling and other work cost before says nothing of what is left.
    """

    step: int
    values: Mapping[str, Tensor]
    learning_rate: float
    rate: float
    seconds_left: float


def train(
    training: Training,
    batches: Iterator[B],
    *,
    losses: Losses[B],
    spec: TrainSpec,
    compute: Compute,
    seed: int = 0,
    after: After | None = None,
) -> Iterator[Progress]:
    """Optimise until `spec.steps`, from where `training` stands; `losses(batch)["loss"]` is minimised.

    With an opponent in `training`, `losses(batch)["opponent"]`, if it is there, is minimised by that one in the same
    step · after: called when weights have moved.
    A step whose loss or gradient is not finite changes nothing and is counted; more than 100 stop the run.
    """
    started, seconds, recent = time.monotonic(), training.seconds, deque([time.monotonic()], maxlen=RECENT + 1)
    while training.step < spec.steps:
        rate = learning_rate(spec, training.step)
        torch.manual_seed(stream(seed, training.step, purpose="dropout"))  # the one draw that torch makes by itself
        values, moved = _step(training, next(batches), losses=losses, rate=rate, spec=spec, compute=compute)
        if moved and after is not None:
            after(training)
        training.step += 1
        recent.append(time.monotonic())
        training.seconds = seconds + recent[-1] - started
        speed = (len(recent) - 1) / max(recent[-1] - recent[0], 1e-9)
        yield Progress(
            step=training.step,
            values=values,
            learning_rate=rate,
            rate=speed * spec.batch,
            seconds_left=(spec.steps - training.step) / speed,
        )


def _step(
    training: Training,
    batch: B,
    *,
    losses: Losses[B],
    rate: float,
    spec: TrainSpec,
    compute: Compute,
) -> tuple[Mapping[str, Tensor], bool]:
    """One step's values, and whether it moved anything."""
    optimizers = [training.optimizer] if training.opponent is None else [training.optimizer, training.opponent]
    with compute.autocast():
        values = losses(batch)
    with compute.gradients():
        for name in ("loss", "opponent"):
            if name in values:
                values[name].backward()
    norms = [torch.nn.utils.clip_grad_norm_(parameters_of(each), spec.clip) for each in optimizers]
    finite = all(math.isfinite(float(norm)) for norm in norms)
    if finite:
        for optimizer in optimizers:
            set_learning_rate(optimizer, rate)
            optimizer.step()
        if training.ema is not None:
            training.ema.update()
    else:
        _skip(training)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    return {name: value.detach() for name, value in values.items()} | {"gradient": norms[0].detach()}, finite


def _skip(training: Training) -> None:
    training.skipped += 1
    if training.skipped > MOST_SKIPPED:
        raise TrainingError(
            f"{training.skipped} steps had a loss or gradient that is not finite; the run stopped at step "
            f"{training.step} and its last good state is kept. Try a smaller learning rate"
        )

"""The only training loop, for both stages: a generator; whoever watches, logs or saves stands in the caller's `for`."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from torch import Tensor

from darkroom.core.compute import Compute
from darkroom.core.errors import TrainingError
from darkroom.core.parallel import Share, whole
from darkroom.core.seeds import stream
from darkroom.train.optim import TrainSpec, learning_rate, parameters_of, set_learning_rate
from darkroom.train.ranks import Ranks, Values, shares
from darkroom.train.state import Training

MOST_SKIPPED = 100
RECENT = 100
MINIMISED = ("loss", "opponent")
B = TypeVar("B")
Losses = Callable[[B], Mapping[str, Tensor]]
Pieces = Callable[[B, Sequence[Share]], Iterable[Mapping[str, Tensor]]]
After = Callable[[Training], None]


@final
@dataclass(frozen=True)
class Progress:
    """After a step: its number (from 1), its values (`loss` among them), rate in pictures/s, seconds left.

    Rate and seconds follow from the last `RECENT` steps, for compiling and other work before says nothing of the rest.
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
    pieces: Pieces[B] | None = None,
    ranks: Ranks | None = None,
) -> Iterator[Progress]:
    """Optimise until `spec.steps`, from where `training` stands; `losses(batch)["loss"]` is minimised.

    An opponent in `training` minimises `losses(batch)["opponent"]`, if that is there, in the same step · batches: this
    process's part of each · after: called when weights have moved · pieces: instead of `losses`, where a batch goes
    through in pieces or is shared with other processes: answers the values of each piece, and those of the step are
    their means · ranks: of this training, where it goes on after an earlier call.
    A step whose loss or gradient is not finite changes nothing and is counted; more than 100 stop the run. In float16
    such a step may only mean that the factor of the loss (`training.scaler`) was too large: the factor is halved, and
    the step is not counted.
    """
    work = _Work(training, losses=losses, pieces=pieces, ranks=ranks, spec=spec, compute=compute, seed=seed)
    started, seconds, recent = time.monotonic(), training.seconds, deque([time.monotonic()], maxlen=RECENT + 1)
    while training.step < spec.steps:
        rate = learning_rate(spec, training.step)
        values, moved = work.step(next(batches), rate=rate)
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


@final
class _Work:
    """What is done at every step of a training."""

    def __init__(
        self,
        training: Training,
        *,
        losses: Losses[B],
        pieces: Pieces[B] | None,
        ranks: Ranks | None,
        spec: TrainSpec,
        compute: Compute,
        seed: int,
    ) -> None:
        self.training, self.spec, self.compute, self.seed = training, spec, compute, seed
        self.shares, self.ranks = shares(spec), ranks or Ranks(training.module, training.beside)
        self.pieces = pieces or _in_one(losses)
        opponent = training.opponent
        self.optimizers = [training.optimizer] if opponent is None else [training.optimizer, opponent]

    def step(self, batch: B, *, rate: float) -> tuple[Values, bool]:
        """One step's values, and whether it moved anything."""
        training, values = self.training, self._differentiated(batch)
        scaler = training.scaler
        if scaler is not None:
            scaler.unscale(parameter for each in self.optimizers for parameter in parameters_of(each))
        clipped = (torch.nn.utils.clip_grad_norm_(parameters_of(each), self.spec.clip) for each in self.optimizers)
        norms = [whole(norm) for norm in clipped]
        finite = all(math.isfinite(float(norm)) for norm in norms)
        overflown = scaler is not None and scaler.learn(finite=finite)
        if finite:
            for optimizer in self.optimizers:
                set_learning_rate(optimizer, rate)
                optimizer.step()
            if training.ema is not None:
                training.ema.update()
            if training.averages is not None:
                training.averages.update()
        elif not overflown:
            _skip(training)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return values | {"gradient": norms[0].detach()}, finite

    def _differentiated(self, batch: B) -> dict[str, Tensor]:
        """Go forwards and backwards through every piece, adding up gradients; answers the mean of each value."""
        found: dict[str, list[Tensor]] = {}
        count, pieces, scaler = len(self.shares), iter(self.pieces(batch, self.shares)), self.training.scaler
        for number in range(count):
            torch.manual_seed(
                stream(self.seed, self.training.step, purpose="dropout")
            )  # the only draws of torch's own generator
            with self.ranks.more_follow(number < count - 1):
                with self.compute.autocast():
                    values = self.ranks.do(lambda: _kept(next(pieces)))
                with self.compute.gradients():  # both at once, for they share no weight, and DDP goes through one graph
                    loss = torch.stack([values[name] for name in MINIMISED if name in values]).sum().div(count)
                    (loss if scaler is None else scaler.scaled(loss)).backward()
            for name, value in values.items():
                found.setdefault(name, []).append(value.detach())
        return {name: torch.stack(each).mean(0) if len(each) > 1 else each[0] for name, each in found.items()}


def _kept(values: Values) -> Values:
    """Only what is minimised keeps its graph."""
    return {name: value if name in MINIMISED else value.detach() for name, value in values.items()}


def _in_one(losses: Losses[B]) -> Pieces[B]:
    def pieces(batch: B, shares: Sequence[Share]) -> Iterator[Mapping[str, Tensor]]:
        assert len(shares) == 1, "losses of a whole batch cannot tell those of its pieces"
        yield losses(batch)

    return pieces


def _skip(training: Training) -> None:
    training.skipped += 1
    if training.skipped > MOST_SKIPPED:
        raise TrainingError(
            f"{training.skipped} steps had a loss or gradient that is not finite; the run stopped at step "
            f"{training.step} and its last good state is kept. Try a smaller learning rate"
        )

"""A stage of training on the CPU, for tests that ask what a session does and not what is learnt."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from darkroom.core.compute import Compute
from darkroom.train.events import Event
from darkroom.train.optim import TrainSpec
from darkroom.train.session import Session


def stage_of(
    model: nn.Module,
    folder: Path,
    *,
    spec: TrainSpec,
    look: Callable[[int], dict[str, float]],
    stage: str = "line",
    best: Callable[[], Event] | None = None,
    keep: int = 0,
) -> Session:
    """look: the figures of a look at a step."""
    return Session(
        model,
        list(model.parameters()),
        spec=spec,
        compute=Compute(torch.device("cpu")),
        folder=folder,
        seed=0,
        stage=stage,
        look=lambda step: (look(step), []),
        best=best,
        keep=keep,
    )

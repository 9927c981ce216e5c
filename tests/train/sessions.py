"""A stage of training on the CPU, for tests that ask what a session does and not what is learnt."""

from pathlib import Path

import torch
from torch import nn

from darkroom.core.compute import Compute
from darkroom.train.optim import TrainSpec
from darkroom.train.session import Session


def stage_of(
    model: nn.Module,
    folder: Path,
    *,
    spec: TrainSpec,
    stage: str = "line",
    keep: int = 0,
) -> Session:
    """A stage that trains all of a module."""
    return Session(
        model,
        list(model.parameters()),
        spec=spec,
        compute=Compute(torch.device("cpu")),
        folder=folder,
        seed=0,
        stage=stage,
        keep=keep,
    )

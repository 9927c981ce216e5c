"""What a stage needs to go on exactly where it stopped, in one file replaced atomically."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from darkroom.core.errors import ModelFileError
from darkroom.core.record import atomic
from darkroom.train.ema import Ema


@final
@dataclass
class Training:
    """The moving parts of one stage: what is trained, how, and how far it is.

    opponent: the optimiser of an adversary · beside: modules that training needs and the model does not (an adversary,
    counters); they are saved with the state.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    opponent: torch.optim.Optimizer | None = None
    beside: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    step: int = 0
    skipped: int = 0
    seconds: float = 0.0


def save_state(training: Training, path: Path) -> None:
    """Write all of it."""
    state: dict[str, Any] = {
        "module": training.module.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "ema": None if training.ema is None else training.ema.state(),
        "opponent": None if training.opponent is None else training.opponent.state_dict(),
        "beside": training.beside.state_dict(),
        "step": training.step,
        "skipped": training.skipped,
        "seconds": training.seconds,
    }
    with atomic(path) as temporary:
        torch.save(state, temporary)


def restore_state(training: Training, path: Path) -> bool:
    """Go on from a saved state; False when there is none. `ModelFileError` when it cannot be read or does not fit."""
    if not path.exists():
        return False
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        training.module.load_state_dict(state["module"])
        training.optimizer.load_state_dict(state["optimizer"])
        if training.ema is not None:
            training.ema.restore(state["ema"]["updates"], state["ema"]["shadow"])
        if training.opponent is not None:
            training.opponent.load_state_dict(state["opponent"])
        training.beside.load_state_dict(state["beside"])
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ModelFileError(
            f"{path}: this training state cannot be read ({type(error).__name__}); remove it to start this stage again"
        ) from None
    training.step, training.skipped = state["step"], state["skipped"]
    training.seconds = state["seconds"]
    return True

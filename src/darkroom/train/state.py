"""What a stage needs to go on exactly where it stopped: the newest state in one file, and the one before it beside it.

A state is written aside, brought to the disk, and only then takes the newest one's place; so a kill, a full disk or a
lost power line at any moment leaves at least one state that is whole.
"""

import os
import shutil
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, final

import torch
from torch import nn

from darkroom.core.compute import lacks_memory
from darkroom.core.errors import ModelFileError, TrainingError
from darkroom.core.parallel import in_parts, is_first, part_like, whole_on_first
from darkroom.core.record import atomic
from darkroom.train.averages import PowerAverages
from darkroom.train.ema import Ema
from darkroom.train.optim import parameters_of
from darkroom.train.scaler import Scaler


@final
@dataclass
class Training:
    """The state of one stage: what is trained, by what, and how far it is.

    opponent: the optimiser of an adversary · beside: modules that training needs and the model does not (an adversary,
    counters), saved with the state · averages: of the weights, for a width that is chosen afterwards · scaler: of the
    loss, in float16.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    opponent: torch.optim.Optimizer | None = None
    beside: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    step: int = 0
    skipped: int = 0
    seconds: float = 0.0
    averages: PowerAverages | None = None
    scaler: Scaler | None = None


def before(path: Path) -> Path:
    """Where the state before the newest is kept."""
    return path.with_name(f"{path.stem}.before{path.suffix}")


def save_state(training: Training, path: Path) -> None:
    """Write all of it; what was the newest state becomes the one before. `OSError` when the disk does not take it.

    The file does not tell whether ranks held it in parts; if they do, all come here and the first writes.
    """
    state: dict[str, Any] = {
        "module": training.module.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "ema": None if training.ema is None else training.ema.state(),
        "averages": None if training.averages is None else training.averages.state(),
        "opponent": None if training.opponent is None else training.opponent.state_dict(),
        "beside": training.beside.state_dict(),
        "scaler": None if training.scaler is None else training.scaler.state(),
        "step": training.step,
        "skipped": training.skipped,
        "seconds": training.seconds,
    }
    state = whole_on_first(state)
    if not is_first():
        return
    with atomic(path) as temporary:
        with temporary.open("wb") as file:
            _write(state, file)
        if path.exists():
            os.replace(path, before(path))


def _write(state: dict[str, Any], file: BinaryIO) -> None:
    """Write and flush to the disk itself: what fails, fails while the states before are untouched."""
    try:
        torch.save(state, file)
    except RuntimeError as error:  # torch hides the disk's own error behind one of its archive
        reason = error.__context__
        raise reason if isinstance(reason, OSError) else OSError(str(error)) from None
    file.flush()
    os.fsync(file.fileno())


def keep_state(path: Path, kept: Path) -> Path:
    """A second name for a state, so that it stays when newer ones come; a copy where the disk knows no links."""
    kept.parent.mkdir(exist_ok=True)
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:
        with atomic(kept) as temporary:
            shutil.copyfile(path, temporary)
    return kept


@final
class Found(NamedTuple):
    """A state that is whole (None: there is no state at all), and a sentence where a newer one was passed over."""

    path: Path | None
    said: str | None = None


def find_state(path: Path) -> Found:
    """The newest state that is whole; `ModelFileError` when there are states and none is."""
    there = [each for each in (path, before(path)) if each.exists()]
    whole = next((each for each in there if _is_whole(each)), None)
    if there and whole is None:
        raise ModelFileError(
            f"{path}: this training state cannot be read, nor is there one before it that can; "
            "remove it to start this stage again"
        )
    if whole is None or whole == there[0]:
        return Found(whole)
    return Found(whole, f"{path}: this training state is damaged and was passed over; the one before it is used")


def _is_whole(path: Path) -> bool:
    """Is every byte what was written? Torch itself does not look at the checksums of its archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged archive makes its reader raise many kinds
        return False


def restore_state(training: Training, path: Path) -> bool:
    """Go on from a saved state; False when there is none.

    `ModelFileError` when it cannot be read or does not fit, `TrainingError` when memory does not suffice for it.
    """
    if not path.exists():
        return False
    parted = any(map(in_parts, training.module.parameters()))  # each rank then reads no more than its part
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=parted)
        own = training.module.state_dict()
        training.module.load_state_dict(
            {name: part_like(value, own.get(name, value)) for name, value in state["module"].items()}
        )
        training.optimizer.load_state_dict(_held(state["optimizer"], training.optimizer))
        if training.ema is not None:
            training.ema.restore(state["ema"]["updates"], state["ema"]["shadow"])
        if training.averages is not None:
            training.averages.restore(state["averages"])
        if training.opponent is not None:
            training.opponent.load_state_dict(state["opponent"])
        training.beside.load_state_dict(state["beside"])
        if training.scaler is not None:
            training.scaler.restore(state["scaler"])
    except Exception as error:  # torch raises many kinds for a damaged file
        if lacks_memory(error):
            raise TrainingError(
                f"{path}: there is not enough memory to take this training state in; it is whole and stays. Free some, "
                "and run the same command again"
            ) from None
        raise ModelFileError(
            f"{path}: this training state cannot be read ({type(error).__name__}); remove it to start this stage again"
        ) from None
    training.step, training.skipped = state["step"], state["skipped"]
    training.seconds = state["seconds"]
    return True


def _held(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's saved state, with moments laid out as this rank holds their weights."""
    weights = parameters_of(optimizer)
    moments = {
        number: {
            name: part_like(value, weights[number]) if value.ndim else value.clone() for name, value in each.items()
        }
        for number, each in state["state"].items()
    }
    return {**state, "state": moments}

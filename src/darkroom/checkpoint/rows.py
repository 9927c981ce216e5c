"""Weights in eight bits: each row of a matrix or kernel as whole numbers and one step that they are multiples of."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from darkroom.checkpoint.header import TensorInfo
from darkroom.core.errors import ModelFileError

STEPS: Final = ".steps"  # after a tensor's name: the step of each of its rows
MOST: Final = 127


def in_rows(tensor: Float[Tensor, "n ..."]) -> tuple[Int8[Tensor, "n ..."], Float[Tensor, " n"]]:
    """(whole numbers, step of each row): the largest of a row is 127 steps, so nothing is off by more than half."""
    wide = tensor.float()
    step = wide.flatten(1).abs().amax(1) / MOST
    divisor = torch.where(step > 0, step, 1.0).reshape(-1, *[1] * (wide.ndim - 1))
    return (wide / divisor).round().to(torch.int8), step


def from_rows(numbers: Int8[Tensor, "n ..."], step: Float[Tensor, " n"]) -> Float[Tensor, "n ..."]:
    """The weights again, float32."""
    return numbers.float() * step.reshape(-1, *[1] * (numbers.ndim - 1))


def unfolded(tensors: Mapping[str, TensorInfo], *, where: str) -> dict[str, TensorInfo]:
    """What a file's tensors are once read: those in rows are float32, and their steps are none of the model's.

    `ModelFileError` for steps that do not fit their rows; rows without steps stay what they are, which no model has.
    """
    found: dict[str, TensorInfo] = {}
    for name, info in tensors.items():
        step = tensors.get(name + STEPS)
        if info.dtype == torch.int8 and step is not None:
            if not info.shape or step.shape != info.shape[:1] or step.dtype != torch.float32:
                raise ModelFileError(f"{where}: damaged, the steps of {name!r} do not fit its rows")
            found[name] = replace(info, dtype=torch.float32)
        elif not (name.endswith(STEPS) and _is_rows(tensors.get(name.removesuffix(STEPS)))):
            found[name] = info
    return found


def _is_rows(info: TensorInfo | None) -> bool:
    return info is not None and info.dtype == torch.int8


def read(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they lie in a file, those in rows put together, all of floating point as float32."""
    return {
        name: from_rows(tensor, tensors[name + STEPS]) if name + STEPS in tensors else _widened(tensor)
        for name, tensor in tensors.items()
        if not (name.endswith(STEPS) and name.removesuffix(STEPS) in tensors)
    }


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor

"""Modules without memory: on the meta device, and without drawing starting weights."""

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Called on meta tensors, these import torch's compiler, which takes longer than building any model.
_DRAWS: Final = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, Tensor.normal_, Tensor.uniform_)


UNBUILDABLE: Final = (RuntimeError, OverflowError, TypeError)  # what torch raises for sizes beyond its own numbers


@contextlib.contextmanager
def hollow() -> Generator[None]:
    """Parameters and buffers made inside are meta tensors, and starting weights are not drawn."""
    with torch.device("meta"), _Undrawn():
        yield


def parameters_of(module: nn.Module) -> int:
    """How many values its parameters have, shared ones counted once."""
    return sum(each.numel() for each in module.parameters())


@final
class _Undrawn(TorchFunctionMode):
    """Random filling in place leaves a tensor as it is."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else named["tensor"]
        return func(*args, **named)

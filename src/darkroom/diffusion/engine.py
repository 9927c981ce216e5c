"""What runs a model's network and decoder while it draws: the modules as they are, or forms of them made for speed.

A form answers what its module answers, within rounding, and carries no gradient.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol, TypeAlias, TypeVar, cast, final, runtime_checkable

import torch
from torch import Tensor, nn

from darkroom.autoencoder.model import FirstStage
from darkroom.autoencoder.preview import Preview
from darkroom.core.compute import Compute, missing_compiler
from darkroom.core.errors import InputError, did_you_mean
from darkroom.core.memory import available
from darkroom.core.shapes import Images, Latent
from darkroom.diffusion.denoiser import Network
from darkroom.diffusion.openvino import OpenVINO
from darkroom.network.unet import UNet
from darkroom.nn.packed import pack

Decode: TypeAlias = Callable[[Latent], Images]
C = TypeVar("C", bound=Callable[..., Tensor])
AUTO: Final = "auto"


@runtime_checkable
class Engine(Protocol):
    """Makes forms of modules, which need not follow when the modules' weights change."""

    name: ClassVar[str]

    def network(self, module: UNet) -> Network:
        """A form of a network."""
        ...

    def decode(self, module: FirstStage | Preview) -> Decode:
        """A form of what turns latents, in the module's own units, into pictures."""
        ...


@final
class Plain:
    """The modules as they are; for weights that still change."""

    name: ClassVar = "plain"

    def network(self, module: UNet) -> Network:
        """The module."""
        return module

    def decode(self, module: FirstStage | Preview) -> Decode:
        """The module's method."""
        return module.decode


@final
class Eager:
    """The modules, whose layers keep their weights as the kernels read them (`nn.packed`).

    Weights are then in memory twice; where twice as much as that is not left, modules stay as they are.
    """

    name: ClassVar = "eager"

    def network(self, module: UNet) -> Network:
        """The module, packed."""
        return pack(module) if _fits_again(module) else module

    def decode(self, module: FirstStage | Preview) -> Decode:
        """The module's method, its layers packed."""
        return pack(module).decode if _fits_again(module) else module.decode


def _fits_again(module: nn.Module) -> bool:
    left, weights = available(), sum(each.nbytes for each in module.parameters())
    return left is None or 2 * weights <= left


@final
class Compiled:
    """The modules compiled by `torch.compile` for each shape they are asked with: a minute or more, once a process.

    `InputError` where there is no C++ compiler for a processor. On CUDA what is compiled is captured as a graph, too,
    whose answers are copied: the graph writes the next one into the same memory, and solvers look back at several.
    """

    name: ClassVar = "compiled"

    def __init__(self, compute: Compute) -> None:
        lacking = missing_compiler() if compute.device.type == "cpu" else None
        if lacking is not None:
            raise InputError(f"engine compiled needs a C++ compiler, and there is no {lacking}; use --engine eager")
        self._captures = compute.device.type == "cuda"
        captured = {"mode": "reduce-overhead"}
        laid_out = {"options": {"freezing": True}}  # weights as constants, cast and laid out once
        self.options = {"dynamic": False, **(captured if self._captures else laid_out)}

    def network(self, module: UNet) -> Network:
        """The module, compiled."""
        return self._compiled(module.forward)

    def decode(self, module: FirstStage | Preview) -> Decode:
        """The module's method, compiled."""
        return self._compiled(module.decode)

    def _compiled(self, call: C) -> C:
        made = cast("C", torch.compile(call, **self.options))
        if not self._captures:
            return made

        @functools.wraps(call)
        def owned(*inputs: Any) -> Tensor:
            return made(*inputs).clone()

        return cast("C", owned)


PLAIN: Final = Plain()
_ENGINES: Final[Mapping[str, Callable[[Compute], Any]]] = {
    "eager": lambda _: Eager(),
    "compiled": Compiled,
    "openvino": OpenVINO,
}
ENGINES: Final = (AUTO, *_ENGINES)


def build_engine(name: str, *, compute: Compute) -> Engine:
    """The engine of that name; `auto` is `eager`. `InputError` for one that is unknown or cannot be had here."""
    if name not in ENGINES:
        raise InputError(f"engine {name!r} is unknown{did_you_mean(name, ENGINES)}; {', '.join(ENGINES)} fit")
    return _ENGINES["eager" if name == AUTO else name](compute)

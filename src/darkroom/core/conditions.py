"""The only thing that crosses from conditioners to the network: three ports, a guess, and where it is exact."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from darkroom.core.errors import InputError
from darkroom.core.shapes import Images, Latent, Mask, Tokens, Vector, WindowTokens


@final
@dataclass(frozen=True)
class Conditions:
    """What steers generation. An empty port is None; all filled ports share the batch size b.

    tokens: (b, l, d) for cross-attention, or (b, n, l, d) where each of n windows has its own · vector: (b, d) of
    time-embedding width, joins the time embedding · planes: (b, c, h, w) at latent size, concatenated to the noisy
    latent · guess: (b, c, h, w) at the latents; the network then learns only what is beyond it · known: (b, 1, h, w),
    1 where the guess is exact.
    """

    tokens: Tokens | WindowTokens | None = None
    vector: Vector | None = None
    planes: Images | None = None
    guess: Latent | None = None
    known: Mask | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Conditions":
        """The same conditions with `change` applied to every filled port."""
        ports = (self.tokens, self.vector, self.planes, self.guess, self.known)
        return Conditions(*(None if port is None else change(port) for port in ports))

    def of_window(self, place: int) -> "Conditions":
        """With the tokens of one window, where windows have their own."""
        tokens = self.tokens
        return self if tokens is None or tokens.ndim == 3 else replace(self, tokens=tokens[:, place])


def by_window(parts: Sequence[Conditions]) -> Conditions:
    """Conditions of a whole latent from those of its windows, which differ in their tokens alone."""
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return replace(parts[0], tokens=torch.stack(tokens, dim=1))


def concatenate(parts: Sequence[Conditions]) -> Conditions:
    """Batches joined along b; `InputError` unless the parts fill the same ports, alike but for b."""

    def join(ports: Sequence[Tensor | None], name: str) -> Tensor | None:
        filled = [port for port in ports if port is not None]
        if not filled:
            return None
        if len(filled) != len(ports):
            raise InputError(f"conditions to join must all fill the port {name!r} or none of them")
        if len(shapes := {tuple(port.shape[1:]) for port in filled}) > 1:
            came = " and ".join(str(shape) for shape in sorted(shapes))
            raise InputError(f"conditions to join must be alike in {name!r}; {came} came, for each sample")
        return torch.cat(filled)

    return Conditions(
        tokens=join([part.tokens for part in parts], "tokens"),
        vector=join([part.vector for part in parts], "vector"),
        planes=join([part.planes for part in parts], "planes"),
        guess=join([part.guess for part in parts], "guess"),
        known=join([part.known for part in parts], "known"),
    )


@final
class Joined:
    """`concatenate` with a memory of its last answer, for conditions that stay the same from step to step.

    The same conditions get the very same tensors, so that a network can recognise them (`nn.packed`).
    """

    def __init__(self) -> None:
        self._parts: tuple[Conditions, ...] = ()
        self._whole = Conditions()

    def __call__(self, parts: Sequence[Conditions]) -> Conditions:
        """Batches joined along b; of the very same conditions as before, the very same tensors."""
        if len(parts) != len(self._parts) or any(
            one is not other for one, other in zip(parts, self._parts, strict=True)
        ):
            self._parts, self._whole = tuple(parts), concatenate(parts)
        return self._whole

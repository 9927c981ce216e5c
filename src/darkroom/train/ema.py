"""Averaged weights: an exponential moving average over everything that is trained."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn

from darkroom.core.parallel import part_like


@final
class Ema:
    """shadow <- d shadow + (1 - d) weight, with d = min(decay, (1 + n) / (10 + n)) in the n-th update."""

    def __init__(self, parameters: Sequence[nn.Parameter], *, decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.updates = 0
        self.shadow = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        present = [parameter.detach() for parameter in self.parameters]
        torch._foreach_lerp_(self.shadow, present, 1 - decay)

    @torch.no_grad()
    def forget(self, parameter: nn.Parameter, rows: Tensor) -> None:
        """The averages of these rows of a parameter begin anew, at their present values."""
        for mine, shadow in zip(self.parameters, self.shadow, strict=True):
            if mine is parameter:
                shadow[rows] = parameter[rows]

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the parameters hold the averages; after it, what they held before."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self._copy(self.shadow)
        try:
            yield
        finally:
            self._copy(kept)

    def keep(self) -> None:
        """Make the averages the weights, for good."""
        self._copy(self.shadow)

    def state(self) -> dict[str, object]:
        """Everything that `restore` needs."""
        return {"updates": self.updates, "shadow": self.shadow}

    def restore(self, updates: int, shadow: Sequence[Tensor]) -> None:
        """Go on from a saved state."""
        self.updates = updates
        for mine, saved in zip(self.shadow, shadow, strict=True):
            mine.copy_(part_like(saved, mine))

    @torch.no_grad()
    def _copy(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

"""Loss scaling for float16: the loss is multiplied so that small gradients are not rounded to zero."""

from collections.abc import Iterable
from typing import Final, final

import torch
from torch import Tensor, nn

FIRST: Final = 2.0**16
GROWS_AFTER: Final = 2000  # steps without an overflow
LEAST: Final = 1.0


@final
class Scaler:
    """The factor of the loss, a power of two: halved when gradients overflow, doubled after many steps that went well.

    float16 has five bits of exponent; gradients below 6e-8 vanish in it, and most of a network's are. Source:
    Micikevicius et al. 2018, section 3.2.
    """

    def __init__(self, factor: float = FIRST) -> None:
        self.factor, self.good = factor, 0

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to differentiate."""
        return loss * self.factor

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients as they would be without the factor."""
        gradients = [each.grad for each in parameters if each.grad is not None]
        if gradients:
            torch._foreach_div_(gradients, self.factor)

    def learn(self, *, finite: bool) -> bool:
        """Adapt the factor to how a step went; answers whether a too large factor may be why it was not finite."""
        if finite:
            self.good += 1
            if self.good % GROWS_AFTER == 0:
                self.factor *= 2
            return False
        self.good = 0
        too_large = self.factor > LEAST
        self.factor = max(LEAST, self.factor / 2)
        return too_large

    def state(self) -> dict[str, float]:
        """Everything that `restore` needs."""
        return {"factor": self.factor, "good": self.good}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from a saved state."""
        self.factor, self.good = float(state["factor"]), int(state["good"])

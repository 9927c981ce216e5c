"""Muon: matrices and kernels move by the orthogonal part of their momentum, all else as in AdamW.

Adam divides each value of a gradient by its usual size and so knows nothing of the matrix it stands in, whose gradients
are nearly of low rank: a few directions take all of a step. Here every direction of the momentum moves equally far. For
a network that makes few steps this brings the loss of held-out pictures further in as many minutes (docs/results.md).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM: Final = 0.95
ROUNDS: Final = 5
QUINTIC: Final = (3.4445, -4.7750, 2.0315)  # brings singular values of 0.01 to 1 into 0.7 to 1.2 in `ROUNDS`
ADAMS: Final = 0.2  # root mean square of what Adam's step is in practice, in learning rates (Liu et al. 2025)
NARROW: Final = 32  # a matrix narrower than this, as last layers are, has few directions


@final
class Muon(torch.optim.AdamW):
    """AdamW, but groups that are marked `orthogonal` move orthogonally.

    A step of those is as long as one of Adam's usually is, so one learning rate does for all: 0.2 * sqrt(longer side)
    times the orthogonal matrix. Kernels count as matrices (out, in * h * w). dtype: what products are computed in.
    Jordan et al. 2024 ("Muon: An optimizer for hidden layers in neural networks"); lengths: Liu et al. 2025, eq. 4.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, dtype: torch.dtype, lr: float, betas: tuple[float, float]
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, fused=True)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Move all weights; gradients of orthogonal groups are used up by it."""
        assert closure is None, "there is one step a gradient"
        for group in self.param_groups:
            if group.get("orthogonal"):
                self._turn([each for each in group["params"] if each.grad is not None], group)
        super().step()  # passes over what has no gradient

    def _turn(self, weights: Sequence[nn.Parameter], group: dict[str, Any]) -> None:
        for each in weights:
            if not self.state[each]:  # Adam's steps are counted in every state, so that it can read them all
                self.state[each].update(step=torch.zeros(()), momentum=torch.zeros_like(each))
        ahead = [self._ahead(each) for each in weights]
        alike: dict[torch.Size, list[int]] = {}
        for place, each in enumerate(weights):
            alike.setdefault(_wide(each, like=each).shape, []).append(place)
        for shape, places in alike.items():
            those = [weights[place] for place in places]
            momenta = torch.stack([_wide(ahead[place], like=weights[place]) for place in places])
            for weight, direction in zip(those, orthogonal(momenta, dtype=self.dtype), strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                _wide(weight, like=weight).add_(direction, alpha=-group["lr"] * ADAMS * max(shape) ** 0.5)

    def _ahead(self, weight: nn.Parameter) -> Tensor:
        """Where the momentum will be after this gradient, which it takes and uses up (Nesterov)."""
        assert weight.grad is not None
        momentum: Tensor = self.state[weight]["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        ahead = momentum.lerp(weight.grad, 1 - MOMENTUM)
        weight.grad = None
        return ahead


def is_hidden(weight: Tensor) -> bool:
    """Has it directions enough to be moved orthogonally?"""
    return weight.ndim > 1 and min(weight.shape[0], weight[0].numel()) >= NARROW


def orthogonal(matrices: Float[Tensor, "b m n"], *, dtype: torch.dtype) -> Float[Tensor, "b m n"]:
    """About U V^T where a matrix is U S V^T, m <= n: its singular values lie in 0.7 to 1.2 where they were not near 0.

    Newton and Schulz's iteration with a quintic. dtype: of the products, in bfloat16 it is as good.
    """
    a, b, c = QUINTIC
    x = (matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)


def _wide(tensor: Tensor, *, like: Tensor) -> Float[Tensor, "m n"]:
    """A matrix at least as wide as high, of a weight a view; its columns in the order of the weight's memory.

    In which order columns stand changes nothing, and a view costs nothing.
    """
    if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        like, tensor = like.permute(0, 2, 3, 1), tensor.permute(0, 2, 3, 1)
    assert like.is_contiguous(), "a copy would be moved in the place of the weight"
    flat = tensor.reshape(tensor.shape[0], -1)
    return flat if flat.shape[0] <= flat.shape[1] else flat.mT

"""How the ranks of one training keep step: PyTorch averages their gradients during the backward pass.

Where each rank has all weights, DistributedDataParallel does that; where ranks hold them in parts, `train.parted`.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, cast, final

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from darkroom.core.parallel import Share, check_shared, own_share, world_size
from darkroom.train.optim import TrainSpec

Values = Mapping[str, Tensor]
Work = Callable[[], Values]


@final
class Doing(nn.Module):
    """A module whose forward pass is any work with what is trained; PyTorch hooks its averaging to that."""

    def __init__(self, trained: nn.Module) -> None:
        super().__init__()
        self.trained = trained

    def forward(self, work: Work) -> Values:
        return work()


@final
class Ranks:
    """Does the work of a step; with several ranks its gradients become their means over ranks.

    module, beside: all that has gradients; what is beside may have no part in some steps, such as an adversary that has
    not begun. All ranks begin with the weights of the first · sharded: what the work is done in where ranks hold the
    weights in parts.
    """

    def __init__(self, module: nn.Module, beside: nn.Module, *, sharded: Doing | None = None) -> None:
        self._doing: nn.Module | None = sharded
        if sharded is None and world_size() > 1:
            sides = [[value for value in each.parameters() if value.requires_grad] for each in (module, beside)]
            self._doing = DistributedDataParallel(
                Doing(nn.ParameterList([*sides[0], *sides[1]])),
                find_unused_parameters=bool(sides[1]),
                gradient_as_bucket_view=True,
            )

    def do(self, work: Work) -> Values:
        """The answer of a work, whose backward pass then averages over ranks."""
        return work() if self._doing is None else self._doing(work)

    def more_follow(self, follow: bool) -> contextlib.AbstractContextManager[Any]:
        """A context for work and its backward pass; follow: more pieces of the step come, so averaging can wait.

        It does not wait for weights in parts: each rank would have to hold all their gradients until the last piece.
        """
        if follow and isinstance(self._doing, DistributedDataParallel):
            return cast("Any", self._doing).no_sync()
        return contextlib.nullcontext()


def shares(spec: TrainSpec) -> list[Share]:
    """The pieces of every batch that this process takes, one after another; `InputError` when it cannot be shared."""
    check_shared(spec.batch, what="train.batch")
    own, count = own_share(), pieces_of(spec.batch // world_size(), micro=spec.micro)
    return [own.piece(number, count) for number in range(count)]


def pieces_of(each: int, *, micro: int | None) -> int:
    """Into how many equal pieces `each` pictures are cut: the fewest with at most `micro` pictures a piece."""
    fewest = 1 if micro is None else -(-each // micro)
    return next(count for count in range(fewest, each + 1) if each % count == 0)

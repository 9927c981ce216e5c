"""How the ranks of one training move together: PyTorch averages their gradients as they arise.

DistributedDataParallel does where each rank has all weights; where they hold them in parts, `train.parted` does.
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
    """PyTorch hooks the forward pass of a module; here that is whatever is done with what is trained."""

    def __init__(self, trained: nn.Module) -> None:
        super().__init__()
        self.trained = trained

    def forward(self, work: Work) -> Values:
        return work()


@final
class Ranks:
    """Does work whose gradients belong together. In one process that is all; on several, gradients become means.

    module, beside: everything that gradients are kept for; what is beside may have no part in some steps, an adversary
    that has not begun, say. All ranks begin with the weights of the first · sharded: what work is done in instead,
    where ranks hold the weights in parts.
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
        """The answer of work, its gradients hooked."""
        return work() if self._doing is None else self._doing(work)

    def more_follow(self, follow: bool) -> contextlib.AbstractContextManager[Any]:
        """A context for work and its backward pass: while more pieces of a step follow, gradients stay here.

        But not those of weights in parts: until the last piece each rank would hold all of them.
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
    """In how many pieces so many pictures go through: the fewest of at most `micro` that are equally large."""
    fewest = 1 if micro is None else -(-each // micro)
    return next(count for count in range(fewest, each + 1) if each % count == 0)

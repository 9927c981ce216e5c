"""Dropout that does not depend on how a batch is split over processes or passes."""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.core.parallel import WHOLE, Share


@final
class Dropout(nn.Module):
    """Zeroes a share `p` of the values and scales the others up, in training (Srivastava et al. 2014).

    share: which part of a larger batch the next rows are. The mask is then drawn for the whole batch, and these rows
    take theirs. So masks do not depend on the split; on a CPU they are those of the batch in one piece, if the
    generator begins where it did for that.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.share = p, WHOLE

    def forward(self, x: Tensor) -> Tensor:
        """Rows of any shape to the same."""
        if not self.training or self.p == 0:
            return x
        if self.share.of == 1:
            return F.dropout(x, self.p)
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        whole = torch.empty(
            (len(x) * self.share.of, *x.shape[1:]), dtype=x.dtype, device=x.device, memory_format=layout
        )
        kept = whole.bernoulli_(1 - self.p).div_(1 - self.p)
        return x * kept[self.share.number * len(x) :][: len(x)]


def share_dropout(module: nn.Module, share: Share) -> None:
    """Tell every dropout of a module which rows come next."""
    for each in module.modules():
        if isinstance(each, Dropout):
            each.share = share

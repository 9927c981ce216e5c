"""What ranks of one training agree on; in a single process every function answers what it was given."""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, the same on each of them."""
    ranks = world_size()
    if ranks == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / ranks


def rows_of_all_ranks(tensor: Tensor) -> Tensor:
    """The rows of all ranks one after another, (n, ...) to (ranks · n, ...), the same on each of them."""
    ranks = world_size()
    if ranks == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(ranks)]
    dist.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts)

"""What ranks of one training or evaluation agree on; a single process is answered what it gave."""

import contextlib
import os
from collections.abc import Generator
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE: Final = timedelta(days=7)  # that ranks wait for one another: some draw pictures for hours


@contextlib.contextmanager
def together() -> Generator[None]:
    """Within the block, processes that `torchrun` started know one another, each on a GPU of its own where there are.

    A single process stays alone, and one whose ranks have met already is left as it is.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not dist.is_available() or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def wait_for_all() -> None:
    """Go on when every rank has come here."""
    if world_size() > 1:
        dist.barrier()


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

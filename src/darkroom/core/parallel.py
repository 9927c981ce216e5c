"""Ranks of one training or evaluation: what they share and agree on. A single process is its own first rank.

Processes are started by `torchrun`, which tells each of them who it is through its environment.
"""

import contextlib
import copy
import os
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NoReturn, TypeVar, cast, final

import torch
import torch.distributed as dist
from torch import Tensor

from darkroom.core.errors import DarkroomError, InputError, TrainingError

T = TypeVar("T")
_PATIENCE: Final = timedelta(days=7)  # that ranks wait for one another: some look at pictures, or draw, for hours
_GONE: Final = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")


@final
@dataclass(frozen=True)
class Share:
    """One of `of` equal, consecutive parts of every batch."""

    number: int = 0
    of: int = 1

    def taken(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this part; their count must be a multiple of `of`."""
        count = len(items) // self.of
        return items[self.number * count : (self.number + 1) * count]

    def piece(self, number: int, of: int) -> "Share":
        """A part of this part."""
        return Share(self.number * of + number, self.of * of)


WHOLE: Final = Share()


@contextlib.contextmanager
def together() -> Generator[None]:
    """Within the block the processes that `torchrun` started are one group, with NCCL on GPUs; one alone goes on alone.

    `TrainingError` when another one is gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() or 0)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield
        dist.barrier()  # one that left earlier would look like one that died
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _GONE):
            raise
        raise TrainingError(f"process {rank()} of {world_size()} stopped, for another one is gone") from None
    finally:
        dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End a process of several without taking the interpreter apart.

    PyTorch keeps a group that DistributedDataParallel has known, destroyed or not, and a thread of it that lets go of
    its last tensor while the interpreter ends aborts the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def local_rank() -> int | None:
    """Which of this machine's processes this is; None where there is only one."""
    found = os.environ.get("LOCAL_RANK") if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    return None if found is None else int(found)


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0 on."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Is this the one that writes and speaks?"""
    return rank() == 0


def own_share() -> Share:
    """This process's part of every batch."""
    return Share(rank(), world_size())


def check_shared(batch: int, *, what: str) -> None:
    """`InputError` for a batch that the processes cannot share evenly."""
    ranks = world_size()
    if batch % ranks:
        fits = [each for each in (batch // ranks * ranks, -(-batch // ranks) * ranks) if each]
        raise InputError(
            f"{what} is {batch}, which {ranks} processes cannot share evenly; {' or '.join(map(str, fits))} fits"
        )


def on_first(work: Callable[[], T]) -> T:
    """Do `work` on the first rank alone, and give its answer to all.

    It begins when all ranks have come here, and none goes on before it is done. An error of ours is raised on all of
    them and said by the first.
    """
    if world_size() == 1:
        return work()
    on_any(False)
    box: list[object] = [None, None]
    if is_first():
        try:
            box[0] = work()
        except DarkroomError as error:
            box[1] = error
    dist.broadcast_object_list(box, device=torch.device("cpu"))
    if isinstance(box[1], DarkroomError):
        box[1].told = not is_first()
        raise box[1]
    return cast("T", box[0])


def on_any(flag: bool) -> bool:
    """Is it true on any rank?"""
    if world_size() == 1:
        return flag
    count = torch.tensor(int(flag))
    dist.all_reduce(count)
    return int(count) > 0


def wait_for_all() -> None:
    """Go on when every rank has come here."""
    on_any(False)


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


def of_all(value: T) -> list[T]:
    """The values of all ranks, in order, on each of them; they are pickled on the way."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def own_rows(count: int, *, batch: int) -> range:
    """The rows of `count` that this rank takes: whole batches, shared as evenly as they can be; the first has some."""
    batches = -(-count // batch)
    first, end = (-(-batches * each // world_size()) * batch for each in (rank(), rank() + 1))
    return range(min(first, count), min(end, count))


def in_parts(tensor: Tensor) -> bool:
    """Is it a tensor of which each rank holds only a part (a DTensor)?"""
    module: Any = sys.modules.get("torch.distributed.tensor")  # a slow import, and without it there are none
    return module is not None and isinstance(tensor, module.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that ranks hold in parts, put together on each of them (all ranks call this); any other as it is."""
    return cast("Any", tensor.detach()).full_tensor() if in_parts(tensor) else tensor


def whole_on_first(value: T) -> T:
    """Nested dicts and lists with their tensors in parts put together, one after another, for the first rank alone.

    There they lie in the CPU's memory; other ranks get empty tensors in their place.
    """
    if world_size() == 1:
        return value
    found: Any = value
    match found:
        case dict():
            found = copy.copy(cast("dict[Any, Any]", found))  # with what torch keeps beside an ordered one
            for name, inner in found.items():
                found[name] = whole_on_first(inner)
        case list():
            found = [whole_on_first(inner) for inner in cast("list[Any]", found)]
        case Tensor() if in_parts(found):
            full = whole(found)
            found = full.cpu() if is_first() else full.new_empty(0)
        case _:
            pass
    return found


def part_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor laid out as `other` is: this rank's part of it where ranks hold `other` in parts.

    Its memory has the strides of `other`, for a fused optimiser goes through both side by side. A tensor of another
    shape is answered as it is; whoever takes it in refuses it.
    """
    if tensor.shape != other.shape:
        return tensor
    if not in_parts(other):
        return tensor if tensor.stride() == other.stride() else torch.empty_like(other).copy_(tensor)
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415  (slow, and there by now)

    held: Any = other
    part = distribute_tensor(tensor.contiguous(), held.device_mesh, held.placements, src_data_rank=None)
    return part.clone()  # the part alone: what it was cut from can go

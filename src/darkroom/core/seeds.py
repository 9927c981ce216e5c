"""Randomness as an argument: every draw is a function of (seed, sample index, purpose), made on the CPU.

Sample k of a seed has the same noise whatever the batch, device or number of processes: one generator a sample. Torch's
generator on the CPU reads 32 bits of its seed, so some draws are equal by chance: of n draws about n^2 / 2^33 pairs.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def stream(seed: int, index: int, *, purpose: str) -> int:
    """A 63-bit seed for one purpose of one sample; different purposes are independent."""
    digest = hashlib.blake2b(f"{purpose}/{seed}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, index: int, *, purpose: str) -> Generator:
    """A CPU generator for one purpose of one sample."""
    return Generator("cpu").manual_seed(stream(seed, index, purpose=purpose))


def normal(shape: Sequence[int], *, seed: int | Sequence[int], indices: Sequence[int], purpose: str) -> Tensor:
    """Standard normal numbers, (len(indices), *shape) float32 on the CPU, one generator per sample.

    seed: one for all samples, or one for each.
    """
    each = [seed] * len(indices) if isinstance(seed, int) else seed
    drawn = [
        torch.randn(tuple(shape), generator=generator(own, index, purpose=purpose))
        for own, index in zip(each, indices, strict=True)
    ]
    return torch.stack(drawn)


def uniform(*, seed: int, indices: Sequence[int], purpose: str) -> Tensor:
    """One number in [0, 1) per sample, float64 on the CPU."""
    return torch.stack(
        [torch.rand((), generator=generator(seed, i, purpose=purpose), dtype=torch.float64) for i in indices]
    )

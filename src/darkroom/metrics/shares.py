"""Shares of answers: how far the truth may lie from what was counted, and whether chance explains it."""

import math
from statistics import NormalDist

from darkroom.core.errors import InputError


def wilson(share: float, *, count: int, level: float = 0.95) -> tuple[float, float]:
    """The interval, low and high within 0..1, of a share 0..1 seen in `count` answers that do not depend on each other.

    It holds for shares near 0 and 1 too, where a normal approximation would leave 0..1. `InputError` for no answer.
    Source: Wilson 1927.
    """
    if count < 1:
        raise InputError("a share of no answers has no interval; 1 answer at least is needed")
    reach = NormalDist().inv_cdf((1 + level) / 2) ** 2 / count
    middle = (share + reach / 2) / (1 + reach)
    half = math.sqrt(reach * (share * (1 - share) + reach / 4)) / (1 + reach)
    return max(0.0, middle - half), min(1.0, middle + half)


def coin_test(chosen: int, *, count: int) -> float:
    """How probable it is that a fair coin, tossed `count` times, is as far from even as `chosen` heads: 0..1.

    The exact binomial test of a share of 1/2, two-sided, in whole numbers: 2 Σ_{i >= m} C(n, i) / 2^n, m the larger
    side. `InputError` for more chosen than counted.
    """
    if not 0 <= chosen <= count:
        raise InputError(f"{chosen} of {count} answers do not fit: 0 to {count} do")
    larger, ways, total = max(chosen, count - chosen), 1, 0
    for heads in range(count, larger - 1, -1):  # C(n, n), C(n, n - 1), ...
        total += ways
        ways = ways * heads // (count - heads + 1)
    return min(1.0, 2 * total / 2**count)

"""Shares of answers: closed forms, scipy, and what chance does."""

import math
import random

import pytest
from scipy.stats import binomtest

from darkroom.core.errors import InputError
from darkroom.metrics.shares import coin_test, wilson


@pytest.mark.parametrize(
    ("chosen", "count", "expected"),
    [(5, 5, 2 / 32), (0, 5, 2 / 32), (9, 10, 22 / 1024), (5, 10, 1.0), (1, 1, 1.0), (0, 0, 1.0), (0, 2000, 2**-1999)],
)
def test_a_coin_by_hand(chosen: int, count: int, expected: float) -> None:
    assert coin_test(chosen, count=count) == expected


def test_a_coin_and_an_interval_are_those_of_scipy() -> None:
    draw = random.Random(3)
    for _ in range(40):
        count = draw.randint(1, 900)
        chosen = draw.randint(0, count)
        found = binomtest(chosen, count, 0.5)
        assert coin_test(chosen, count=count) == pytest.approx(found.pvalue, rel=1e-9, abs=1e-300)
        interval = found.proportion_ci(0.95, method="wilson")
        assert wilson(chosen / count, count=count) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_the_ends_of_wilsons_interval_solve_its_equation() -> None:
    """|share - p| = z sqrt(p (1 - p) / n) at both ends (Wilson 1927)."""
    z = 1.959963984540054
    for share, count in ((0.304, 500), (0.02, 60), (0.5, 3)):
        for end in wilson(share, count=count):
            assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / count), rel=1e-9)


def test_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="no answers has no interval"):
        wilson(0.5, count=0)
    with pytest.raises(InputError, match="6 of 5 answers do not fit"):
        coin_test(6, count=5)


def test_many_votes_take_no_time() -> None:
    assert coin_test(10_300, count=20_000) == pytest.approx(binomtest(10_300, 20_000).pvalue, rel=1e-9)

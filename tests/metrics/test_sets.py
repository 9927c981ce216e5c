"""Measures of sets against closed forms, plain loops and other libraries, all in float64."""

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

import darkroom.metrics
from darkroom.core.errors import InputError
from darkroom.metrics import (
    Gaussian,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)

Array = np.ndarray
SEEDS = st.integers(0, 2**31)
WIDTHS = st.integers(1, 6)


def drawn(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def rotation(seed: int, width: int) -> Array:
    return np.linalg.qr(drawn(seed, width, width))[0]


def frechet_by_sqrtm(a: Array, b: Array) -> float:
    """As the formula is written, with scipy's root of the product."""
    one, other = (np.atleast_2d(np.cov(each, rowvar=False)) for each in (a, b))
    root = np.real(sqrtm(one @ other))
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(one + other - 2 * root))


def kernel(x: Array, y: Array) -> float:
    return (sum(float(p) * float(q) for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3


def kernel_by_loops(a: Array, b: Array) -> float:
    def within(rows: Array) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return math.fsum(kernel(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    across = math.fsum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
    return within(a) + within(b) - 2 * across


def radii(rows: Array, k: int) -> list[float]:
    return [
        sorted(math.dist(row, other) for j, other in enumerate(rows) if j != i)[k - 1] for i, row in enumerate(rows)
    ]


def share_by_loops(centres: Array, points: Array, *, k: int) -> float:
    reach = radii(centres, k)
    hit = [any(math.dist(p, c) <= r for c, r in zip(centres, reach, strict=True)) for p in points]
    return sum(hit) / len(points)


class TestFrechet:
    def test_known_gaussians_on_a_line(self) -> None:
        a, b = np.array([[1.0], [3.0]]), np.array([[0.0], [6.0]])  # means 2 and 3, variances 2 and 18
        assert frechet_distance(a, b) == pytest.approx(1 + (math.sqrt(18) - math.sqrt(2)) ** 2, rel=1e-12)

    def test_diagonal_covariances(self) -> None:
        one, other = np.array([1.0, 4.0, 0.25, 0.0]), np.array([9.0, 1.0, 0.25, 2.0])
        shift = np.array([1.0, 0.0, -2.0, 0.5])
        a = Gaussian(torch.zeros(4, dtype=torch.float64), torch.diag(torch.from_numpy(one)), 10)
        b = Gaussian(torch.from_numpy(shift), torch.diag(torch.from_numpy(other)), 20)
        expected = np.sum(shift**2) + np.sum((np.sqrt(one) - np.sqrt(other)) ** 2)
        assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-12)

    @pytest.mark.parametrize(("n", "m", "width"), [(50, 60, 8), (200, 150, 32)])
    def test_the_formula_as_written(self, n: int, m: int, width: int) -> None:
        a, b = drawn(1, n, width) @ drawn(2, width, width), drawn(3, m, width) + 0.3
        assert frechet_distance(a, b) == pytest.approx(frechet_by_sqrtm(a, b), rel=1e-9)

    def test_fewer_rows_than_numbers(self) -> None:
        a, b = drawn(4, 5, 40), drawn(5, 7, 40)
        centred = [(each - each.mean(0)) / math.sqrt(len(each) - 1) for each in (a, b)]
        together = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()  # no d x d matrix at all
        expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + sum(np.sum(c**2) for c in centred) - 2 * together
        assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-10)

    def test_another_library_agrees(self) -> None:
        from torchmetrics.image.fid import _compute_fid

        a, b = drawn(6, 300, 12), drawn(7, 200, 12) * 1.5
        args = [torch.from_numpy(each) for x in (a, b) for each in (x.mean(0), np.cov(x, rowvar=False))]
        assert frechet_distance(a, b) == pytest.approx(float(_compute_fid(*args)), rel=1e-8)

    @given(seed=SEEDS, width=WIDTHS, rows=st.integers(2, 12))
    @settings(max_examples=40, deadline=None)
    def test_symmetric_zero_on_itself_blind_to_rotation(self, seed: int, *, width: int, rows: int) -> None:
        a, b = drawn(seed, rows, width), 2 * drawn(seed + 1, rows + 3, width) + 1
        found = frechet_distance(a, b)
        turn = rotation(seed, width)
        assert found == pytest.approx(frechet_distance(b, a), rel=1e-9)
        assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
        assert found == pytest.approx(frechet_distance(a @ turn + 5, b @ turn + 5), rel=1e-7)
        assert found == pytest.approx(frechet_distance(3 * a, 3 * b) / 9, rel=1e-9)

    @given(seed=SEEDS, cuts=st.lists(st.integers(1, 29), max_size=4, unique=True))
    @settings(max_examples=30, deadline=None)
    def test_chunks_sum_up_to_the_whole(self, seed: int, cuts: list[int]) -> None:
        rows = drawn(seed, 30, 5) + 100
        first, *others = (Gaussian.of(part) for part in np.split(rows, sorted(cuts)))
        together = sum(others, start=first)
        assert together.count == 30
        np.testing.assert_allclose(together.mean, rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(together.covariance, np.cov(rows, rowvar=False), atol=1e-10)
        other = drawn(seed + 1, 20, 5)
        assert frechet_distance(together, other) == pytest.approx(frechet_distance(rows, other), rel=1e-8)

    def test_constant_sets(self) -> None:
        a, b = np.ones((4, 3)), np.full((9, 3), 3.0)
        assert frechet_distance(a, b) == pytest.approx(12)
        assert frechet_distance(a, a) == 0
        spread = drawn(0, 20, 3)
        expected = np.sum((spread.mean(0) - 1) ** 2) + np.trace(np.cov(spread, rowvar=False))
        assert frechet_distance(a, spread) == pytest.approx(float(expected))


class TestKernel:
    @pytest.mark.parametrize(("n", "m", "width"), [(2, 2, 1), (9, 12, 4), (30, 8, 3)])
    def test_plain_loops(self, n: int, m: int, width: int) -> None:
        a, b = drawn(n, n, width), drawn(m + 50, m, width) + 0.5
        assert kernel_distance(a, b) == pytest.approx(kernel_by_loops(a, b), rel=1e-10)

    def test_chunks_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = drawn(1, 25, 4), drawn(2, 17, 4)

        def measured() -> list[float]:
            return [kernel_distance(a, b), *precision_recall(a, b)]

        whole = measured()
        monkeypatch.setattr("darkroom.metrics.sets._CELLS", 40)
        assert measured() == pytest.approx(whole)

    def test_another_library_agrees(self) -> None:
        from torchmetrics.image.kid import poly_mmd

        a, b = (torch.from_numpy(drawn(seed, 40, 6)) for seed in (1, 2))
        assert kernel_distance(a, b + 1) == pytest.approx(float(poly_mmd(a, b + 1)), rel=1e-10)

    @given(seed=SEEDS, width=WIDTHS)
    @settings(max_examples=30, deadline=None)
    def test_symmetric_and_blind_to_rotation(self, seed: int, width: int) -> None:
        a, b, turn = drawn(seed, 8, width), drawn(seed + 1, 6, width) + 1, rotation(seed, width)
        found = kernel_distance(a, b)
        assert found == pytest.approx(kernel_distance(b, a), rel=1e-9, abs=1e-9)
        assert found == pytest.approx(kernel_distance(a @ turn, b @ turn), rel=1e-7, abs=1e-7)

    def test_zero_on_average_for_equal_distributions(self) -> None:
        found = [kernel_distance(drawn(2 * s, 20, 3), drawn(2 * s + 1, 20, 3)) for s in range(300)]
        assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(300)
        assert min(found) < 0 < max(found)
        assert kernel_distance(drawn(1, 20, 3), drawn(2, 20, 3) + 1) > 10 * np.std(found)


class TestReach:
    @given(seed=SEEDS, width=WIDTHS, k=st.integers(1, 4))
    @settings(max_examples=40, deadline=None)
    def test_plain_loops(self, seed: int, *, width: int, k: int) -> None:
        real, fake = drawn(seed, 12, width), drawn(seed + 1, 9, width) + 0.7
        found = precision_recall(real, fake, k=k)
        assert found.precision == pytest.approx(share_by_loops(real, fake, k=k))
        assert found.recall == pytest.approx(share_by_loops(fake, real, k=k))

    @given(seed=SEEDS, width=WIDTHS)
    @settings(max_examples=20, deadline=None)
    def test_everything_within_itself_whatever_the_units(self, seed: int, width: int) -> None:
        rows = drawn(seed, 10, width) * 1e3 + 1e6
        assert precision_recall(rows, rows) == (1.0, 1.0)

    def test_two_modes_of_which_one_is_made(self) -> None:
        near, far = drawn(1, 40, 3) * 0.1, drawn(2, 40, 3) * 0.1 + 50
        precision, recall = precision_recall(np.concatenate([near, far]), near + 1e-4)
        assert (precision, recall) == (1.0, 0.5)
        assert precision_recall(near, far) == (0.0, 0.0)

    def test_repeated_rows(self) -> None:
        same = np.full((6, 2), 0.1)  # every ball has radius 0 and holds all
        assert precision_recall(same, same, k=3) == (1.0, 1.0)
        assert precision_recall(same, same + 1, k=3) == (0.0, 0.0)

    def test_a_point_on_the_rim_is_inside(self) -> None:
        real, fake = np.array([[0.0], [1.0]]), np.array([[2.0], [5.0]])
        assert precision_recall(real, fake, k=1) == (0.5, 1.0)  # 2 is 1 away from 1; the ball of 2 reaches from -1 to 5


class TestInception:
    def test_closed_forms(self) -> None:
        assert inception_score(np.eye(5)) == pytest.approx(5)
        assert inception_score(np.full((7, 4), 0.25)) == pytest.approx(1)
        halves = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
        assert inception_score(halves) == pytest.approx(2)

    @given(seed=SEEDS, splits=st.integers(1, 3))
    @settings(max_examples=30, deadline=None)
    def test_plain_loops(self, seed: int, splits: int) -> None:
        rows = np.random.default_rng(seed).dirichlet(np.ones(5), size=12)
        scores: list[float] = []
        for part in np.split(rows, splits):
            mean = part.mean(0)
            gains = [sum(p * (math.log(p) - math.log(q)) for p, q in zip(row, mean, strict=True) if p) for row in part]
            scores.append(math.exp(sum(gains) / len(gains)))
        assert inception_score(rows, splits=splits) == pytest.approx(sum(scores) / splits, rel=1e-9)
        assert 1 <= inception_score(rows) <= 5

    def test_parts_that_are_not_equal_are_those_of_the_papers_code(self) -> None:
        rows = np.random.default_rng(3).dirichlet(np.ones(4), size=25)
        places = [(25 * part // 10, 25 * (part + 1) // 10) for part in range(10)]
        scores = [inception_score(rows[begin:end]) for begin, end in places]
        assert {end - begin for begin, end in places} == {2, 3}
        assert inception_score(rows, splits=10) == pytest.approx(sum(scores) / 10, rel=1e-12)

    @pytest.mark.parametrize(
        ("rows", "splits", "sentence"),
        [
            (np.array([[2.0, -1.0]]), 1, "probabilities"),
            (np.array([[3.0, 4.0]]), 1, "not logits"),
            (np.eye(3), 4, "4 splits of 3 rows do not fit"),
            (np.eye(3), 0, "0 splits"),
        ],
    )
    def test_what_is_no_probability(self, rows: Array, splits: int, sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            inception_score(rows, splits=splits)


PAIRED = (frechet_distance, kernel_distance, precision_recall)
HOLED = np.ones((8, 2))
HOLED[5, 1] = np.nan


@pytest.mark.parametrize("measure", PAIRED)
@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (np.ones((8, 3)), "features of [23] and [23] numbers"),
        (np.ones(8), r"array \(n, d\).*one of shape \(8,\)"),
        (np.ones((8, 2, 1)), "one of shape"),
        (np.ones((8, 0)), "one of shape"),
        (np.ones((1, 2)), "at least|2 rows|do not fit"),
        (np.ones((0, 2)), "at least|do not fit"),
        (HOLED, "1 of 8 rows of features are not finite, the first is row 5"),
        (np.full((8, 2), np.inf), "8 of 8 rows"),
        (np.full((8, 2), "a"), "real numbers"),
        (np.full((8, 2), 1j), "real numbers"),
    ],
)
def test_features_that_do_not_fit(measure: Callable[..., object], rows: Array, sentence: str) -> None:
    good = drawn(0, 8, 2)
    for pair in ((good, rows), (rows, good)):
        with pytest.raises(InputError, match=sentence):
            measure(*pair)


def test_too_few_neighbours() -> None:
    with pytest.raises(InputError, match="3 rows of features came, 4 at least"):
        precision_recall(drawn(0, 9, 2), drawn(1, 3, 2))
    with pytest.raises(InputError, match="k 0 does not fit"):
        precision_recall(drawn(0, 9, 2), drawn(1, 9, 2), k=0)


def test_tensors_of_any_type_are_welcome() -> None:
    a, b = (torch.from_numpy(drawn(seed, 20, 4)).requires_grad_() for seed in (0, 1))
    expected = frechet_distance(a, b)
    assert frechet_distance(a.detach().numpy(), b.detach().numpy()) == expected
    assert frechet_distance(a.float(), b.float()) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(a.bfloat16(), b.bfloat16()) == pytest.approx(expected, rel=0.1)
    assert kernel_distance(np.eye(3, dtype=np.int64), np.eye(3, dtype=bool)) < 0


@pytest.mark.parametrize("name", darkroom.metrics.__all__)
def test_stable_names(name: str) -> None:
    assert getattr(darkroom.metrics, name).__doc__
    assert name in dir(darkroom.metrics)


def test_the_room_is_there_at_once_and_costs_nothing() -> None:
    script = "import sys, darkroom; darkroom.metrics; import darkroom.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fid'"):
        _ = darkroom.metrics.fid

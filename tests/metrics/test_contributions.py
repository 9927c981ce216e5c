"""Measures as values and contributions: against float64 written down once more, and against how far they move."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from darkroom.core.errors import InputError
from darkroom.metrics.contributions import (
    Estimate,
    frechet,
    interval,
    kernel,
    mean_of,
    reach,
    score,
    share_of,
    some_rows,
)
from darkroom.metrics.sets import Gaussian, frechet_distance, inception_score, kernel_distance, precision_recall


def rows(seed: int, count: int, *, width: int = 6, shift: float = 0.0) -> Tensor:
    """Correlated Gaussian rows whose covariance depends on the width alone."""
    mixed = torch.randn(width, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn @ mixed + shift


def by_numpy(a: np.ndarray, b: np.ndarray) -> float:
    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(sqrtm(one @ other))
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(one + other - 2 * root))


class TestFrechet:
    def test_the_value_is_that_of_the_formula(self) -> None:
        a, b = rows(0, 300), rows(1, 400, shift=0.3)
        value, _ = frechet(Gaussian.of(a), Gaussian.of(b))
        assert value == pytest.approx(by_numpy(a.numpy(), b.numpy()), rel=1e-9)
        assert value == pytest.approx(frechet_distance(a, b), rel=1e-12)

    def test_chunks_of_any_size_give_the_same(self) -> None:
        a, b = rows(0, 301), rows(1, 200, shift=1)
        whole = frechet(Gaussian.of(a), Gaussian.of(b))[0]
        for size in (1, 7, 100):
            first, *others = (Gaussian.of(part) for part in a.split(size))
            assert frechet(sum(others, first), Gaussian.of(b))[0] == pytest.approx(whole, rel=1e-10)

    def test_a_contribution_is_the_derivative(self) -> None:
        a, b, step = rows(0, 80), rows(1, 200, shift=0.5), 1e-4
        found = frechet(Gaussian.of(a), Gaussian.of(b))[1].of(a)
        assert float(found.mean()) == pytest.approx(0, abs=1e-9)
        weights = torch.full((80,), 1 / 80, dtype=torch.float64)
        for place in (0, 17, 79):
            values = []
            for sign in (1, -1):
                moved = weights * (1 - sign * step)
                moved[place] += sign * step
                values.append(self._weighted(a, moved, b))
            assert float(found[place]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-2, abs=0.05)

    def _weighted(self, a: Tensor, weights: Tensor, b: Tensor) -> float:
        """The distance when rows count so much each; covariances as with count - 1."""
        mean = weights @ a
        centred = a - mean
        covariance = (centred * weights[:, None]).T @ centred * (len(a) / (len(a) - 1))
        return frechet_distance(Gaussian(mean, covariance, len(a)), b)

    def test_the_interval_is_as_wide_as_the_value_varies(self) -> None:
        b = Gaussian.of(rows(1, 4000, shift=0.5))
        values, spreads = [], []
        for seed in range(120):
            a = rows(100 + seed, 300)
            value, pull = frechet(Gaussian.of(a), b)
            values.append(value)
            spreads.append(float(pull.of(a).std() / 300**0.5))
        assert np.mean(spreads) == pytest.approx(np.std(values), rel=0.2)

    @pytest.mark.parametrize("count", [4, 6, 7])
    def test_fewer_pictures_than_features(self, count: int) -> None:
        a, b = rows(0, count), rows(1, 50, shift=0.5)
        value, pull = frechet(Gaussian.of(a), Gaussian.of(b))
        assert value == pytest.approx(frechet_distance(a, b), rel=1e-9)
        assert pull.of(a).isfinite().all()
        assert float(pull.of(a).mean()) == pytest.approx(0, abs=1e-8)

    def test_equal_sets_are_0_apart(self) -> None:
        a = rows(0, 5)
        assert frechet(Gaussian.of(a), Gaussian.of(a))[0] == pytest.approx(0, abs=1e-12)

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(InputError, match="2 rows"):
            frechet(Gaussian.of(rows(0, 1)), Gaussian.of(rows(1, 5)))
        with pytest.raises(InputError, match="do not compare"):
            frechet(Gaussian.of(rows(0, 5)), Gaussian.of(rows(1, 5, width=3)))


def test_two_gaussians_are_as_far_apart_as_they_are() -> None:
    scale, shift, count = 1.5, 0.7, 20_000
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(count, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    value, pull = frechet(Gaussian.of(a * scale + shift), Gaussian.of(b))
    true = 5 * shift**2 + 5 * (scale - 1) ** 2
    low, high = interval(Estimate(value, pull.of(a * scale + shift))) or (math.nan, math.nan)
    assert value == pytest.approx(true, rel=0.02)
    assert low < true < high


def test_kernel_distance_and_its_width() -> None:
    b = rows(1, 300, shift=0.4)
    assert kernel(rows(0, 90), b).value == pytest.approx(kernel_distance(rows(0, 90), b), rel=1e-9)
    found = [kernel(rows(50 + seed, 120), b) for seed in range(60)]
    spreads = [float(each.contributions.std() / 120**0.5) for each in found]
    assert np.mean(spreads) == pytest.approx(np.std([each.value for each in found]), rel=0.3)


def test_precision_and_recall() -> None:
    real, fake = rows(0, 70), rows(1, 50, shift=0.6)
    precision, recall = reach(real, fake, k=3)
    assert (precision.value, recall.value) == tuple(precision_recall(real, fake, k=3))
    assert (len(precision.contributions), len(recall.contributions)) == (50, 70)


def test_the_score_is_that_of_probabilities_in_any_chunks() -> None:
    logits = 3 * torch.randn(57, 9, generator=torch.Generator().manual_seed(0))
    rows_ = logits.double().softmax(1).numpy()
    true = np.exp(np.mean(np.sum(rows_ * (np.log(rows_) - np.log(rows_.mean(0))), axis=1)))
    for size in (57, 10, 1):
        found = score(lambda size=size: logits.split(size))
        assert math.exp(found.value) == pytest.approx(true, rel=1e-9)
    assert true == pytest.approx(inception_score(rows_), rel=1e-9)
    with pytest.raises(InputError, match="none came"):
        score(lambda: iter(()))


class TestInterval:
    def test_of_a_mean_it_is_as_wide_as_it_must_be(self) -> None:
        values = torch.randn(2000, generator=torch.Generator().manual_seed(3)) * 4 + 1
        low, high = interval(mean_of(values)) or (0, 0)
        assert high - low == pytest.approx(2 * 1.96 * 4 / 2000**0.5, rel=0.1)
        assert low < float(values.mean()) < high
        assert interval(mean_of(values)) == (low, high)
        assert interval(mean_of(values), seed=1) != (low, high)

    def test_of_many_pictures_in_parts(self) -> None:
        values = torch.randn(50_000, generator=torch.Generator().manual_seed(3))
        low, high = interval(mean_of(values), resamples=200) or (0, 0)
        assert high - low == pytest.approx(2 * 1.96 / 50_000**0.5, rel=0.25)

    def test_one_picture_has_none(self) -> None:
        assert interval(mean_of([1.0])) is None

    @pytest.mark.parametrize(
        ("right", "of", "low", "high"), [(0, 20, 0, 0.1611), (10, 20, 0.2993, 0.7007), (20, 20, 0.8389, 1)]
    )
    def test_shares_have_wilsons(self, right: int, of: int, *, low: float, high: float) -> None:
        found = interval(share_of([place < right for place in range(of)])) or (0, 0)
        assert found == pytest.approx((low, high), abs=1e-4)


def test_some_rows_are_all_or_a_fixed_draw() -> None:
    assert some_rows(5, most=5).tolist() == [0, 1, 2, 3, 4]
    few = some_rows(100, most=10)
    assert few.tolist() == sorted(set(few.tolist())) == some_rows(100, most=10).tolist()
    assert few.tolist() != some_rows(100, most=10, seed=1).tolist()

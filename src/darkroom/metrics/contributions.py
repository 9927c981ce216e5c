"""Measures of sets as a value and what each picture adds to it, from which intervals are drawn.

A measure is a function of a distribution, T(F). Moved a little towards one picture x it changes by the picture's
contribution, the derivative of T(F + ε (δ_x - F)) at ε = 0 (Hampel 1974); contributions have mean 0. To first order a
measure of resampled pictures is the value plus the mean of their contributions, so that a bootstrap needs one number a
picture, also where the measure itself takes minutes (Efron 1982, chapter 6, the infinitesimal jackknife).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from darkroom.core.errors import InputError
from darkroom.core.seeds import generator
from darkroom.core.shapes import PerSample
from darkroom.metrics.sets import Features, Gaussian, balls, frechet_distance, kernel_means, kernel_within, root_of
from darkroom.metrics.shares import wilson

RESAMPLES: Final = 1000
LEVEL: Final = 0.95
_DRAWN: Final = 2**22  # indices that exist at once


@final
@dataclass(frozen=True, eq=False)
class Estimate:
    """A value, and by how much each picture moves it: float64, mean 0 over the pictures.

    share: is it the share of pictures of which something is true?
    """

    value: float
    contributions: PerSample
    share: bool = False


@final
class Interval(NamedTuple):
    """Where a value would lie for other pictures of the same kind."""

    low: float
    high: float


def mean_of(values: Iterable[float] | Tensor) -> Estimate:
    """The mean of one number a picture."""
    each = values.double() if isinstance(values, Tensor) else torch.tensor(list(values), dtype=torch.float64)
    mean = float(each.mean())
    return Estimate(mean, each - mean)


def share_of(answers: Iterable[bool] | Tensor) -> Estimate:
    """The share of pictures of which something is true."""
    found = mean_of([float(each) for each in answers])
    return Estimate(found.value, found.contributions, share=True)


def interval(estimate: Estimate, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Interval | None:
    """The bootstrap's percentiles: pictures are drawn with replacement, `resamples` times; None for one picture.

    level: the share of resamples that lies within (Efron & Tibshirani 1993, chapter 13). Shares have Wilson's interval
    of 1927 instead, for resamples of pictures that are all alike say nothing.
    """
    parts = estimate.contributions
    if len(parts) < 2:
        return None
    if estimate.share:
        return Interval(*wilson(estimate.value, count=len(parts), level=level))
    draw = generator(seed, len(parts), purpose="metrics/bootstrap")
    means = torch.empty(resamples, dtype=parts.dtype)
    for place in means.split(max(1, _DRAWN // len(parts))):
        place.copy_(parts[torch.randint(len(parts), (len(place), len(parts)), generator=draw)].mean(1))
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(means, ends).tolist()
    return Interval(estimate.value + low, estimate.value + high)


@final
@dataclass(frozen=True, eq=False)
class Pull:
    """The contributions of rows (n, d) of the first of two sets to their Fréchet distance, chunk by chunk.

    2 (μ - μ')·(x - μ) + |x - μ|² - (x - μ)ᵀ T (x - μ), less its mean; T is the linear map that carries the one Gaussian
    to the other, and half of it the derivative of tr (Σ^½ Σ' Σ^½)^½ by Σ.
    """

    mean: Float[Tensor, " d"]
    shift: Float[Tensor, " d"]
    carried: Float[Tensor, "r d"]  # its square is T where there are pictures
    level: float

    def of(self, rows: Float[Tensor, "n d"]) -> PerSample:
        """Of these rows, (n) float64."""
        centred = rows.double() - self.mean
        moved = centred @ self.carried.T
        return 2 * centred @ self.shift + centred.square().sum(1) - moved.square().sum(1) - self.level


def frechet(one: Gaussian, other: Gaussian) -> tuple[float, Pull]:
    """The Fréchet distance of two sets, and what the pictures of the first add to it."""
    if min(one.count, other.count) < 2 or one.mean.shape != other.mean.shape:
        frechet_distance(one, other)  # says what does not fit
    root, shift = root_of(one.covariance), one.mean - other.mean
    left, values, _ = torch.linalg.svd(root.T @ root_of(other.covariance), full_matrices=False)
    spread = one.covariance.trace() + other.covariance.trace() - 2 * values.sum()
    lengths = root.square().sum(0)  # orthogonal columns: their squares are the eigenvalues
    carried = values.sqrt()[:, None] * left.T @ (root / lengths).T
    share = (one.count - 1) / one.count  # the mean over the pictures, where the covariance has count - 1
    level = share * float(one.covariance.trace() - values.sum())
    value = max(0.0, float(shift.square().sum() + spread))
    return value, Pull(one.mean, shift, carried, level)


def kernel(drawn: Features, reference: Features) -> Estimate:
    """`kernel_distance`, and what each drawn row adds to it: twice its mean kernel with its own set less the other's.

    Near 0, where these are as good as noise, the interval is wider than it need be.
    """
    within, across = kernel_means(drawn, reference)
    value = float(within.mean()) + kernel_within(reference) - 2 * float(across.mean())
    parts = 2 * (within - across)
    return Estimate(value, parts - parts.mean())


def reach(real: Features, fake: Features, *, k: int) -> tuple[Estimate, Estimate]:
    """`precision_recall` as shares of the fake and of the real rows; the other set stays as it is."""
    return share_of(balls(real, fake, k=k)), share_of(balls(fake, real, k=k))


def score(logits: Callable[[], Iterable[Float[Tensor, "n classes"]]]) -> Estimate:
    """The logarithm of the inception score of pictures whose classes have these logits, read in chunks, twice.

    A picture adds KL(p(y|x) ‖ p(y)) less the logarithm of the score, which is the mean of these.
    """
    total, count = torch.zeros(()), 0
    for part in logits():
        total, count = total + part.double().softmax(1).sum(0), count + len(part)
    if count == 0:
        raise InputError("the inception score needs pictures, none came")
    marginal = (total / count).log()
    apart: list[Tensor] = []
    for part in logits():
        certain = part.double().log_softmax(1)
        apart.append((certain.exp() * (certain - marginal)).sum(1))
    return mean_of(torch.cat(apart))


def some_rows(count: int, *, most: int, seed: int = 0) -> Int[Tensor, " n"]:
    """At most so many of `count` rows, drawn by the seed, in order: what stands for a set that is too large."""
    if count <= most:
        return torch.arange(count)
    drawn = torch.randperm(count, generator=generator(seed, count, purpose="metrics/some"))
    return drawn[:most].sort().values

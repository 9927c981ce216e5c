"""How alike two sets of pictures are, seen through features (n, d); all sums in float64 on the CPU."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from darkroom.core.errors import InputError

Features: TypeAlias = np.ndarray | Tensor  # (n, d), a row per picture, of any real type
_Rows: TypeAlias = Float[Tensor, "n d"]
_CELLS: Final = 2**22  # entries of a pairwise matrix that exist at once (32 MiB)


@final
@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean (d) and covariance (d, d; divided by count - 1) of features, float64: all that the Frechet distance needs.

    Chunks are summed up with `of` and put together with `+`, so that no more than one chunk is ever held.
    """

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]
    count: int

    @classmethod
    def of(cls, features: Features) -> "Gaussian":
        """The mean and covariance of these rows, one at least; `InputError` as for `frechet_distance`."""
        rows = _rows(features, least=1)
        mean = rows.mean(0)
        centred = rows - mean
        return cls(mean, centred.T @ centred / max(1, len(rows) - 1), len(rows))

    def __add__(self, other: "Gaussian") -> "Gaussian":
        """That of the rows of both (Chan et al. 1979)."""
        _same_width(len(self.mean), len(other.mean))
        count, shift = self.count + other.count, other.mean - self.mean
        scatter = self.covariance * (self.count - 1) + other.covariance * (other.count - 1)
        scatter += torch.outer(shift, shift) * (self.count * other.count / count)
        return Gaussian(self.mean + shift * (other.count / count), scatter / (count - 1), count)


@final
class PrecisionRecall(NamedTuple):
    """Shares, 0..1: of the made pictures that look real, and of the real ones that could have been made."""

    precision: float
    recall: float


def frechet_distance(a: Features | Gaussian, b: Features | Gaussian) -> float:
    """The Frechet distance of two Gaussians fitted to features (n, d): FID when the features are Inception's.

    |μa - μb|² + tr(Σa + Σb - 2 (Σa^½ Σb Σa^½)^½); also where n < d. The last trace is the sum of the singular values
    of Σa^½ Σb^½: taking roots of eigenvalues that should be 0 would turn an error of 1e-16 into one of 1e-8.
    `InputError` for fewer than 2 rows, different widths or values that are not finite. Heusel et al. 2017.
    """
    one, other = (each if isinstance(each, Gaussian) else Gaussian.of(each) for each in (a, b))
    _same_width(len(one.mean), len(other.mean))
    for each in (one, other):
        if each.count < 2:
            raise InputError(f"a covariance needs 2 rows of features at least, {each.count} came")
    together = torch.linalg.svdvals(root_of(one.covariance).T @ root_of(other.covariance)).sum()
    spread = one.covariance.trace() + other.covariance.trace() - 2 * together
    return max(0.0, float((one.mean - other.mean).square().sum() + spread))


def kernel_distance(a: Features, b: Features) -> float:
    """The squared maximum mean discrepancy of two feature sets (n, d) and (m, d), unbiased: KID over all rows.

    Kernel (x·y / d + 1)³. Unbiased means 0 on average for equal distributions, so it may be negative. `InputError`
    for fewer than 2 rows, different widths or values that are not finite. Binkowski et al. 2018.
    """
    one, other = _pair(a, b, least=2)
    across = _kernel_sum(one, other) / (len(one) * len(other))
    return _within(one) + _within(other) - 2 * across


def kernel_means(a: Features, b: Features) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Of each row of a (n, d) its mean kernel with the other rows of a, and with those of b (m, d)."""
    one, other = _pair(a, b, least=2)
    width = one.shape[1]
    itself = (one.square().sum(1) / width + 1).pow(3)
    sums = torch.zeros(2, len(one), dtype=one.dtype)
    for total, rows in zip(sums, (one, other), strict=True):
        for place, part in zip(_parts(total, len(rows)), _parts(one, len(rows)), strict=True):
            place.copy_((part @ rows.T / width + 1).pow(3).sum(1))
    return (sums[0] - itself) / (len(one) - 1), sums[1] / len(other)


def kernel_within(rows: Features) -> float:
    """The mean kernel of two different rows of a set (n, d)."""
    return _within(_rows(rows, least=2))


def balls(centres: Features, points: Features, *, k: int) -> Bool[Tensor, " m"]:
    """Which points (m, d) lie within the reach of centres (n, d), as `precision_recall` has it."""
    reals, fakes = _neighbours(centres, points, k=k)
    found = torch.empty(len(fakes), dtype=torch.bool)
    for place, inside in zip(_parts(found, len(reals)), _inside(reals, fakes, k=k), strict=True):
        place.copy_(inside.any(1))
    return found


def precision_recall(real: Features, fake: Features, *, k: int = 3) -> PrecisionRecall:
    """Shares of fake rows within the reach of real ones, and of real rows within the reach of fake ones.

    The reach of a set is the union of balls around its rows, each as large as the distance to the k-th nearest other
    row. `InputError` for k rows or fewer, different widths or values that are not finite. Kynkaanniemi et al. 2019.
    """
    return PrecisionRecall(*(float(balls(*pair, k=k).double().mean()) for pair in ((real, fake), (fake, real))))


def inception_score(probabilities: Features, *, splits: int = 1) -> float:
    """exp(E[KL(p(y|x) ‖ p(y))]) of class probabilities (n, classes), 1 to the number of classes; higher is better.

    splits: consecutive parts whose scores are averaged (the paper takes 10), part i from row i n // splits on, as in
    the paper's code · `InputError` for rows that are no probabilities (negative, or a sum other than 1, as logits have)
    and for more splits than rows. Salimans et al. 2016.
    """
    rows = _rows(probabilities, least=1)
    sums = rows.sum(1, keepdim=True)
    if bool((rows < 0).any()) or bool(((sums - 1).abs() > 1e-3).any()):
        raise InputError("the inception score needs probabilities: no row negative, every row with sum 1 (not logits)")
    if not 1 <= splits <= len(rows):
        raise InputError(f"{splits} splits of {len(rows)} rows do not fit; 1 to {len(rows)} do")
    begins = tuple(part * len(rows) // splits for part in range(1, splits))
    scores = [_score(part) for part in (rows / sums).tensor_split(begins)]
    return math.fsum(scores) / splits


def _score(rows: _Rows) -> float:
    entropy = torch.special.entr(rows).sum(1).mean()
    return float((torch.special.entr(rows.mean(0)).sum() - entropy).exp())


def root_of(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d r"]:
    """R with R Rᵀ = covariance and orthogonal columns; those that are rounding errors left out."""
    values, vectors = torch.linalg.eigh(covariance)
    smallest = values[-1].abs() * len(values) * torch.finfo(values.dtype).eps
    kept = values > smallest
    return vectors[:, kept] * values[kept].sqrt()


def _within(rows: _Rows) -> float:
    return (_kernel_sum(rows, rows) - _kernel_diagonal(rows)) / (len(rows) * (len(rows) - 1))


def _kernel_sum(one: _Rows, other: Float[Tensor, "m d"]) -> float:
    width = one.shape[1]
    return math.fsum(float((part @ other.T / width + 1).pow(3).sum()) for part in _parts(one, len(other)))


def _kernel_diagonal(rows: _Rows) -> float:
    return float((rows.square().sum(1) / rows.shape[1] + 1).pow(3).sum())


def _neighbours(real: Features, fake: Features, *, k: int) -> tuple[Tensor, Tensor]:
    """Both sets moved so that the real one has mean 0, where distances round least."""
    if k < 1:
        raise InputError(f"k {k} does not fit; neighbours are counted from 1")
    reals, fakes = _pair(real, fake, least=k + 1)
    middle = reals.mean(0)
    return reals - middle, fakes - middle


def _inside(centres: _Rows, points: Float[Tensor, "m d"], *, k: int) -> Iterator[Bool[Tensor, "_part n"]]:
    """Chunk by chunk of points: which lie in the ball of which centre, its k-th nearest other row on the rim."""
    # Filled in place: small answers between large chunks would keep the chunks' memory from being given back.
    radii = torch.empty(len(centres), dtype=centres.dtype)  # squared; the nearest row of all is the centre itself
    for place, part in zip(_parts(radii, len(centres)), _parts(centres, len(centres)), strict=True):
        place.copy_(_squares(part, centres).kthvalue(k + 1, dim=1).values)
    largest = max(float(each.square().sum(1).max()) for each in (centres, points))
    rim = radii + 16 * largest * torch.finfo(radii.dtype).eps  # equal distances must not differ by rounding
    for part in _parts(points, len(centres)):
        yield _squares(part, centres) <= rim


def _squares(one: _Rows, other: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Squared distances."""
    lengths = one.square().sum(1, keepdim=True) + other.square().sum(1)
    return (lengths - 2 * one @ other.T).clamp(min=0)


def _parts(rows: Tensor, width: int) -> tuple[Tensor, ...]:
    """Chunks of rows whose pairwise matrix with `width` others stays small."""
    return rows.split(max(1, _CELLS // width))


def _pair(a: Features, b: Features, *, least: int) -> tuple[Tensor, Tensor]:
    one, other = (_rows(each, least=least) for each in (a, b))
    _same_width(one.shape[1], other.shape[1])
    return one, other


def _rows(features: Features, *, least: int) -> Tensor:
    """(n, d) float64 on the CPU; `InputError` for another shape, too few rows, or values that are not finite."""
    if isinstance(features, np.ndarray):
        if features.dtype.kind not in "biuf":
            raise InputError(f"features are real numbers (n, d), an array of {features.dtype} came")
        features = torch.from_numpy(features.astype(np.float64))
    rows = features.detach().cpu().double()
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise InputError(f"features are an array (n, d), a row per picture; one of shape {tuple(rows.shape)} came")
    if len(rows) < least:
        raise InputError(f"{len(rows)} rows of features came, {least} at least are needed")
    bad = ~rows.isfinite().all(1)
    if bool(bad.any()):
        raise InputError(
            f"{int(bad.sum())} of {len(rows)} rows of features are not finite, the first is row {int(bad.nonzero()[0])}"
        )
    return rows


def _same_width(one: int, other: int) -> None:
    if one != other:
        raise InputError(f"features of {one} and {other} numbers do not compare; both sets need the same network")

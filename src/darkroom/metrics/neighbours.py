"""Which training pictures a made picture is nearest to, and whether it is a copy of one.

The judge's pooled features do not see copies: of reconstructed emoji, which are copies by making, only one in five is
nearest to its own original in them, and all of them are in 16 x 16 pixels. So copies are sought in `thumbprints`.
"""

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from darkroom.core.errors import InputError
from darkroom.core.shapes import Images, PerSample
from darkroom.metrics.sets import Features

SIDE: Final = 16  # pixels: layout and colours are left, noise and the blur of a first stage are not
NEAR: Final = 50  # neighbours that say how far near is: n of Carlini et al. 2023
CLOSE: Final = 0.5  # closeness from which on nothing is a copy: their alpha
SAME: Final = 0.1  # an unseen picture as close as this is itself a near duplicate of a training picture
ALARMS: Final = 0.01  # share of unseen pictures that may be taken for copies
_QUERIES, _REFERENCES = 64, 8192  # rows whose distances exist at once


@final
@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest rows of another set, the nearest first: their numbers and Euclidean distances (float64)."""

    indices: Int[Tensor, "n k"]
    distances: Float[Tensor, "n k"]


@final
@dataclass(frozen=True)
class Memorisation:
    """How samples stand to the training set, beside pictures that training never saw.

    closeness: of each sample · limit: below it a picture is a near copy · chance: that a picture as new as the unseen
    ones is called a copy, at most · copied: which samples are · unseen: how many pictures training never saw, and of
    those `unseen_copied` are below the limit · duplicates: unseen pictures that are near duplicates
    of training pictures, which say nothing about chance and are among `unseen_copied` · known, found: pictures that are
    copies by making, and how many of them are below the limit · distance, unseen_distance: medians to the nearest
    training picture · nearer: share of pairs in which the sample is nearer to the training set than the unseen picture
    (0.5: as near; Mann-Whitney's U, on which the test of Meehan et al. 2020 for data-copying stands).
    """

    closeness: tuple[float, ...]
    limit: float
    chance: float
    copied: tuple[bool, ...]
    unseen: int
    unseen_copied: int
    duplicates: int
    known: int
    found: int
    distance: float
    unseen_distance: float
    nearer: float

    @property
    def copies(self) -> int:
        """Number of samples that are near copies."""
        return sum(self.copied)

    @property
    def evident(self) -> bool:
        """Are copies more than twice as frequent among samples as among unseen pictures?"""
        return self.copies * self.unseen > 2 * self.unseen_copied * len(self.copied)

    @property
    def luck(self) -> float:
        """Probability of as many copies or more among as many pictures as new as the unseen ones (binomial).

        The rate is the promised one, or that of the unseen pictures where it is higher.
        """
        rate, count = max(self.chance, self.unseen_copied / self.unseen), len(self.copied)
        if rate >= 1:
            return 1.0
        whole, yes, no = math.lgamma(count + 1), math.log(rate), math.log1p(-rate)
        fewer = (
            math.exp(whole - math.lgamma(hits + 1) - math.lgamma(count - hits + 1) + hits * yes + (count - hits) * no)
            for hits in range(self.copies)
        )
        return max(0.0, 1 - math.fsum(fewer))


def thumbprints(images: Images) -> Float[Tensor, "b d"]:
    """Pictures in [-1, 1] as means over `SIDE` x `SIDE` fields, flattened.

    Scaled so that the Euclidean distance of two is the root mean square difference of their fields, 0 for equal ones
    and 1 for black against white. What is transparent is laid over mid-grey.
    """
    pictures = images.float().clamp(-1, 1)
    if pictures.shape[1] == 4:
        pictures = pictures[:, :3] * ((pictures[:, 3:] + 1) / 2)
    fields = rearrange(F.adaptive_avg_pool2d(pictures, SIDE), "b c h w -> b (c h w)")
    return fields / (2 * fields.shape[1] ** 0.5)


def nearest(queries: Features, references: Features, *, k: int = 1) -> Neighbours:
    """The k references (m, d) nearest to each query; equal distances in the order of their numbers.

    queries: (n, d), or (n, v, d) with v views of each, of which the nearest counts (a picture and its mirror image).
    Works through parts of both, so 100,000 references cost little more memory than they hold. `InputError` for other
    shapes, different widths, values that are not finite, and fewer than k references.
    """
    asked, known = _vectors(queries), _vectors(references)
    if asked.ndim == 2:
        asked = rearrange(asked, "n d -> n 1 d")
    if known.ndim != 2 or asked.shape[-1] != known.shape[-1]:
        raise InputError(
            f"neighbours of features {tuple(asked.shape)} among {tuple(known.shape)} cannot be found; (n, d) or "
            "(n, v, d) among (m, d) can"
        )
    if not 1 <= k <= len(known):
        raise InputError(f"{k} neighbours among {len(known)} do not fit; 1 to {len(known)} do")
    parts = [_nearest(part, known, k=k) for part in asked.split(_QUERIES)]
    return Neighbours(torch.cat([each.indices for each in parts]), torch.cat([each.distances for each in parts]))


def closeness(distances: Float[Tensor, "n k"]) -> PerSample:
    """How much nearer the nearest picture is than near pictures are: d_1 / mean(d_1 ... d_k), 0 for a copy, at most 1.

    The measure by which Carlini et al. 2023 (section 5.1) extract training pictures, with k = 50: a distance alone
    would call every plain picture a copy, for plain pictures are near to many. A group of duplicates much smaller
    than k hides nothing; a picture that the training set holds k times does hide (1, as if nothing were near).
    """
    mean = distances.mean(1)
    return torch.where(mean > 0, distances[:, 0] / mean, torch.ones_like(mean))


def memorisation(
    samples: Float[Tensor, "n k"], unseen: Float[Tensor, "m k"], *, copies: Float[Tensor, "c k"] | None = None
) -> Memorisation:
    """Which samples are near copies of training pictures, from distances to their nearest ones (`nearest`, k = 50).

    A sample is one when its closeness is below min(1/2, q), q the 1 % quantile of the closeness of unseen pictures:
    the r-th smallest of m with r = max(1, floor(0.01 (m + 1))), so that a picture as new as those is called a copy
    with a probability of r / (m + 1) at most, whatever the data is like. Unseen pictures closer than 0.1 are
    duplicates across the split and do not set the limit.
    copies: those of pictures known to be copies, which show whether the rule would see one.
    """
    if not len(samples) or not len(unseen):
        raise InputError(f"{len(samples)} samples and {len(unseen)} unseen pictures came; at least 1 of each fits")
    found, apart = closeness(samples), closeness(unseen)
    new = apart > SAME
    limit, chance = _limit(apart[new])
    known = closeness(samples[:0] if copies is None else copies)
    ours, theirs = samples[:, 0], unseen[new if bool(new.any()) else ~new][:, 0]
    before, level = (ours[:, None] < theirs).double(), (ours[:, None] == theirs).double()
    return Memorisation(
        closeness=tuple(found.tolist()),
        limit=limit,
        chance=chance,
        copied=tuple((found < limit).tolist()),
        unseen=len(unseen),
        unseen_copied=int((apart < limit).sum()),
        duplicates=int((~new).sum()),
        known=len(known),
        found=int((known < limit).sum()),
        distance=float(ours.median()),
        unseen_distance=float(unseen[:, 0].median()),
        nearer=float((before + level / 2).mean()),
    )


def _limit(values: PerSample) -> tuple[float, float]:
    """The limit, and how often a new picture is below it at most."""
    if not len(values):
        return SAME, 1.0
    place = max(1, int(ALARMS * (len(values) + 1)))
    return min(CLOSE, float(values.kthvalue(place).values)), place / (len(values) + 1)


def _nearest(asked: Float[Tensor, "n v d"], known: Float[Tensor, "m d"], *, k: int) -> Neighbours:
    """Of a few queries, part by part of the references; the distances of what is left are then worked out exactly."""
    views = rearrange(asked.double(), "n v d -> (n v) d")
    best = torch.empty(len(asked), 0, dtype=torch.double)
    rows = torch.empty(len(asked), 0, dtype=torch.long)
    for start in range(0, len(known), _REFERENCES):
        part = known[start : start + _REFERENCES].double()
        near = rearrange(torch.cdist(views, part), "(n v) m -> n v m", n=len(asked)).amin(1)
        here = torch.arange(start, start + len(part)).expand(len(asked), -1)
        best, rows = torch.cat([best, near], dim=1), torch.cat([rows, here], dim=1)
        best, place = best.topk(min(k, best.shape[1]), largest=False)
        rows = rows.gather(1, place)
    rows = rows.sort(1).values
    apart = rearrange(asked.double(), "n v d -> n v 1 d") - rearrange(known[rows].double(), "n k d -> n 1 k d")
    distances, order = torch.linalg.vector_norm(apart, dim=-1).amin(1).sort(stable=True)
    return Neighbours(rows.gather(1, order), distances)


def _vectors(features: Features) -> Tensor:
    """(n, d) or (n, v, d) on the CPU, of the float type that came; `InputError` for what is neither."""
    values = torch.from_numpy(features) if isinstance(features, np.ndarray) else features.detach().cpu()
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise InputError(f"features are an array (n, d), a row per picture; one of shape {tuple(values.shape)} came")
    values = values if values.is_floating_point() else values.double()
    if not bool(values.isfinite().all()):
        raise InputError("features that are not finite have no neighbours")
    return values

"""A table of noise levels in the words of an original YAML: the ramp that it is up to rounding, or the nearest one."""

import itertools
import math
from collections.abc import Iterator
from typing import Final, TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from darkroom.process.schedule import (
    DiscreteSchedule,
    LinearSpec,
    SqrtSpec,
    TableSpec,
    TrueLinearSpec,
    build_schedule,
)

Ramp: TypeAlias = LinearSpec | TrueLinearSpec | SqrtSpec
Powers: TypeAlias = Float64[Tensor, " t"]
Ends: TypeAlias = Float64[Tensor, "2"]
ROUNDED: Final = (torch.bfloat16, torch.float16)  # which holds what the former does, in this range
FINE: Final = 1e-5  # of its value: how far a power that was not rounded may be from that of a ramp
DIGITS: Final = (2, 3, 4, 5, 17)  # of start and end: what a person would write, before what was fitted
ROUNDS: Final = 20
_KINDS: Final[dict[type[Ramp], int]] = {LinearSpec: 1, TrueLinearSpec: 1, SqrtSpec: 2}  # start = first beta ^ this


def nearest_ramp(table: TableSpec) -> tuple[Ramp, float]:
    """The ramp nearest to a table whose powers are all above 0, and by how much its powers are off at most.

    0 when the table holds nothing else than the ramp's powers, rounded to float16, bfloat16 or float32.
    """
    powers = torch.tensor(table.powers, dtype=torch.float64)
    fitted = [_fitted(powers, kind) for kind in _KINDS]
    same = next((ramp for each in fitted for ramp in _shortened(each) if _rounds_to(ramp, powers)), None)
    if same is not None:
        return same, 0.0
    return min(((each, _apart(each, powers)) for each in fitted), key=lambda pair: pair[1])


def _shortened(ramp: Ramp) -> Iterator[Ramp]:
    """The same ends with fewer digits, the fewest first."""
    for digits in sorted(itertools.product(DIGITS, repeat=2), key=sum):
        start, end = (float(f"{end:.{count}g}") for end, count in zip((ramp.start, ramp.end), digits, strict=True))
        if 0 < start <= end < 1:
            yield ramp.model_copy(update={"start": start, "end": end})


def _rounds_to(ramp: Ramp, powers: Powers) -> bool:
    """Are these the ramp's powers, in the precision in which they are given?"""
    exact = (dtype for dtype in ROUNDED if torch.equal(powers.to(dtype).double(), powers))
    given = next(exact, None)
    if given is None:
        bounds = FINE * powers
    else:
        about = torch.finfo(given)
        bounds = 0.51 * about.eps * powers.clamp(min=about.smallest_normal)
    return bool(((_powers(ramp) - powers).abs() <= bounds).all())


def _apart(ramp: Ramp, powers: Powers) -> float:
    return float((_powers(ramp) - powers).abs().max())


def _powers(ramp: Ramp) -> Powers:
    schedule = build_schedule(ramp)
    assert isinstance(schedule, DiscreteSchedule)
    return schedule.alphas_cumprod[:-1]


def _fitted(powers: Powers, kind: type[Ramp]) -> Ramp:
    """Least squares of the logarithms of powers over those of both ends, by Gauss and Newton."""
    wanted, steps = powers.log(), len(powers)
    mean = -math.expm1(float(wanted[-1]) / steps)  # the beta that is the same at all times
    ends = torch.tensor([mean / 2, mean * 1.5], dtype=torch.float64).clamp(1e-8, 0.99).pow(_KINDS[kind]).log()
    for _ in range(ROUNDS):
        here = _levels(kind, ends, steps=steps)
        nudged = (ends + 1e-6 * torch.eye(2, dtype=torch.float64)[each] for each in range(2))
        slopes = torch.stack([(_levels(kind, each, steps=steps) - here) / 1e-6 for each in nudged], dim=1)
        step = torch.linalg.lstsq(slopes, (wanted - here)[:, None]).solution[:, 0]
        ends = (ends + step.clamp(-1, 1)).clamp(math.log(1e-12), math.log(0.999))
    return _ramp(kind, ends, steps=steps)


def _levels(kind: type[Ramp], ends: Ends, *, steps: int) -> Powers:
    return _powers(_ramp(kind, ends, steps=steps)).log()


def _ramp(kind: type[Ramp], ends: Ends, *, steps: int) -> Ramp:
    start, end = sorted(ends.exp().tolist())
    return kind(start=start, end=end, steps=steps)

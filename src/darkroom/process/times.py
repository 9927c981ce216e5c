"""Grids of times: where the network is evaluated, and where the last step goes."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from darkroom.core.errors import InputError, did_you_mean
from darkroom.core.shapes import Time
from darkroom.process.schedule import Schedule

Grid: TypeAlias = Float[Tensor, " n"] | Int[Tensor, " n"]

GRIDS = ("trailing", "original", "original-quad")
MOST = 1_000_000  # steps in continuous time


@final
@dataclass(frozen=True, eq=False)
class Times:
    """The times a network is evaluated at, and the time where the last step ends (by itself not evaluated).

    visited: (n,) strictly decreasing, int64 for a discrete schedule, float64 for a continuous one ·
    end: below all of them. `InputError` when the times do not decrease.
    """

    visited: Grid
    end: int | float

    def __post_init__(self) -> None:
        if len(self.visited) == 0:
            raise InputError("a grid of times is empty; at least one time is needed")
        path = [*_numbers(self.visited), self.end]
        for earlier, later in itertools.pairwise(path):
            if not later < earlier:
                raise InputError(f"times must strictly decrease (after rounding): {later} follows {earlier}")


def trailing(schedule: Schedule, steps: int) -> Times:
    """Evenly spaced from the noisiest time, the last step ending at clean data; any count from 1 to T works.

    Discrete: t_i = round((S - i) T / S) - 1 for i = 0 .. S-1, so that S = T visits every time once; halves are rounded
    to even, of steps of T / S in float64, so that these are diffusers' times at every count.
    Continuous: t_i = t_max (S - i) / S.
    """
    _check_count(schedule, steps)
    if schedule.steps is None:
        left = torch.arange(steps, 0, -1, dtype=torch.float64, device="cpu")
        return Times(schedule.noisiest * left / steps, end=schedule.clean)
    left = np.arange(schedule.steps, 0, -schedule.steps / steps)[:steps]  # rounding may leave one more, of nearly 0
    return Times(torch.tensor(left.round().astype(np.int64) - 1, device="cpu"), end=schedule.clean)


def original(schedule: Schedule, steps: int) -> Times:
    """The original's uniform grid: 0, c, 2c, ... < T with c = T // steps, plus one; it ends at time 0.

    The number of times may exceed `steps` (7 of 1000 gives 8). `InputError` where the original fails because
    its highest time would be T itself; the message names the nearest counts that work.
    """
    total = _discrete(schedule, "original")
    _check_count(schedule, steps)
    if not _original_works(total, steps):
        near = _nearest_that_work(total, steps)
        raise InputError(
            f"steps={steps} does not work with times='original' on {total} times (its highest time "
            f"would be {total}, past the last, {total - 1}); the nearest counts that work: {near}"
        )
    tau = torch.arange(0, total, total // steps, device="cpu") + 1
    return Times(tau.flip(0), end=0)


def original_quad(schedule: Schedule, steps: int) -> Times:
    """The original's quadratic grid: trunc(linspace(0, sqrt(0.8 T), steps)^2) + 1; it ends at time 0.

    `InputError` where it visits a time twice, as it does for large counts.
    """
    total = _discrete(schedule, "original-quad")
    _check_count(schedule, steps)
    tau = np.trunc(np.linspace(0, math.sqrt(0.8 * total), steps) ** 2).astype(np.int64) + 1
    if len(np.unique(tau)) < steps or tau[-1] >= total:
        raise InputError(f"steps={steps} is too many for times='original-quad' on {total} times: some coincide")
    return Times(torch.tensor(tau[::-1].copy(), device="cpu"), end=0)


def given(schedule: Schedule, visited: Grid) -> Times:
    """Times named one by one, noisiest first; the last step ends at clean data.

    A last entry that is itself the clean time is where the walk ends, not a visit. For a discrete schedule
    the numbers are rounded. `InputError` when they do not decrease or lie outside the schedule.
    """
    numbers = visited.to("cpu", torch.float64)
    if schedule.steps is not None:
        numbers = numbers.round().long()
    values = _numbers(numbers)
    _check_range(schedule, values)
    last_is_clean = len(values) > 1 and values[-1] == schedule.clean
    return Times(numbers[:-1] if last_is_clean else numbers, end=schedule.clean)


def choose_times(schedule: Schedule, times: "str | Tensor | Times | None" = None, *, steps: int = 50) -> Times:
    """The grid by name ("trailing", "original", "original-quad"), its times, or as it is; None is trailing.

    `steps` counts for the named grids alone. `InputError` for an unknown name or a count that does not fit.
    """
    match times:
        case None | "trailing":
            return trailing(schedule, steps)
        case "original":
            return original(schedule, steps)
        case "original-quad":
            return original_quad(schedule, steps)
        case Tensor():
            return given(schedule, times)
        case Times():
            _check_range(schedule, [*_numbers(times.visited), times.end])
            return times
        case _:
            raise InputError(f"unknown times {times!r}{did_you_mean(times, GRIDS)}")


def earlier(schedule: Schedule, t: Time, *, distance: float) -> Time:
    """Each time moved towards clean data by `distance`, a share of the whole way from noise, at most to clean data.

    In a discrete schedule it moves by one time at least.
    """
    if schedule.steps is None:
        return (t - distance * schedule.noisiest).clamp(min=schedule.clean)
    return (t - max(1, round(distance * schedule.steps))).clamp(min=schedule.clean)


def _numbers(values: Grid) -> list[int | float]:
    return cast("list[int | float]", values.tolist())


def _discrete(schedule: Schedule, name: str) -> int:
    if schedule.steps is None:
        raise InputError(f"times={name!r} belongs to discrete schedules; this one is continuous, use 'trailing'")
    return schedule.steps


def _check_count(schedule: Schedule, steps: int) -> None:
    if steps < 1:
        raise InputError(f"steps={steps}: at least 1 step is needed")
    if schedule.steps is not None and steps > schedule.steps:
        raise InputError(f"more steps than times: {steps} steps asked for, the schedule has {schedule.steps} times")
    if steps > MOST:
        raise InputError(f"steps={steps} does not fit: at most {MOST} are taken")


def _check_range(schedule: Schedule, values: Sequence[int | float]) -> None:
    low, high = schedule.clean, schedule.noisiest
    for value in values:
        if not low <= value <= high:
            raise InputError(f"time {value} lies outside {low} (clean) to {high} (noisiest)")


def _original_works(total: int, steps: int) -> bool:
    return (total - 1) % (total // steps) != 0


def _nearest_that_work(total: int, steps: int) -> str:
    below = next((n for n in range(steps, 0, -1) if _original_works(total, n)), None)
    above = next((n for n in range(steps, total + 1) if _original_works(total, n)), None)
    return " and ".join(str(count) for count in (below, above) if count is not None) or "none"

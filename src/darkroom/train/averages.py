"""Averages of the weights whose width is chosen afterwards (Karras et al. 2024, section 3 and appendix C).

A power-function average weighs the weights after update k of t with (k^p - (k - 1)^p) / t^p, p = gamma + 1. Two of them
are tracked and stored along the way; any other is, nearly, a sum of those snapshots, found by least squares of these
profiles.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, final

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.parallel import is_first, part_like, whole_on_first
from darkroom.core.record import atomic
from darkroom.train.optim import WIDEST, AveragesSpec

FOLDER: Final = "averages"
MISFIT: Final = 0.05
Profile = tuple[float, int]  # the exponent p, and the number t of updates


def exponent(width: float) -> float:
    """p of the average whose profile has this deviation, as a share of training (equation 126).

    `InputError` for a width that no power function has.
    """
    if not 0 < width < WIDEST:
        raise InputError(f"an average {width:g} wide cannot be; more than 0 and less than {WIDEST} fits, e.g. 0.1")
    share = width**-2
    roots = np.roots([1, 7, 16 - share, 12 - share])
    return float(roots.real.max()) + 1


@final
class PowerAverages:
    """The averages that are tracked, over everything that is trained."""

    def __init__(self, parameters: Sequence[nn.Parameter], spec: AveragesSpec) -> None:
        self.parameters, self.spec = list(parameters), spec
        self.exponents = [exponent(width) for width in spec.widths]
        self.updates = 0
        self.tracked = [[each.detach().clone() for each in self.parameters] for _ in self.exponents]

    @torch.no_grad()
    def update(self) -> None:
        """average <- beta average + (1 - beta) weight, beta = (1 - 1/t)^p, at update t (equation 127)."""
        self.updates += 1
        present = [parameter.detach() for parameter in self.parameters]
        for power, average in zip(self.exponents, self.tracked, strict=True):
            torch._foreach_lerp_(average, present, 1 - (1 - 1 / self.updates) ** power)

    @torch.no_grad()
    def forget(self, parameter: nn.Parameter, rows: Tensor) -> None:
        """The averages of these rows of a parameter begin again with what they hold now."""
        for average in self.tracked:
            for mine, value in zip(self.parameters, average, strict=True):
                if mine is parameter:
                    value[rows] = parameter[rows]

    def state(self) -> dict[str, object]:
        """Everything that `restore` needs."""
        return {"updates": self.updates, "tracked": self.tracked}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.updates = state["updates"]
        for average, saved in zip(self.tracked, state["tracked"], strict=True):
            for mine, value in zip(average, saved, strict=True):
                mine.copy_(part_like(value, mine))

    def save(self, module: nn.Module, path: Path) -> None:
        """A snapshot of all of them, by the parameters' names in `module`; the first rank writes it."""
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        tracked = whole_on_first(self.tracked)
        if not is_first():
            return
        tensors = {
            f"{number}.{names[id(parameter)]}": value.detach().cpu().contiguous()
            for number, average in enumerate(tracked)
            for parameter, value in zip(self.parameters, average, strict=True)
        }
        path.parent.mkdir(exist_ok=True)
        facts = {"updates": str(self.updates), "widths": " ".join(map(str, self.spec.widths))}
        with atomic(path) as temporary:
            save_file(tensors, temporary, metadata=facts)


@final
@dataclass(frozen=True)
class _Snapshot:
    """One average in one file: its place there, and its profile."""

    path: Path
    number: int
    profile: Profile


def reconstructed(folder: Path, *, width: float) -> dict[str, Tensor]:
    """The weights, by name, of an average of any width at the last snapshot in a folder of them.

    `InputError` for a width that cannot be, and where there are no snapshots; `ModelFileError` for a damaged one.
    """
    power, snapshots = exponent(width), _snapshots(folder)
    if not snapshots:
        raise InputError(
            f"{folder}: no averages are stored here; train with denoiser.train.averages.every=STEPS to choose later"
        )
    profiles = [each.profile for each in snapshots]
    shares, misfit = combination(profiles, wanted=(power, max(updates for _, updates in profiles)))
    if misfit > MISFIT:
        raise InputError(
            f"{folder}: an average {width:g} wide cannot be made of the {len(snapshots)} that are stored here (its "
            f"profile would be off by {misfit:.0%}); a width nearer to theirs fits"
        )
    sums: dict[str, Tensor] = {}
    for share, snapshot in zip(shares, snapshots, strict=True):
        for name, value in _tensors(snapshot):
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + float(share) * value.double()
    return {name: value.float() for name, value in sums.items()}


def combination(profiles: Sequence[Profile], *, wanted: Profile) -> tuple[Float[np.ndarray, " n"], float]:
    """The share of each snapshot in the wanted average, and how far its profile is then off, relative to its length.

    Least squares of the profiles, with shares that add up to one. Sums over updates are exact; the integrals of
    appendix C are their limit for many updates.
    """
    count = len(profiles)
    equations = np.ones((count + 1, count + 1))
    equations[-1, -1] = 0
    found = np.ones(count + 1)
    products = _Products(max(updates for _, updates in (*profiles, wanted)))
    for row, one in enumerate(profiles):
        found[row] = products.of(one, wanted)
        for column in range(row + 1):
            equations[row, column] = equations[column, row] = products.of(one, profiles[column])
    length = products.of(wanted, wanted)
    equations[:-1, :-1] /= length
    found[:-1] /= length
    shares = np.linalg.lstsq(equations, found, rcond=1e-14)[0][:-1]
    off = 1 - 2 * shares @ found[:-1] + shares @ equations[:-1, :-1] @ shares
    return shares, math.sqrt(max(0.0, off))


@final
class _Products:
    """Inner products of profiles of at most so many updates, from running sums that are made once for each pair."""

    def __init__(self, most: int) -> None:
        self._ends = np.arange(most + 1, dtype=np.float64) / most
        self._sums: dict[tuple[float, float], np.ndarray] = {}

    def of(self, one: Profile, other: Profile) -> float:
        """The sum over updates of the product of both."""
        powers, most = (one[0], other[0]), len(self._ends) - 1
        if powers not in self._sums:
            steps = [np.diff(self._ends**power) for power in powers]
            self._sums[powers] = np.concatenate([[0.0], np.cumsum(steps[0] * steps[1])])
        both = self._sums[powers][min(one[1], other[1])]
        return float(both / math.prod((updates / most) ** power for power, updates in (one, other)))


def _snapshots(folder: Path) -> list[_Snapshot]:
    found: list[_Snapshot] = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with cast("Any", safe_open)(path, "pt") as file:
                facts = file.metadata() or {}
            widths, updates = [float(word) for word in facts["widths"].split()], int(facts["updates"])
        except (SafetensorError, OSError, KeyError, ValueError):
            raise ModelFileError(f"{path}: this snapshot of averages cannot be read; remove it to go without") from None
        found += [_Snapshot(path, number, (exponent(width), updates)) for number, width in enumerate(widths)]
    return found


def _tensors(snapshot: _Snapshot) -> Iterator[tuple[str, Tensor]]:
    start = f"{snapshot.number}."
    with cast("Any", safe_open)(snapshot.path, "pt") as file:
        for name in list(file.keys()):
            if name.startswith(start):
                yield name.removeprefix(start), file.get_tensor(name)

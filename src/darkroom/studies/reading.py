"""What a study found, ready to be shown: tables of words, curves of numbers, sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from darkroom.core.shapes import Number
from darkroom.pages.figure import Figure

DECIMALS = 4  # digits that count
NONE = "–"


@final
@dataclass(frozen=True)
class Table:
    """Rows of words under a head; the first column names the rows. source: of numbers that are not ours."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    source: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        named = {"source": self.source} if self.source else {}
        return {"title": self.title, **named, "head": [*self.head], "rows": [[*row] for row in self.rows]}


@final
@dataclass(frozen=True)
class Reading:
    """Ours and the paper's tables, plots by the name of their file, and what a reader has to know."""

    tables: Sequence[Table]
    plots: Mapping[str, Figure] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "tables": [each.plain() for each in self.tables],
            "plots": {name: each.plain() for name, each in self.plots.items()},
            "notes": [*self.notes],
        }


def figure_of(found: Mapping[str, Any] | None, measure: str) -> Mapping[str, Any] | None:
    """The figure of that name in what a quality cell found; of the first network where several looked."""
    figures = () if found is None else found.get("figures", ())
    return next((each for each in figures if each["measure"] == measure), None)


def value_of(found: Mapping[str, Any] | None, measure: str) -> float | None:
    """The value of a figure, None where there is none."""
    known = figure_of(found, measure)
    return None if known is None else float(known["value"])


def told(found: Mapping[str, Any] | None, measure: str) -> str:
    """A figure with its interval, in words."""
    known = figure_of(found, measure)
    if known is None:
        return NONE
    value = short(known["value"])
    return value if known["low"] is None else f"{value} ({short(known['low'])} to {short(known['high'])})"


def short(value: Number | None) -> str:
    """A number of a few digits, large ones as whole numbers."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 10**DECIMALS - 0.5 else f"{value:.{DECIMALS}g}"


def times(value: Number | None, other: Number | None) -> str:
    """How many times as much one is as the other."""
    return NONE if not value or not other else f"{value / other:.2f} x"

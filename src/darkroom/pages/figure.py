"""A plot as an SVG drawing that stands alone: several lines in colours and dashes of their own, dots, a legend."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from darkroom.core.shapes import Number
from darkroom.pages.markup import Html, element, joined
from darkroom.pages.plot import SPAN, Axis, Point, finite, number

WIDTH, HEIGHT = 560, 320  # of the frame with its margins; the legend is below
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 30, 46
ROW: Final = 18  # of the legend
COLUMNS: Final = 3
# The colours of Okabe and Ito, which colour-blind readers tell apart, but for yellow, which paper swallows.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777")
DASHES: Final = ("", "7 3", "2 3")  # of the first seven lines, the next seven, ...


@final
@dataclass(frozen=True)
class Series:
    """A named line of points (x, y), drawn in the order given."""

    name: str
    points: Sequence[Point]


@final
@dataclass(frozen=True)
class Figure:
    """Lines over one axis. across, up: what the axes show, with units."""

    title: str
    across: str
    up: str
    series: Sequence[Series]

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        lines = {each.name: [[*point] for point in each.points] for each in self.series}
        return {"title": self.title, "across": self.across, "up": self.up, "series": lines}

    def svg(self) -> Html:
        """The drawing; empty where no point is finite. Ranges stand in `data-x`, `data-y`, scales in `data-scale`."""
        kept = [Series(each.name, finite(each.points)) for each in self.series]
        kept = [each for each in kept if each.points]
        if not kept:
            return Html()
        across = _axis([x for each in kept for x, _ in each.points], LEFT, WIDTH - RIGHT)
        up = _axis([y for each in kept for _, y in each.points], HEIGHT - BOTTOM, TOP)
        height = HEIGHT + ROW * math.ceil(len(kept) / COLUMNS)
        return element(
            "svg",
            element("title", f"{self.title}: {'; '.join(_spoken(each) for each in kept)}"),
            element("rect", attributes={"width": WIDTH, "height": height, "fill": "#ffffff"}),
            _text(self.title, LEFT, 18, anchor="start", weight="bold"),
            *_grid(across, up),
            _text(_said(self.across, across), (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8),
            _text(_said(self.up, up), 14, (TOP + HEIGHT - BOTTOM) / 2, turned=True),
            *(part for place, each in enumerate(kept) for part in _line(each, across, up, place=place)),
            *(part for place, each in enumerate(kept) for part in _key(each.name, place)),
            attributes={
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {height}",
                "role": "img",
                "font-family": "system-ui, sans-serif",
                "font-size": 12,
                "data-x": f"{across.low} {across.high}",
                "data-y": f"{up.low} {up.high}",
                "data-scale": f"{_scale(across)} {_scale(up)}",
            },
        )


def _axis(values: Sequence[Number], start: Number, stop: Number) -> Axis:
    low, high = min(values), max(values)
    log = low > 0 and high >= SPAN * low
    margin = (high / low) ** 0.05 if log else (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = (low / margin, high * margin) if log else (low - margin, high + margin)
    return Axis(low, high, start, stop, log)


def _said(what: str, axis: Axis) -> str:
    """What an axis shows; equal steps on it are not equal differences where it is logarithmic."""
    return f"{what}, logarithmic" if axis.log else what


def _scale(axis: Axis) -> str:
    return "log" if axis.log else "linear"


def _grid(across: Axis, up: Axis) -> Iterator[Html]:
    for tick in up.ticks():
        at = up.place(tick)
        yield _rule((across.start, at), (across.stop, at))
        yield _text(number(tick), LEFT - 7, at + 4, anchor="end")
    for tick in across.ticks():
        at = across.place(tick)
        yield _rule((at, up.start), (at, up.stop))
        yield _text(number(tick), at, HEIGHT - BOTTOM + 17)


def _rule(start: Point, stop: Point) -> Html:
    (x1, y1), (x2, y2) = start, stop
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return element("line", attributes={**ends, "stroke": "#dddddd"})


def _text(
    words: str, x: Number, y: Number, *, anchor: str = "middle", weight: str = "normal", turned: bool = False
) -> Html:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-weight": weight, "fill": "#333333"}
    return element("text", words, attributes={**place, **({"transform": f"rotate(-90 {x} {y})"} if turned else {})})


def _ink(place: int) -> dict[str, str | int]:
    dash = DASHES[place // len(COLOURS) % len(DASHES)]
    ink: dict[str, str | int] = {"stroke": COLOURS[place % len(COLOURS)], "stroke-width": 2, "fill": "none"}
    return {**ink, **({"stroke-dasharray": dash} if dash else {})}


def _line(series: Series, across: Axis, up: Axis, *, place: int) -> Iterator[Html]:
    places = [(across.place(x), up.place(y)) for x, y in series.points]
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in places)
    yield element("polyline", attributes={**_ink(place), "points": path, "data-name": series.name})
    colour = COLOURS[place % len(COLOURS)]
    yield joined(
        element("circle", attributes={"cx": f"{x:.2f}", "cy": f"{y:.2f}", "r": 3, "fill": colour}) for x, y in places
    )


def _key(name: str, place: int) -> Iterator[Html]:
    row, column = divmod(place, COLUMNS)
    x, y = LEFT + column * (WIDTH - LEFT - RIGHT) / COLUMNS, HEIGHT + 4 + row * ROW
    yield element("line", attributes={**_ink(place), "x1": f"{x:.1f}", "x2": f"{x + 22:.1f}", "y1": y, "y2": y})
    yield _text(name, x + 28, y + 4, anchor="start")


def _spoken(series: Series) -> str:
    """What a person who cannot see the plot should hear."""
    (x, y), (last_x, last_y) = series.points[0], series.points[-1]
    return f"{series.name} from {number(y)} at {number(x)} to {number(last_y)} at {number(last_x)}"

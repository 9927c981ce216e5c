"""Line plots as SVG, drawn by hand: a few lines over steps, readable ticks, nothing to load."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from darkroom.core.shapes import Number
from darkroom.pages.markup import Html, element, joined

Point = tuple[Number, Number]
Look = Literal["main", "faint", "held", "level"]
WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 26, 12, 40  # margins
POINTS: Final = 400  # of a line at most
SPAN: Final = 4  # a largest value so many times the smallest is drawn on a logarithmic axis


@final
@dataclass(frozen=True)
class Line:
    """A named line. look: main (thick), faint (behind it), held (held-out values, with dots), level (dashed)."""

    name: str
    points: Sequence[Point]
    look: Look = "main"


@final
@dataclass(frozen=True)
class Axis:
    """Values and where they stand: low and high at the ends `start` and `stop` in the drawing's units."""

    low: Number
    high: Number
    start: Number
    stop: Number
    log: bool = False

    def place(self, value: Number) -> float:
        """Where a value stands."""
        low, high, at = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (self.stop - self.start) * (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """Three to nine round numbers; 1, 2 and 5 times powers of ten where the axis is logarithmic."""
        if self.log:
            tens = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1,)):
                found = [digit * 10.0**ten for ten in tens for digit in digits]
                inside = [each for each in found if self.low <= each <= self.high]
                if 3 <= len(inside) <= 8:
                    return inside
        step = _step(self.high - self.low)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        round_numbers = (float(f"{number * step:.12g}") for number in range(first, last + 1))
        return [each for each in round_numbers if each > 0 or not self.log]


def chart(lines: Sequence[Line], *, title: str, unit: str = "") -> Html:
    """A figure with the lines over steps, or nothing when there is no finite value.

    The axes' ranges stand in `data-x`, `data-y` and `data-scale` of the drawing, the frame in `data-frame`, so that
    its lines can be read back into numbers.
    """
    kept = [Line(line.name, _thinned(finite(line.points)), line.look) for line in lines]
    kept = [line for line in kept if line.points]
    if not kept:
        return Html()
    across, up = _axes(kept)
    frame = (across.start, up.stop, across.stop, up.start)
    drawing = element(
        "svg",
        element("title", f"{title}: {_spoken(kept)}"),
        *_grid(across, up),
        *(_drawn(line, across, up) for line in sorted(kept, key=lambda each: each.look != "faint")),
        attributes={
            "viewBox": f"0 0 {WIDTH} {HEIGHT}",
            "role": "img",
            "data-x": f"{across.low} {across.high}",
            "data-y": f"{up.low} {up.high}",
            "data-scale": "log" if up.log else "linear",
            "data-frame": " ".join(map(str, frame)),
        },
    )
    shown = f"{title}, {unit}" if unit else title
    return element("figure", element("figcaption", element("strong", shown)), drawing, _legend(kept))


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Means over a window of a tenth of the points around each, narrower at the ends, so that it stays centred."""
    values = finite(points)
    sums: list[Number] = [0.0]
    for _, value in values:
        sums.append(sums[-1] + value)
    half, last = max(1, len(values) // 20), len(values) - 1
    reach = [min(half, place, last - place) for place in range(len(values))]
    return [
        (x, (sums[place + side + 1] - sums[place - side]) / (2 * side + 1))
        for place, ((x, _), side) in enumerate(zip(values, reach, strict=True))
    ]


def number(value: Number) -> str:
    """A number as people write it: 12,000, 0.05, 3e-06."""
    if value == 0 or 1e-4 <= abs(value) < 1e15:
        return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"
    return f"{value:.3g}"


def percent(share: Number, *, digits: int = 0) -> str:
    """`11 %` of 0.11, never broken over two lines."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def finite(points: Sequence[Point]) -> list[Point]:
    """Those that can be drawn."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """The lowest and the highest point of each of a few hundred stretches, and both ends: no peak is lost."""
    if len(points) <= POINTS:
        return list(points)
    stretches = POINTS // 2 - 1
    kept = {0, len(points) - 1}
    for stretch in range(stretches):
        places = range(stretch * len(points) // stretches, (stretch + 1) * len(points) // stretches)
        kept |= {min(places, key=lambda place: points[place][1]), max(places, key=lambda place: points[place][1])}
    return [points[place] for place in sorted(kept)]


def _axes(lines: Sequence[Line]) -> tuple[Axis, Axis]:
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low, high = min(ys), max(ys)
    log = low > 0 and high >= SPAN * low
    margin = (high / low) ** 0.04 if log else (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = (low / margin, high * margin) if log else (low - margin, high + margin)
    left = min(0.0, *xs) if len(xs) > 1 else 0.0
    across = Axis(left, max(*xs, left + 1) if len(xs) > 1 else max(xs[0], 1.0), LEFT, WIDTH - RIGHT)
    return across, Axis(low, high, HEIGHT - BOTTOM, TOP, log)


def _step(span: Number) -> float:
    """The smallest round step that the span holds at most eight times, and so three times at least."""
    ten = 10.0 ** math.floor(math.log10(span / 8))
    return next(ten * factor for factor in (1, 2, 5, 10) if span <= 8 * ten * factor)


def _grid(across: Axis, up: Axis) -> list[Html]:
    parts: list[Html] = []
    for tick in up.ticks():
        height = f"{up.place(tick):.1f}"
        ends = {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": height, "y2": height}
        parts.append(element("line", css="grid", attributes=ends))
        parts.append(_text(number(tick), x=LEFT - 7, y=f"{up.place(tick) + 4:.1f}", anchor="end"))
    for tick in across.ticks():
        at = across.place(tick)
        parts.append(_text(number(tick), x=f"{at:.1f}", y=HEIGHT - BOTTOM + 18, anchor="middle"))
    parts.append(_text("steps", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, anchor="middle"))
    return parts


def _text(words: str, *, x: Number | str, y: Number | str, anchor: str) -> Html:
    return element("text", words, attributes={"x": str(x), "y": str(y), "text-anchor": anchor})


def _drawn(line: Line, across: Axis, up: Axis) -> Html:
    points = line.points
    if line.look == "level":
        points = [(across.low, points[0][1]), (across.high, points[-1][1])]
    places = [(across.place(x), up.place(y)) for x, y in points]
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in places)
    drawn = element("polyline", css=f"line {line.look}", attributes={"points": path, "data-name": line.name})
    if line.look != "held" and len(places) > 1:
        return drawn
    radius = 3.5 if len(places) <= 60 else 1.5
    dots = (
        element("circle", css="dot", attributes={"cx": f"{x:.2f}", "cy": f"{y:.2f}", "r": str(radius)})
        for x, y in places
    )
    return joined([drawn, *dots])


def _legend(lines: Sequence[Line]) -> Html:
    named = [line for line in lines if line.look != "faint"]
    keys = [element("span", element("span", css=f"key {line.look}"), line.name) for line in named]
    return element("figcaption", *keys, css="legend")


def _spoken(lines: Sequence[Line]) -> str:
    """What a person who cannot see the plot should hear."""
    said = [
        f"{line.name} from {number(line.points[0][1])} to {number(line.points[-1][1])}"
        for line in lines
        if line.look != "faint"
    ]
    return "; ".join(said)

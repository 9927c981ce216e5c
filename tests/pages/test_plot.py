"""What a plot shows is what came: its lines are read back into numbers."""

import math
import re
from typing import NamedTuple

import pytest

from darkroom.pages.plot import POINTS, Axis, Line, Point, chart, number, percent, smoothed


class Plot(NamedTuple):
    """A drawing read back."""

    scale: str
    lines: dict[str, list[Point]]


def read_plot(svg: str) -> Plot:
    """The points of each line, from places in the drawing through the axes that it names."""
    found = {key: [float(each) for each in re.findall(rf'data-{key}="([^"]*)"', svg)[0].split()] for key in "xy"}
    left, top, right, bottom = map(float, re.findall(r'data-frame="([^"]*)"', svg)[0].split())
    (scale,) = re.findall(r'data-scale="(\w+)"', svg)
    across = Axis(*found["x"], left, right)
    up = Axis(*found["y"], bottom, top, scale == "log")
    lines = {
        name: [_back(across, up, pair) for pair in points.split()]
        for points, name in re.findall(r'<polyline [^>]*points="([^"]*)" data-name="([^"]*)"', svg)
    }
    return Plot(scale, lines)


def _back(across: Axis, up: Axis, pair: str) -> Point:
    values: list[float] = []
    for axis, place in zip((across, up), map(float, pair.split(",")), strict=True):
        low, high = (math.log(each) if axis.log else each for each in (axis.low, axis.high))
        value = low + (high - low) * (place - axis.start) / (axis.stop - axis.start)
        values.append(math.exp(value) if axis.log else value)
    return values[0], values[1]


def ticks(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def test_a_line_is_read_back() -> None:
    points = [(0.0, 0.8), (50.0, 0.31), (100.0, 0.05), (400.0, 0.044)]
    plot = read_plot(chart([Line("loss", points)], title="Loss"))
    assert plot.scale == "log"
    for (x, y), (step, value) in zip(plot.lines["loss"], points, strict=True):
        assert x == pytest.approx(step, abs=0.05)
        assert y == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([20.0, 26.0], "linear"),
        ([0.1, 1.0], "log"),
        ([-1.0, 1.0], "linear"),
        ([0.0, 3.0], "linear"),
        ([2, 2], "linear"),
    ],
)
def test_a_logarithmic_axis_where_it_says_more(values: list[float], scale: str) -> None:
    points = [(float(step), float(value)) for step, value in enumerate(values)]
    plot = read_plot(chart([Line("a", points)], title="A"))
    assert plot.scale == scale
    assert [y for _, y in plot.lines["a"]] == pytest.approx(values, abs=0.02)


def test_a_long_log_is_thinned_and_keeps_its_peaks_and_ends() -> None:
    points = [(float(step), 1.0 + 0.1 * math.sin(step)) for step in range(100_000)]
    points[70_001] = (70_001.0, 9.0)
    points[20_001] = (20_001.0, 0.2)
    svg = chart([Line("loss", points, "faint")], title="Loss")
    (line,) = read_plot(svg).lines.values()
    assert len(line) <= POINTS
    assert len(svg) < 20_000
    assert max(y for _, y in line) == pytest.approx(9, rel=1e-2)
    assert min(y for _, y in line) == pytest.approx(0.2, rel=1e-2)
    assert (line[0][0], line[-1][0]) == pytest.approx((0, 99_999), abs=200)


def test_one_point_values_that_are_no_numbers_and_nothing() -> None:
    svg = chart([Line("validation", [(250.0, 0.08)], "held")], title="Loss")
    assert svg.count("<circle") == 1
    assert read_plot(svg).lines["validation"][0] == pytest.approx((250, 0.08), rel=1e-2)
    broken = [(1.0, math.nan), (2.0, 0.5), (3.0, math.inf), (4.0, 0.25)]
    assert len(read_plot(chart([Line("a", broken)], title="A")).lines["a"]) == 2
    assert chart([Line("a", [(1.0, math.nan)]), Line("b", [])], title="A") == ""


def test_a_level_reaches_from_side_to_side() -> None:
    held, level = Line("test", [(500.0, 20.0), (1000.0, 30.0)], "held"), Line("bicubic", [(500.0, 25.0)] * 2, "level")
    line = read_plot(chart([held, level], title="PSNR")).lines["bicubic"]
    assert line == [pytest.approx((0, 25), abs=0.05), pytest.approx((1000, 25), abs=0.05)]


@pytest.mark.parametrize(
    "values", [[0.8, 0.05], [21.7, 32.7], [25.74, 34.95], [1445.0, 1900.0], [3e-6, 9e-6], [1e-3, 1e3], [5, 5]]
)
def test_three_to_nine_round_ticks(values: list[float]) -> None:
    svg = chart([Line("a", [(float(place * 4000), float(y)) for place, y in enumerate(values)])], title="A")
    upright = re.findall(r'<text [^>]*text-anchor="end">([^<]*)</text>', svg)
    assert 3 <= len(upright) <= 9
    assert len(set(upright)) == len(upright)
    assert {"0", "1,000", "4,000"} <= set(ticks(svg))


def test_names_are_escaped_and_read_aloud() -> None:
    svg = chart([Line("<b>&", [(0.0, 1.0), (9.0, 2.0)])], title='"T"')
    assert "<b>" not in svg
    assert "<title>&quot;T&quot;: &lt;b&gt;&amp; from 1 to 2</title>" in svg


def test_smoothing_keeps_a_straight_line_and_calms_noise() -> None:
    straight = [(float(step), 2.0 * step) for step in range(300)]
    assert smoothed(straight) == [(x, pytest.approx(y)) for x, y in straight]
    calm = [y for _, y in smoothed([(float(step), float(step % 2)) for step in range(300)])]
    assert max(abs(each - 0.5) for each in calm[20:-20]) < 0.05
    assert smoothed([]) == []


def test_numbers_as_people_write_them() -> None:
    assert [number(each) for each in (0, 4000, 12.5, 0.0840564, 3e-6, 25.87081)] == [
        "0",
        "4,000",
        "12.5",
        "0.08406",
        "3e-06",
        "25.87",
    ]
    assert percent(0.106) == "11\N{NO-BREAK SPACE}%"


def test_a_logarithmic_axis_over_a_wide_gap_has_no_tick_at_nothing() -> None:
    for low, high in ((1e-9, 0.5), (0.3, 0.4), (1e-12, 1e12)):
        axis = Axis(low, high, 0, 100, log=True)
        assert all(tick > 0 for tick in axis.ticks())
        assert all(math.isfinite(axis.place(tick)) for tick in axis.ticks())

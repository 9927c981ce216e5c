"""Plots that stand alone: their points can be read back, and what cannot be drawn is left out."""

import math
import re
from xml.etree import ElementTree

from darkroom.pages.figure import COLOURS, Figure, Series
from darkroom.pages.plot import Axis

SVG = "{http://www.w3.org/2000/svg}"


def read_back(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """The points of each line, from the drawing alone."""
    root = ElementTree.fromstring(figure.svg())
    scales = root.attrib["data-scale"].split()
    ticks = [each for each in root.iter(f"{SVG}line") if each.attrib["stroke"] == "#dddddd"]
    rules = [[float(each.attrib[name]) for name in ("x1", "y1", "x2", "y2")] for each in ticks]
    left, right = min(each[0] for each in rules), max(each[2] for each in rules)
    top, bottom = min(each[3] for each in rules), max(each[1] for each in rules)
    across = Axis(*map(float, root.attrib["data-x"].split()), left, right, scales[0] == "log")
    up = Axis(*map(float, root.attrib["data-y"].split()), bottom, top, scales[1] == "log")
    return {
        line.attrib["data-name"]: [
            (_value(across, float(x)), _value(up, float(y)))
            for x, y in (each.split(",") for each in line.attrib["points"].split())
        ]
        for line in root.iter(f"{SVG}polyline")
    }


def _value(axis: Axis, place: float) -> float:
    share = (place - axis.start) / (axis.stop - axis.start)
    if axis.log:
        return math.exp(math.log(axis.low) + share * (math.log(axis.high) - math.log(axis.low)))
    return axis.low + share * (axis.high - axis.low)


def test_points_are_where_they_should_be() -> None:
    wanted = {"a": [(5, 40.0), (50, 2.5)], "b & c": [(10, 8.0), (20, 7.0), (50, 30.0)]}
    figure = Figure("Quality", "steps", "distance", [Series(name, points) for name, points in wanted.items()])
    found = read_back(figure)
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        for (x, y), (at, value) in zip(points, found[name], strict=True):
            assert abs(at - x) < 0.01 * x
            assert abs(value - y) < 0.01 * y


def test_lines_differ_in_colour_or_dashes() -> None:
    lines = [Series(str(number), [(1, number), (2, number)]) for number in range(2 * len(COLOURS))]
    root = ElementTree.fromstring(Figure("t", "x", "y", lines).svg())
    looks = [(each.attrib["stroke"], each.get("stroke-dasharray")) for each in root.iter(f"{SVG}polyline")]
    assert len(set(looks)) == len(lines)


def test_what_is_not_finite_is_left_out() -> None:
    assert Figure("t", "x", "y", [Series("a", [(1, math.nan)])]).svg() == ""
    figure = Figure("t", "x", "y", [Series("a", [(1, 2), (2, math.inf)]), Series("gone", [])])
    assert re.findall('data-name="([^"]+)"', figure.svg()) == ["a"]

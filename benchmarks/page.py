"""Draw the tables of docs/performance.md from what `speed.py` wrote.

python benchmarks/page.py benchmarks/speed.json docs/performance.md
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

BEGIN, END = "<!-- figures: drawn by benchmarks/page.py -->", "<!-- end of figures -->"
# A column of a table: how it is headed, and the figure as text; shown where a side has the figure.
COLUMNS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, float]], str]]]] = {
    "seconds": ("median (s)", lambda found: f"{found['seconds']:.3f}"),
    "least": ("least to most", lambda found: f"{found['least']:.3f} to {found['most']:.3f}"),
    "times_ours": ("beside {ours}", lambda found: f"{found['times_ours']:.2f} x"),
    "gflops": ("GFLOP/s", lambda found: f"{found['gflops']:.0f}"),
    "error": ("error", lambda found: f"{found['error']:.2%}"),
    "memory": ("memory (MB)", lambda found: f"{found['memory'] / 2**20:.0f}"),
    "obeyed": (
        "captions obeyed (95 %)",
        lambda found: f"{found['obeyed']:.1%} ({found['low']:.1%} to {found['high']:.1%}) of {found['pictures']:.0f}",
    ),
}


def page(said: Mapping[str, Any]) -> str:
    """A table for each case, and what it was measured on."""
    machine, peaks = said["machine"], said["peak_gflops"]
    parts = [
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, Python {machine['python']}. "
        "The most that convolutions and products reached there, in GFLOP/s: "
        + ", ".join(f"{name} {value:.0f}" for name, value in peaks.items())
        + "."
    ]
    for name, case in said["cases"].items():
        what = case["what"][0].upper() + case["what"][1:]
        parts.append(f"### {name}\n\n{what}; {case['rounds']} rounds.\n\n{_table(case)}")
    return "\n\n".join(parts)


def _table(case: Mapping[str, Any]) -> str:
    sides, ours = case["sides"], case.get("beside", "ours bfloat16").replace("ours", "ours in", 1)
    shown = [each for each in COLUMNS if any(each in found for found in sides.values())]
    head = ["", *(COLUMNS[each][0].format(ours=ours) for each in shown)]
    rows = [
        [side, *(COLUMNS[each][1](found) if each in found else "" for each in shown)] for side, found in sides.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def main() -> None:
    figures, target = Path(sys.argv[1]), Path(sys.argv[2])
    text = target.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    target.write_text(f"{before}{BEGIN}\n\n{page(json.loads(figures.read_text()))}\n\n{END}{after}")


if __name__ == "__main__":
    main()

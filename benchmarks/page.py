"""Draw the tables of docs/performance.md from what `speed.py` wrote.

python benchmarks/page.py benchmarks/speed.json docs/performance.md
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

BEGIN, END = "<!-- figures: drawn by benchmarks/page.py -->", "<!-- end of figures -->"
HEAD: Final = ("median (s)", "least to most", "beside ours in bfloat16", "GFLOP/s", "error")
MEMORY: Final = "memory (MB)"


def page(said: dict[str, Any]) -> str:
    """A table for each case, and what it was measured on."""
    machine, peaks = said["machine"], said["peak_gflops"]
    parts = [
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, Python {machine['python']}. "
        "The most that convolutions and products reached there, in GFLOP/s: "
        + ", ".join(f"{name} {value:.0f}" for name, value in peaks.items())
        + "."
    ]
    for name, case in said["cases"].items():
        sides = case["sides"]
        weighed = any("memory" in found for found in sides.values())
        head = ["", *HEAD, *([MEMORY] if weighed else [])]
        rows = [head, ["---"] * len(head), *([side, *_figures(found)] for side, found in sides.items())]
        what = case["what"][0].upper() + case["what"][1:]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts.append(f"### {name}\n\n{what}; {case['rounds']} rounds.\n\n{table}")
    return "\n\n".join(parts)


def _figures(found: dict[str, float]) -> list[str]:
    figures = [
        f"{found['seconds']:.3f}",
        f"{found['least']:.3f} to {found['most']:.3f}",
        f"{found['times_ours']:.2f} x",
        f"{found['gflops']:.0f}",
        f"{found['error']:.2%}",
    ]
    return [*figures, f"{found['memory'] / 2**20:.0f}"] if "memory" in found else figures


def main() -> None:
    figures, target = Path(sys.argv[1]), Path(sys.argv[2])
    text = target.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    target.write_text(f"{before}{BEGIN}\n\n{page(json.loads(figures.read_text()))}\n\n{END}{after}")


if __name__ == "__main__":
    main()

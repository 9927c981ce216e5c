"""What a server counts, in the text format of Prometheus (version 0.0.4)."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Final, final

from darkroom.core.shapes import Number

BUCKETS: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # seconds


@final
class Counts:
    """Counters and two histograms of seconds, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._seconds: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * (len(BUCKETS) + 2))

    def add(self, name: str, amount: Number = 1, *, label: str = "") -> None:
        """More of something; label: as Prometheus writes it, e.g. `state="done"`."""
        with self._lock:
            self._totals[name, label] += amount

    def took(self, name: str, seconds: Number) -> None:
        """One more that took so long."""
        with self._lock:
            row = self._seconds[name]
            for place, most in enumerate(BUCKETS):
                row[place] += seconds <= most
            row[-2] += seconds
            row[-1] += 1

    def text(self, gauges: Mapping[str, Number]) -> str:
        """All of it, and what is measured now."""
        lines: list[str] = []
        with self._lock:
            names = sorted({name for name, _ in self._totals})
            for name in names:
                lines.append(f"# TYPE darkroom_{name}_total counter")
                lines += [
                    f"darkroom_{name}_total{f'{{{label}}}' if label else ''} {_exact(value)}"
                    for (each, label), value in sorted(self._totals.items())
                    if each == name
                ]
            for name, row in sorted(self._seconds.items()):
                lines.append(f"# TYPE darkroom_{name}_seconds histogram")
                bounds = [f"{most:g}" for most in BUCKETS]
                counted = [*zip(bounds, row, strict=False), ("+Inf", row[-1])]
                lines += [f'darkroom_{name}_seconds_bucket{{le="{most}"}} {_exact(value)}' for most, value in counted]
                lines += [
                    f"darkroom_{name}_seconds_sum {row[-2]:.6f}",
                    f"darkroom_{name}_seconds_count {_exact(row[-1])}",
                ]
        for name, value in gauges.items():
            lines += [f"# TYPE darkroom_{name} gauge", f"darkroom_{name} {_exact(value)}"]
        return "\n".join(lines) + "\n"


def _exact(value: Number) -> str:
    """With all its digits: of a million, what is told less exactly stands still and then leaps."""
    return f"{value:.15g}"

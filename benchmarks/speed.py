"""How fast is Darkroom beside others on the same weights? One interleaved run: every side in turn, fresh inputs.

    pip install -c constraints.txt diffusers openvino
    python benchmarks/speed.py step decode --rounds 9 --out speed.json

Sides: `ours` (float32, bfloat16; that compiled, and by the engine `openvino`), `diffusers` (float32 as it comes;
bfloat16, kernels in channels_last; that compiled) and `openvino` (on diffusers' module, static shapes, bfloat16). A
side that cannot be had here is said and left out. The figure of a side is the median of its rounds; ratios are medians
of the ratios within each round, so that a machine that slows down for a while slows all of them. `error`: relative
distance of all answers to ours in float32. Pictures of
`shapes` differ, for ours are drawn by the built-in model's defaults and theirs by fifty steps; it tells how many obey.
"""

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from built_in import built_in_run
from runs import whole_run
from sides import MIDDLE, Case, decode, large_step, step
from torch import Tensor
from trainings import training

from darkroom.core.memory import keep_freed_memory

CASES: Final[Mapping[str, Callable[[Sequence[str] | None], Case]]] = {
    "step": functools.partial(step, MIDDLE, side=32),
    "step-large": large_step,
    "decode": decode,
    "run": whole_run,
    "training": training,
    "shapes": built_in_run,
}


def seconds(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Of one call, and what it answered."""
    started = time.perf_counter()
    answer = run()
    return time.perf_counter() - started, answer


def measure(case: Case, *, rounds: int) -> dict[str, Any]:
    """Figures of every side of a case."""
    times: dict[str, list[float]] = {name: [] for name in case.sides}
    answers: dict[str, list[Tensor]] = {name: [] for name in case.sides}
    for number in range(-1, rounds):  # the first round warms up: caches, compilers, layouts
        inputs = case.inputs(max(0, number))
        for name, run in case.sides.items():
            spent, answer = seconds(lambda run=run, inputs=inputs: run(inputs))
            if number >= 0:
                times[name].append(spent)
                answers[name].append(answer.float())
    return {name: _figures(name, times, case=case, answers=answers) for name in case.sides}


def _figures(
    name: str, times: Mapping[str, list[float]], *, case: Case, answers: Mapping[str, list[Tensor]]
) -> dict[str, Any]:
    ratios = [theirs / ours for theirs, ours in zip(times[name], times[case.ours], strict=True)]
    median = statistics.median(times[name])
    found = {
        "seconds": median,
        "least": min(times[name]),
        "most": max(times[name]),
        "times_ours": statistics.median(ratios),
        **case.judged(answers[name]),
    }
    if case.operations is not None:
        found["gflops"] = case.operations / median / 1e9
    if case.reference is not None:
        exact, own = (torch.stack(answers[each]) for each in (case.reference, name))
        found["error"] = float((own - exact).norm() / exact.norm())
    return found


def peak(rounds: int = 5) -> dict[str, float]:
    """The most that convolutions and products reach here, in GFLOP/s, by type."""
    found: dict[str, float] = {}
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            image = torch.randn(4, 320, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
            kernel = torch.randn(320, 320, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
            matrix = torch.randn(4096, 2048, dtype=dtype)
            name = str(dtype).removeprefix("torch.")
            for kind, work, run in (
                ("convolution", 2 * 4 * 320 * 320 * 9 * 32 * 32, lambda: torch.conv2d(image, kernel, padding=1)),  # noqa: B023
                ("product", 2 * 4096 * 2048 * 4096, lambda: matrix @ matrix.T),  # noqa: B023
            ):
                run()
                found[f"{kind} {name}"] = work / min(seconds(run)[0] for _ in range(rounds)) / 1e9
    return found


def machine() -> dict[str, Any]:
    """What this was measured on."""
    cpu = next(
        (line.split(":")[1].strip() for line in _cpu_info() if line.startswith("model name")), platform.processor()
    )
    return {
        "processor": cpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def line(found: Mapping[str, float]) -> str:
    """The figures of a side, for a terminal."""
    timed = f"{found['seconds']:8.4f} s ({found['least']:.4f} to {found['most']:.4f})  x{found['times_ours']:.2f}"
    others = {"gflops": "{:.0f} GFLOP/s", "error": "error {:.2%}", "obeyed": "obeyed {:.1%}", "low": "({:.1%}"}
    told = [form.format(found[name]) for name, form in others.items() if name in found]
    return "  ".join([timed, *told, *([f"to {found['high']:.1%})"] if "high" in found else [])])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="+", choices=sorted(CASES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sides", nargs="+", default=None, help="these alone")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=None, help="a JSON file")
    parser.add_argument("--keep", action="store_true", help="cases of that file which are not asked for now stay in it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # for all sides; the command `darkroom` does it, too
    said: dict[str, Any] = {"machine": machine(), "peak_gflops": peak(), "cases": {}}
    print(json.dumps({key: said[key] for key in ("machine", "peak_gflops")}, indent=1), flush=True)
    for name in options.cases:
        case = CASES[name](options.sides)
        figures = measure(case, rounds=options.rounds)
        said["cases"][name] = {
            "what": case.what,
            "operations": case.operations,
            "rounds": options.rounds,
            "beside": case.ours,
            "sides": figures,
        }
        print(f"{name}: {case.what}")
        for side, found in figures.items():
            print(f"  {side:32} {line(found)}", flush=True)
    if options.out is not None:
        known = json.loads(options.out.read_text())["cases"] if options.keep and options.out.exists() else {}
        said["cases"] = {**known, **said["cases"]}
        options.out.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()

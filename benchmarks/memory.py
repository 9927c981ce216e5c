"""What each side of a case of `speed.py` needs while it answers, beside its weights; into what `speed.py` wrote.

    python benchmarks/memory.py decode --into benchmarks/speed.json

Every side runs in a process of its own: twice, so that caches and layouts are there, and once more, of which the peak
of resident memory is read above what the process held before, when it had given back what was free. Linux tells it.
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from speed import CASES

RESET: Final = "5"  # of /proc/self/clear_refs: the peak becomes what is held now


def memory(case: str, side: str) -> int:
    """Bytes, of a side in this process."""
    made = CASES[case]([side])
    run, inputs = made.sides[side], made.inputs
    del made
    for number in range(2):
        run(inputs(number))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    given = inputs(2)
    Path("/proc/self/clear_refs").write_text(RESET)
    before = _held("VmRSS")
    run(given)
    return _held("VmHWM") - before


def _held(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--into", type=Path, help="what speed.py wrote: all sides that it has")
    parser.add_argument("--side", help="this one, here")
    options = parser.parse_args()
    if options.side is not None:
        print(memory(options.case, options.side))
        return
    if options.into is None:
        parser.error("--into FILE or --side NAME is needed")
    said = json.loads(options.into.read_text())
    for side, figures in said["cases"][options.case]["sides"].items():
        command = [sys.executable, __file__, options.case, "--side", side]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        figures["memory"] = int(told.split()[-1])
        print(f"{options.case} {side:28} {figures['memory'] / 2**20:8.0f} MB", flush=True)
    options.into.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()

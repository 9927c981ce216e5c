"""How a run fares whose disk is full: each write of a short run of both stages fails once, then it is run again.

python tools/measure_full_disk.py
python tools/measure_full_disk.py tiny-vq --every 5       # every fifth write only

The disk is full in this process's own functions: in `os.replace`, by which files get their names, and at lines of logs.
"""

import argparse
import contextlib
import errno
import io
import os
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from darkroom.checkpoint.store import load_model
from darkroom.cli.main import main as darkroom
from darkroom.train import session

SHORT = (
    "data.count=40",
    *(
        f"{stage}.train.{each}"
        for stage in ("first_stage", "denoiser")
        for each in ("steps=5", "batch=4", "warmup=1", "log_every=1", "save_every=2", "sample_every=3")
    ),
    "denoiser.train.averages.every=2",
    "denoiser.sample.count=2",
    "denoiser.sample.steps=2",
)


@contextlib.contextmanager
def full_at(number: int | None) -> Generator[list[str]]:
    """Within the block the write of this number fails (None: none does); answers all that were tried."""
    tried: list[str] = []

    def taken(work: Callable[..., Any], place: int) -> Callable[..., Any]:
        def written(*given: Any) -> Any:
            tried.append(str(given[place]))
            if len(tried) - 1 == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return work(*given)

        return written

    with (
        mock.patch.object(os, "replace", taken(os.replace, 1)),
        mock.patch.object(session, "append_line", taken(session.append_line, 0)),
    ):
        yield tried


def train(recipe: str, folder: Path) -> tuple[int, str]:
    """The command's exit code and its last words."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        words = ["train", recipe, *SHORT, "--keep", "1", "--best", "--device", "cpu", "--out", str(folder)]
        code = darkroom(words)
    return code, said.getvalue().strip().splitlines()[-1]


def main() -> None:
    """Each write in turn, and the verdict."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("recipe", nargs="?", default="tiny-text")
    asked.add_argument("--every", type=int, default=1)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as place:
        calm = Path(place, "calm")
        with full_at(None) as writes:
            train(options.recipe, calm)
        wanted = load_model(calm / "model.safetensors").state
        numbers = range(0, len(writes), options.every)
        for number in numbers:
            folder = Path(place, str(number))
            with full_at(number) as tried:
                code, said = train(options.recipe, folder)
            what = os.path.relpath(tried[number], folder)
            if code != 1 or "No space left on device" not in said:
                sys.exit(f"{what}: the command ended with {code}: {said}")
            code, said = train(options.recipe, folder)
            found = load_model(folder / "model.safetensors").state
            if code or not all(torch.equal(found[name], value) for name, value in wanted.items()):
                sys.exit(f"{what}: run again it ended with {code}, and with other weights: {said}")
            left = [path for path in folder.rglob(".*") if path.is_file()]
            print(f"{what}: told, and made good{f'; left behind: {left}' * bool(left)}", flush=True)
        print(f"{len(numbers)} of {len(writes)} writes failed once each; all runs ended with the same weights")


if __name__ == "__main__":
    main()

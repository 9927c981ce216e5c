"""`torchrun darkroom sample`: two processes share what one would draw."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from processes import torchrun

WORDS = (
    "a red heart",
    "--count",
    5,
    "--size",
    16,
    "--steps",
    2,
    "--batch",
    4,
    "--seed",
    7,
    "--grid",
    "--device",
    "cpu",
)


def test_two_processes_draw_what_one_draws(say: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """The same files with the same notes; batches are others, so that pixels may differ by their last digits."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert say("sample", *WORDS, "--out", alone)[0] == 0
    done = torchrun("sample", *WORDS, "--out", both)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"5 pictures in {both}, together on {both / 'grid.png'}\n"  # one of them speaks
    names = sorted(path.name for path in both.iterdir())
    assert names == sorted(path.name for path in alone.iterdir()) == [*(f"{k:04}.png" for k in range(5)), "grid.png"]
    for name in names:
        with Image.open(alone / name) as one, Image.open(both / name) as other:
            assert other.info == one.info
            assert np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max() <= 2

"""What every test may ask for. Shapes in signatures are checked while tests run."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from browser import chromium

__all__ = ["chromium"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("any-machine", deadline=None)  # how long an example takes says something of the machine
settings.load_profile("any-machine")
ROOT = Path(__file__).resolve().parents[1]


HOT = {f"darkroom.scenes.{name}" for name in ("draw", "fit", "outlines")}  # tens of thousands of small calls a picture


def with_shapes(source: Path) -> list[str]:
    """Modules whose signatures may have shapes; to check every call of all others would take longer than the tests."""
    files = (path for path in source.rglob("*.py") if re.search("jaxtyping|shapes import", path.read_text("utf-8")))
    return sorted({".".join(path.relative_to(source).with_suffix("").parts) for path in files} - HOT)


install_import_hook(with_shapes(ROOT / "src"), "beartype.beartype")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """One torch thread a process: with several processes at once more threads are slower, not faster."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and reference numbers, a neighbour of the source tree and no part of it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared (small real data and numbers of the original code)")
    return folder


@pytest.fixture(scope="session")
def parity(shared: Path) -> Path:
    """The cases computed by the original code: weights, inputs, outputs and tolerances."""
    folder = shared / "parity" / "public"
    if not folder.is_dir():
        pytest.skip("needs ../shared/parity/public (numbers of the original code)")
    return folder

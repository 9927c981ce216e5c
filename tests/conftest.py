"""What every test may ask for. jaxtyping and beartype check shapes (`addopts` in pyproject.toml)."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("any-machine", deadline=None)  # how long an example takes says something of the machine
settings.load_profile("any-machine")
ROOT = Path(__file__).resolve().parents[1]


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

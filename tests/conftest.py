"""What every test may ask for. Shapes in signatures are checked while tests run."""

import gc
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from browser import chromium
from shape_checks import check_shapes, leave_the_others

__all__ = ["chromium"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("any-machine", deadline=None)  # how long an example takes says something of the machine
settings.load_profile("any-machine")
ROOT = Path(__file__).resolve().parents[1]
LONG = ("test_parted", "test_readme", "test_studies", "test_ranks", "test_evaluate_sets", "test_killed")
COUNTED = pytest.StashKey[bool]()

check_shapes(ROOT / "src")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests begin first: one that begins last would be waited for alone."""
    seen: set[str] = set()
    for item in items:
        name = item.nodeid.partition("[")[0]
        item.stash[COUNTED] = name not in seen
        seen.add(name)
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_collection_finish() -> None:
    """By now nearly every module is there, and stays: nobody needs to search a million objects for cycles again."""
    leave_the_others()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Lines are counted in the first case of each test alone, for the tracer costs a quarter of the time.

    What is counted is so at most what is run: the other cases add what only they come to.
    """
    tracer = sys.gettrace()
    if tracer is None or item.stash[COUNTED] or not item.config.pluginmanager.hasplugin("_cov"):
        return (yield)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """One torch thread a process: with several processes at once more threads are slower, not faster."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks() -> Generator[None]:
    """No test cuts the power: to all of them a file on its way to the disk is as good as one that is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


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

"""Freed memory stays with the process, unless the user has chosen otherwise."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from darkroom.core.memory import keep_freed_memory
kept = keep_freed_memory() if {asked} else False
for _ in range(20):  # until there is room enough
    torch.empty(10_000_000).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.empty(10_000_000).fill_(1)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc of glibc")


def kept_and_faults(*, asked: bool, **environment: str) -> tuple[bool, int]:
    """Was the setting taken, and how many pages were mapped while 40 MB were taken and freed 20 times more?"""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = [sys.executable, "-c", FAULTS.format(asked=asked)]
    told = subprocess.run(run, env=plain | environment, capture_output=True, text=True, check=True).stdout
    kept, faults = map(int, told.split())
    return bool(kept), faults


@glibc
def test_the_same_blocks_are_used_again() -> None:
    _, without = kept_and_faults(asked=False)
    kept, faults = kept_and_faults(asked=True)
    assert kept
    assert faults < 1_000
    assert without > 20_000  # else this says nothing


@glibc
def test_a_choice_in_the_environment_stands() -> None:
    assert kept_and_faults(asked=True, MALLOC_TRIM_THRESHOLD_="131072")[0] is False

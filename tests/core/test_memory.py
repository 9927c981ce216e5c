"""Freed memory stays with the process, unless the user has chosen otherwise."""

import os
import platform
from pathlib import Path

import pytest
import torch

from darkroom.core.memory import available, keep_freed_memory
from warm import begun

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc of glibc")
unchosen = pytest.mark.skipif(
    any(name.startswith(("MALLOC_", "GLIBC_")) for name in os.environ), reason="the environment says how malloc works"
)


def _faults(asked: bool) -> None:
    import resource  # not on every system

    kept = keep_freed_memory() if asked else False
    for _ in range(20):  # until there is room enough
        torch.empty(10_000_000).fill_(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(10_000_000).fill_(1)
    print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


def kept_and_faults(folder: Path, *, asked: bool) -> tuple[bool, int]:
    """Was the setting taken, and how many pages were mapped while 40 MB were taken and freed 20 times more?"""
    with begun(_faults, asked, folder=folder) as process:
        assert process.ended() == 0, process.complaints
        kept, faults = map(int, process.out.split())
    return bool(kept), faults


@glibc
@unchosen
def test_the_same_blocks_are_used_again(tmp_path: Path) -> None:
    _, without = kept_and_faults(tmp_path, asked=False)
    kept, faults = kept_and_faults(tmp_path, asked=True)
    assert kept
    assert faults < 1_000
    assert without > 20_000  # else this says nothing


@glibc
def test_a_choice_in_the_environment_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert keep_freed_memory() is False


def test_what_is_left_is_the_least_of_what_linux_and_its_groups_say(tmp_path: Path) -> None:
    assert available(tmp_path) is None
    meminfo = tmp_path / "proc" / "meminfo"
    meminfo.parent.mkdir()
    meminfo.write_text("MemTotal: 900 kB\nMemAvailable:   500 kB\n")
    assert available(tmp_path) == 500 * 1024
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    (group / "memory.max").write_text("max\n")
    assert available(tmp_path) == 500 * 1024
    (group / "memory.max").write_text("5000\n")
    assert available(tmp_path) == 4000
    old = group / "memory"
    (group / "memory.max").unlink()
    old.mkdir()
    (old / "memory.limit_in_bytes").write_text("3000\n")
    (old / "memory.usage_in_bytes").write_text("3500\n")
    assert available(tmp_path) == 0

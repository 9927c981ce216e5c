"""Memory of this process: how much it may take, and that what is freed is kept for the next tensors."""

import atexit
import ctypes
import gc
import os
import platform
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of the settings in glibc's malloc.h
_LARGEST = 2**31 - 1
_CHOSEN_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Keep what large tensors leave for the next ones, for the rest of this process; False where that is not done.

    As it comes, glibc gives freed memory back to the system when it is more than some 64 MB, and the next training
    step asks for the same again, which must be mapped and cleared page by page. Other C libraries and a malloc put in
    glibc's place are left alone, and so is a user's own choice in the environment.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    if any(name in os.environ for name in _CHOSEN_BY_USER):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))


def available(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take; None where the system does not say.

    The least of what Linux has and what is left of the limits of its control groups, if they are set.
    """
    found = [each for each in (_system(root), _group(root)) if each is not None]
    return min(found, default=None)


def _system(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _group(root: Path) -> int | None:
    """Of version 2, and of version 1."""
    for folder, limit, used in (
        ("sys/fs/cgroup", "memory.max", "memory.current"),
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        most, now = (_lines(root / folder / name) for name in (limit, used))
        if most and now and most[0].isdecimal():
            return max(0, int(most[0]) - int(now[0]))
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def leave_at_once() -> None:
    """Let the process end without a last search for cycles of objects, which after `import torch` takes 0.3 s."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)

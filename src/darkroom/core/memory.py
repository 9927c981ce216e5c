"""How this process holds its memory, and how it lets go of it."""

import atexit
import ctypes
import gc
import os
import platform

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


def leave_at_once() -> None:
    """Let the process end without a last search for cycles of objects, which after `import torch` takes 0.3 s."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)

"""Checkpoints that an attacker would write, and what must become of them."""

import io
import pickle
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.checkpoint.unpickle import read_checkpoint
from darkroom.core.errors import ModelFileError

MARKER = "executed"


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def touch(folder: Path) -> str:
    return f"touch {folder / MARKER}"


def good() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(7)}


def saved(path: Path, value: Any, *, protocol: int = 2) -> Path:
    torch.save(value, path, pickle_protocol=protocol)
    return path


def zipped(path: Path, data: bytes, *, entries: dict[str, bytes] | None = None, how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as file:
        file.writestr("archive/data.pkl", data)
        for name, content in (entries or {}).items():
            file.writestr(name, content)
    return path


class Storage:
    def __init__(self, key: Any, count: int, kind: Any = torch.FloatStorage) -> None:
        self.identity = ("storage", kind, key, "cpu", count)


class Described:
    """A tensor that says about itself whatever it likes."""

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any) -> None:
        self.parts = (storage, offset, shape, stride, False, OrderedDict())

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.parts


def described(*parts: Any, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return value.identity if isinstance(value, Storage) else None

    Pickler(buffer, protocol).dump({"state_dict": {"weight": Described(*parts)}})
    return buffer.getvalue()


def refused(path: Path, message: str, *, read: Callable[[Path], object] = read_checkpoint) -> str:
    """The one sentence that answers, quickly, in little memory, with no trace of code having run."""
    start = time.monotonic()
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=message) as caught:
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20
    assert time.monotonic() - start < 10
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (path.parent / MARKER).exists()
    return str(caught.value)


def raw(instructions: bytes) -> bytes:
    return b"\x80\x02" + instructions

"""Files of tensors: there whole or not at all, and one sentence where a disk is full."""

import contextlib
from collections.abc import Generator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from darkroom.core.errors import unwritable
from darkroom.core.record import atomic, writable_folder


@contextlib.contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A temporary file that becomes `path` when the block ends well, in a folder that is made where there is none.

    `UnwritableError` when the folder or the file cannot be written; nothing is left then.
    """
    writable_folder(path.parent, instead="choose another folder")
    try:
        with atomic(path) as temporary:
            yield temporary
    except OSError as error:
        raise unwritable(path, error) from None


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """A `.safetensors` file of tensors of which no two share memory; `OSError` when it cannot be written."""
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        raise OSError(str(error).rpartition("I/O error: ")[2]) from None


def write_torch(path: Path, value: Mapping[str, object]) -> None:
    """A torch checkpoint of plain values and compact tensors; `OSError` when it cannot be written."""
    with path.open("wb") as file:
        try:
            torch.save(dict(value), file)
        except RuntimeError as error:  # of closing the archive, after the error that tells why
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None

"""The header of a `.safetensors` file, read and checked without touching the tensors behind it."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from darkroom.core.errors import ModelFileError

HEADER_LIMIT = 8 * 2**20  # what Python makes of a header takes up to thirty times its size
MOST_TENSORS = 50_000
MOST_AXES = 8
MOST_NUMBERS = 2**48  # of a tensor, counted as if no side were 0
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@final
@dataclass(frozen=True)
class TensorInfo:
    """Shape and type of a stored tensor, and where its bytes begin and end in the file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    span: tuple[int, int]


@final
@dataclass(frozen=True)
class Header:
    """What a `.safetensors` file says about itself: text metadata, and its tensors by name."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorInfo]


def read_header(path: Path) -> Header:
    """The header; `ModelFileError` when the file is missing, truncated, of another kind or contradicts itself."""
    size, declared, text = _read(path)
    try:
        values = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        twice = isinstance(error, TwiceError)
        reason = f"its header names {str(error)[:200]} twice" if twice else "its header is not valid JSON"
        raise ModelFileError(f"{path}: not a safetensors file, {reason}") from None
    if not isinstance(values, dict):
        raise ModelFileError(f"{path}: not a safetensors file, its header is not a JSON object")
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFileError(f"{path}: damaged, its metadata is not a table of texts")
    if len(values) > MOST_TENSORS:
        raise ModelFileError(f"{path}: refused, it has {len(values)} tensors, {MOST_TENSORS} at most fit")
    start = 8 + declared
    tensors = {name: _tensor(path, name, value=value, start=start) for name, value in values.items()}
    _check_spans(path, tensors, start=start, end=size)
    return Header(metadata, tensors)


class TwiceError(ValueError):
    """A name that stands twice in a JSON object, as Python writes it."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads(..., object_pairs_hook=once)`: an object none of whose names stands twice; else `TwiceError`."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise TwiceError(repr(name))
        values[name] = value
    return values


def refuse_other_than_files(path: Path) -> None:
    """`ModelFileError` for a folder, and for a pipe or device, whose reading might never end."""
    if path.exists() and not path.is_file():
        raise ModelFileError(f"{path}: cannot be read (it is no file)")


def holds_safetensors(path: Path) -> bool:
    """Is this a file of tensors as `.safetensors` are, by its first bytes, or by its name where those say nothing?

    `ModelFileError` for what is no file.
    """
    refuse_other_than_files(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        start = b""
    if start[:4] == b"PK\x03\x04":
        return False
    return start[8:] == b"{" or path.suffix.lower() == ".safetensors"


def is_possible(shape: Sequence[int]) -> bool:
    """Can there be a tensor of this shape? Sides may be numbers of thousands of digits."""
    return len(shape) <= MOST_AXES and math.prod(max(side, 1) for side in shape) < MOST_NUMBERS


def _read(path: Path) -> tuple[int, int, bytes]:
    """Size of the file, declared size of its header, and the header's bytes."""
    refuse_other_than_files(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            prefix = file.read(8)
            declared = int.from_bytes(prefix, "little")
            if size == 0:
                raise ModelFileError(f"{path}: the file is empty")
            if len(prefix) < 8 or prefix[:2] == b"PK" or declared > HEADER_LIMIT:
                raise ModelFileError(f"{path}: not a safetensors file")
            if 8 + declared > size:
                raise ModelFileError(
                    f"{path}: truncated or not a safetensors file (a header of {declared} bytes is declared, "
                    f"the file has {size})"
                )
            return size, declared, file.read(declared)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such model file") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from None


def _tensor(path: Path, name: str, *, value: object, start: int) -> TensorInfo:
    match value:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if all(
            type(side) is int and side >= 0 for side in shape
        ):
            if kind not in DTYPES:
                raise ModelFileError(f"{path}: tensor {name[:200]!r} is of type {kind[:40]}; {', '.join(DTYPES)} fit")
            dtype = DTYPES[kind]
            if not is_possible(shape) or end - begin != math.prod(shape) * dtype.itemsize or begin < 0:
                came = f"of shape {str(shape)[:100]} does not fill its {str(end - begin)[:20]} bytes"
                raise ModelFileError(f"{path}: damaged, tensor {name[:200]!r} {came}")
            return TensorInfo(tuple(shape), dtype, (start + begin, start + end))
        case _:
            raise ModelFileError(f"{path}: damaged, the entry of tensor {name[:200]!r} cannot be read")


def _check_spans(path: Path, tensors: Mapping[str, TensorInfo], *, start: int, end: int) -> None:
    """Tensors must fill the file without gaps or overlaps, as the format demands."""
    spans = sorted(info.span for info in tensors.values())
    for before, after in itertools.pairwise([(start, start), *spans, (end, end)]):
        if after[0] != before[1]:
            what = "truncated" if after[0] < before[1] and after[1] == end else "damaged"
            raise ModelFileError(f"{path}: {what}, its tensors do not fill the file")

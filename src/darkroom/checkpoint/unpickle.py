"""Checkpoints of others as tables of tensors: torch `.ckpt` / `.pt` files and `.safetensors`, never executed."""

import itertools
import math
import re
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from darkroom.checkpoint.archive import Archive, open_archive
from darkroom.checkpoint.header import Header, holds_safetensors, is_possible, read_header
from darkroom.checkpoint.pickled import Foreign, TensorRef, read_pickle
from darkroom.core.errors import ModelFileError

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
STEP = "global_step"
MOST_BESIDE = 20  # keys beside the weights that are told
MOST_SHARING = 4  # times that the same bytes may be shown on average; a copy of the first stage makes it less than 2


class Tensors(Mapping[str, Tensor]):
    """Tensors by name, each read from the file when it is asked for, floating ones upcast to float32."""

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.stored(name)
        return tensor.float() if tensor.is_floating_point() else tensor

    @abstractmethod
    def stored(self, name: str) -> Tensor:
        """The tensor as it lies in the file, in its own type; `KeyError` when there is none."""

    @abstractmethod
    def place(self, name: str) -> Hashable:
        """Where it lies; names of one place have one tensor."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape, without reading."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """The stored type, without reading."""


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A foreign checkpoint.

    state_dict: read on demand · global_step: None when it does not say · odd: sentences · beside: keys of what else it
    holds, such as the state of an optimiser.
    """

    state_dict: Tensors = field(repr=False)
    global_step: int | None = None
    odd: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """A `.safetensors` file, or a torch checkpoint with or without a key `state_dict` around its tensors.

    Which of both it is, its first bytes say, whatever it is called.
    `ModelFileError`, in one sentence, for files that are missing, damaged, of another kind or unsafe.
    """
    if holds_safetensors(path):
        header = read_header(path)
        step = header.metadata.get(STEP, "")
        return Checkpoint(SafeTensors(path, header), int(step) if re.fullmatch(r"\d{1,18}", step) else None)
    archive = open_archive(path)
    value, foreign = read_pickle(archive.pickle, where=str(path))
    state, beside = _parts(path, value)
    tensors, odd = _tensors(path, state, archive=archive)
    if foreign:
        odd.append(f"names that were read as inert text: {', '.join(foreign[:5])}")
    step = beside.pop(STEP, None)
    names = tuple(key[:100] for key in list(beside)[:MOST_BESIDE] if isinstance(key, str))
    fits = type(step) is int and 0 <= step < 2**63
    return Checkpoint(PickledTensors(archive, tensors), step if fits else None, tuple(odd), names)


@final
class SafeTensors(Tensors):
    """The tensors of a `.safetensors` file."""

    def __init__(self, path: Path, header: Header) -> None:
        self._path, self._header = path, header

    def __len__(self) -> int:
        return len(self._header.tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._header.tensors

    def stored(self, name: str) -> Tensor:
        info = self._header.tensors[name]
        begin, end = info.span
        if begin == end:
            return torch.zeros(info.shape, dtype=info.dtype)
        data = bytearray(end - begin)  # the library of the format would read the whole header for each tensor
        with self._path.open("rb") as file:
            file.seek(begin)
            if file.readinto(data) != len(data):
                raise ModelFileError(f"{self._path}: truncated, tensor {name[:200]!r} ends early")
        return torch.frombuffer(data, dtype=info.dtype).reshape(info.shape)

    def place(self, name: str) -> Hashable:
        return self._header.tensors[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._header.tensors[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self._header.tensors[name].dtype


@final
class PickledTensors(Tensors):
    """The tensors of a torch checkpoint; references are checked against their storages."""

    def __init__(self, archive: Archive, references: Mapping[str, TensorRef]) -> None:
        self._archive, self._references = archive, references

    def __len__(self) -> int:
        return len(self._references)

    def __iter__(self) -> Iterator[str]:
        return iter(self._references)

    def __contains__(self, name: object) -> bool:
        return name in self._references

    def stored(self, name: str) -> Tensor:
        found = self._references[name]
        dtype, extent = self.dtype(name), _extent(found)
        if not extent:
            return torch.zeros(found.shape, dtype=dtype)
        begin, count = found.offset * dtype.itemsize, extent * dtype.itemsize
        data = self._archive.read(found.storage.key, begin=begin, count=count)
        flat = torch.frombuffer(data, dtype=dtype)
        stride = [step if side > 1 else 1 for side, step in zip(found.shape, found.stride, strict=True)]
        return flat.as_strided(found.shape, stride).contiguous()

    def place(self, name: str) -> Hashable:
        return self._references[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._references[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return STORAGES[self._references[name].storage.kind]


def _parts(path: Path, value: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The table of tensors in whatever the pickle held, and what lies beside it."""
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        return value["state_dict"], {key: item for key, item in value.items() if key != "state_dict"}
    if isinstance(value, dict) and any(isinstance(item, TensorRef) for item in value.values()):
        return value, {}
    raise ModelFileError(f"{path}: holds no 'state_dict' with tensors; {_told(value)} came")


def _told(value: Any) -> str:
    """What a pickle held instead of tensors."""
    match value:
        case {}:
            keys = [repr(key)[:60] for key in itertools.islice(value, 5)]
            return f"a table of {', '.join(keys)}" if keys else "an empty table"
        case Foreign(name=name):
            return f"a {name[:200]}"
        case TensorRef():
            return "a tensor alone"
        case _:
            return f"a value of type {type(value).__name__}"


def _tensors(path: Path, state: Mapping[Any, Any], *, archive: Archive) -> tuple[dict[str, TensorRef], list[str]]:
    tensors: dict[str, TensorRef] = {}
    others: list[str] = []
    for name, value in state.items():
        if isinstance(value, Foreign):
            verb = "calls" if value.called else "names"
            raise ModelFileError(
                f"{path}: refused, it {verb} {value.name[:200]} inside 'state_dict', where only tensors belong"
            )
        if isinstance(name, str) and isinstance(value, TensorRef):
            _check(path, name, value, archive=archive)
            tensors[name] = value
        else:
            others.append(str(name)[:100])
    if not tensors:
        raise ModelFileError(f"{path}: its 'state_dict' holds no tensors")
    held = sum(size for _, size in archive.storages.values())
    shown = ((max(math.prod(each.shape), _extent(each)), each.storage.kind) for each in tensors.values())
    used = sum(count * STORAGES[kind].itemsize for count, kind in shown)
    if used > MOST_SHARING * held:
        raise ModelFileError(f"{path}: refused, its tensors show {held} bytes as {used}")
    return tensors, _about_others(others)


def _about_others(names: list[str]) -> list[str]:
    """A sentence for what stands among the tensors and is none."""
    match names:
        case []:
            return []
        case [name]:
            return [f"'state_dict' holds {name!r}, which is no tensor"]
        case [name, *more]:
            return [f"'state_dict' holds {name!r} and {len(more)} more that are no tensors"]


def _check(path: Path, name: str, found: TensorRef, *, archive: Archive) -> None:
    """`ModelFileError` unless the tensor lies in its storage and its storage in the file."""
    storage, at = found.storage, f"{path}: tensor {name[:200]!r}"
    if storage.kind not in STORAGES:
        raise ModelFileError(f"{at} is of the unknown type {storage.kind[:100]}")
    if storage.key not in archive.storages:
        raise ModelFileError(f"{at} needs storage {storage.key!r}, which the file lacks")
    held = archive.storages[storage.key][1]
    if storage.count * STORAGES[storage.kind].itemsize != held:
        raise ModelFileError(f"{at} declares a storage of {storage.count} values, the file holds {held} bytes")
    if not is_possible(found.shape):
        raise ModelFileError(f"{at} has a shape that no tensor has, of {len(found.shape)} axes")
    if found.offset + _extent(found) > storage.count or math.prod(found.shape) > storage.count:
        raise ModelFileError(f"{at} of shape {found.shape} reaches beyond its storage of {storage.count} values")


def _extent(found: TensorRef) -> int:
    """Values of the storage between the first and the last that the tensor uses."""
    if 0 in found.shape:
        return 0
    return 1 + sum((side - 1) * step for side, step in zip(found.shape, found.stride, strict=True))

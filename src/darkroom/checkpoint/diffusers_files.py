"""Files of a diffusers folder: JSON of bounded size, and weights in one file or in shards; nothing is ever executed."""

import json
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

from darkroom.checkpoint.header import TwiceError, once
from darkroom.checkpoint.keymap import some
from darkroom.checkpoint.unpickle import Tensors, read_checkpoint
from darkroom.core.errors import ModelFileError

MOST_JSON: Final = 2**20  # bytes of a configuration
MOST_INDEX: Final = 4 * 2**20
MOST_SHARDS: Final = 1000
NETWORK: Final = "diffusion_pytorch_model"  # how the weights of a component are called
ENCODERS: Final = ("model", "pytorch_model")  # and those of a text encoder
_HALF: Final = ("fp16", "bf16")
_SHARD: Final = re.compile(r"[\w-][\w.-]*")
_PART: Final = re.compile(r"-\d+-of-\d+\.\w+$")  # how the names of shards end
_OLD: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME: Final = re.compile(rf"(.*attentions\.\d+)\.({'|'.join(_OLD)})\.(weight|bias)")


@final
@dataclass(frozen=True)
class Weights:
    """The weights of one component, still in their files. odd: which of several files were taken."""

    tensors: Tensors = field(repr=False)
    odd: tuple[str, ...] = ()


def read_object(path: Path, *, limit: int = MOST_JSON) -> dict[str, Any]:
    """The JSON object in a stranger's file of at most `limit` bytes; `ModelFileError` for all else."""
    try:
        if not path.is_file():
            raise ModelFileError(f"{path}: no such file")
        if path.stat().st_size > limit:
            raise ModelFileError(f"{path}: too large, at most {limit} bytes are read")
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from None
    except TwiceError as error:
        raise ModelFileError(f"{path}: damaged, it names {str(error)[:100]} twice") from None
    except (ValueError, RecursionError):
        raise ModelFileError(f"{path}: not valid JSON") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: damaged, it is no JSON object")
    return value


def weights_in(folder: Path, *, stems: tuple[str, ...] = (NETWORK,)) -> Weights:
    """The weights in a component's folder, in full precision where there are any, `.safetensors` before `.bin`.

    stems: how the files may be called. Older names of attention are brought to those of today. `ModelFileError` when
    there are none, and for damaged files, unsafe ones and indices that lie.
    """
    found = sorted(_files(folder, stems), key=_rank)
    if not found:
        lacking = f"{stems[0]}.safetensors" + ".index.json" * any(_PART.search(each.name) for each in folder.iterdir())
        raise ModelFileError(f"{folder}: holds no weights ({lacking} is missing)")
    taken = found[0]
    others = sorted({each.variant for each in found if each.variant != taken.variant})
    places, odd = (_sharded if taken.index else _whole)(taken.path)
    return Weights(_Placed(_renamed(places)), (*odd, *_about(taken.variant, others, name=folder.name)))


def write_object(path: Path, values: Mapping[str, Any]) -> None:
    """JSON as diffusers writes it."""
    path.write_text(json.dumps(dict(values), indent=2, sort_keys=True) + "\n", encoding="utf-8")


@final
@dataclass(frozen=True)
class _File:
    """A file of weights, or an index of shards. variant: "" for full precision."""

    path: Path
    variant: str
    kind: str
    index: bool


def _files(folder: Path, stems: tuple[str, ...]) -> Iterator[_File]:
    """`STEM.safetensors`, `STEM.fp16.safetensors`, `STEM.safetensors.index.json`, and what else they were called."""
    index = r"(\.(?P<old>\w+))?\.index(\.(?P<of>\w+))?\.json"
    form = rf"({'|'.join(stems)})(\.(?P<own>\w+))?\.(?P<kind>safetensors|bin)(?P<index>{index})?"
    try:
        listed = sorted(folder.iterdir())
    except OSError as error:
        raise ModelFileError(f"{folder}: cannot be read ({error.strerror or error})") from None
    for path in listed:
        said = re.fullmatch(form, path.name)
        if said is not None:
            yield _File(path, said["own"] or said["old"] or said["of"] or "", said["kind"], said["index"] is not None)


def _rank(found: _File) -> tuple[bool, bool, bool, str, bool, bool]:
    """Full precision, then half, then other variants, raw weights last; `.safetensors` first, and whole files."""
    of_half, raw = found.variant in _HALF, found.variant.startswith("non_")
    return found.variant != "", not of_half, raw, found.variant, found.kind != "safetensors", found.index


def _about(variant: str, others: list[str], *, name: str) -> list[str]:
    beside = f"; beside it lie {', '.join(others)}, which are not taken" if others else ""
    if variant:
        return [f"{name}: only variants of the weights are there, {variant} is taken{beside}"]
    return [f"{name}: the weights in full precision are taken{beside}"] if others else []


Places = dict[str, tuple[Tensors, str]]


def _whole(path: Path) -> tuple[Places, list[str]]:
    checkpoint = read_checkpoint(path)
    return {name: (checkpoint.state_dict, name) for name in checkpoint.state_dict}, list(checkpoint.odd)


def _sharded(path: Path) -> tuple[Places, list[str]]:
    """The tensors of all shards that an index names; it must tell of each the one shard where it lies."""
    named = read_object(path, limit=MOST_INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(each, str) for each in named.values()):
        raise ModelFileError(f"{path}: damaged, its weight_map does not say which file holds which tensor")
    kind = ".safetensors" if ".safetensors." in path.name else ".bin"
    promised: dict[str, list[str]] = {}
    for name, shard in named.items():
        promised.setdefault(shard, []).append(name)
    places: Places = {}
    odd: list[str] = []
    for shard in _shards(path, named, kind=kind):
        found, sentences = _whole(path.parent / shard)
        twice = next((name for name in found if name in places), None)
        if twice is not None:
            raise ModelFileError(f"{path}: damaged, tensor {twice[:200]!r} lies in two of its shards")
        places |= found
        odd += sentences
        lacking = [name for name in promised[shard] if name not in found]
        if lacking:
            raise ModelFileError(f"{path.parent / shard}: {some(lacking)} missing, which {path.name} says lies there")
    return places, odd


def _shards(path: Path, named: Mapping[str, str], *, kind: str) -> list[str]:
    """The names of the shards; `ModelFileError` for any but plain names of files beside the index."""
    shards = sorted(set(named.values()))
    if len(shards) > MOST_SHARDS:
        raise ModelFileError(f"{path}: refused, it names {len(shards)} shards")
    for shard in shards:
        if not _SHARD.fullmatch(shard) or not shard.endswith(kind):
            raise ModelFileError(f"{path}: refused, the shard {shard[:100]!r} is no plain name of a {kind} file")
        if not (path.parent / shard).is_file():
            raise ModelFileError(f"{path}: the shard {shard[:100]!r} is missing")
    return shards


def _renamed(places: Places) -> Places:
    """With today's names for query, key, value and proj_attn of attention, unless those are there too."""
    made: Places = {}
    for name, place in places.items():
        matched = _OLD_NAME.fullmatch(name)
        now = f"{matched[1]}.{_OLD[matched[2]]}.{matched[3]}" if matched else name
        made[name if now in places else now] = place
    return made


@final
class _Placed(Tensors):
    """Tensors of several files, each read from its own when it is asked for."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def stored(self, name: str) -> Tensor:
        tensors, there = self._places[name]
        return tensors.stored(there)

    def place(self, name: str) -> Hashable:
        tensors, there = self._places[name]
        return id(tensors), tensors.place(there)

    def shape(self, name: str) -> tuple[int, ...]:
        tensors, there = self._places[name]
        return tensors.shape(there)

    def dtype(self, name: str) -> torch.dtype:
        tensors, there = self._places[name]
        return tensors.dtype(there)

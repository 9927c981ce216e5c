"""Files of our own small networks: `.safetensors` with the spec and a card in their metadata."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from darkroom.core.errors import ModelFileError
from darkroom.core.record import atomic
from darkroom.nn.pyramids import PlainPyramid, PlainSpec, PyramidSpec, ResidualPyramid, ResidualSpec, pyramid

FORMAT = 1
PREFIX = "darkroom."
SHIPPED = Path(__file__).parent / "weights"
HEAD = "heads."
M = TypeVar("M", bound=nn.Module)

_SPEC: TypeAdapter[PlainSpec | ResidualSpec] = TypeAdapter(PyramidSpec)


@final
@dataclass(frozen=True, eq=False)
class Features:
    """A network, the weights of its taps in distances (one (c,) vector a tap), and what is known about both."""

    name: str
    spec: PlainSpec | ResidualSpec
    network: PlainPyramid | ResidualPyramid = field(repr=False)
    heads: tuple[Tensor, ...] = field(repr=False)
    card: Mapping[str, Any] = field(default_factory=dict)


def fresh(name: str, spec: PlainSpec | ResidualSpec) -> Features:
    """An untrained network; every tap weighs the same, and so does every channel of it."""
    heads = tuple(torch.full((width,), 1.0) for width in spec.widths)
    return Features(name, spec, pyramid(spec), heads, {"steps": 0})


def save_features(path: Path, features: Features) -> Path:
    """Write atomically, in half precision: the files travel with the package."""
    state = features.network.state_dict() | {f"{HEAD}{i}": head for i, head in enumerate(features.heads)}
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in state.items()}
    metadata = {
        "format": str(FORMAT),
        "kind": "features",
        "name": features.name,
        "spec": json.dumps(features.spec.model_dump(mode="json")),
        "card": json.dumps(dict(features.card), ensure_ascii=False),
    }
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={PREFIX + key: value for key, value in metadata.items()})
    return path


def load_features(path: Path) -> Features:
    """The network in a file, in float32, frozen; `ModelFileError` when it is missing, damaged or of another kind."""
    metadata, state = _read(path)
    if metadata.get("kind") != "features" or metadata.get("format") != str(FORMAT):
        raise ModelFileError(f"{path}: no feature network of format {FORMAT}; install the package again")
    try:
        spec = _SPEC.validate_json(metadata["spec"])
        name, card = metadata["name"], dict(json.loads(metadata["card"]))
        network = pyramid(spec)
        heads = tuple(state.pop(f"{HEAD}{i}") for i in range(len(spec.widths)))
        network.load_state_dict(state)
    except (KeyError, ValueError, TypeError, RuntimeError, ValidationError) as error:
        raise ModelFileError(f"{path}: damaged ({str(error).splitlines()[0]}); install the package again") from None
    if [head.shape for head in heads] != [(width,) for width in spec.widths]:
        raise ModelFileError(f"{path}: damaged, the weights of its taps do not fit; install the package again")
    return Features(name, spec, frozen(network), heads, card)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {key.removeprefix(PREFIX): value for key, value in (file.metadata() or {}).items()}
            names = list(file.keys())
            return metadata, {name: file.get_tensor(name).float() for name in names}
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file; install the package again") from None
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: damaged ({error}); install the package again") from None


def frozen(network: M) -> M:
    """The network in evaluation mode, asking for no gradient, laid out so that convolutions are fastest."""
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

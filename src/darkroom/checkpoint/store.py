"""Our own model file: one `.safetensors` with the spec, the card, class names and the tokenizer in its metadata."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, cast, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.autoencoder.statistics import LatentStatistics
from darkroom.checkpoint.card import check_card
from darkroom.checkpoint.header import Header, TensorInfo, holds_safetensors
from darkroom.checkpoint.header import read_header as read_safetensors_header
from darkroom.checkpoint.read_spec import parsed
from darkroom.checkpoint.rows import STEPS, in_rows, read, unfolded
from darkroom.conditioning.text import SequenceEncoderSpec
from darkroom.core.errors import ModelFileError, first_line
from darkroom.core.hashes import weights_hash
from darkroom.core.hollow import UNBUILDABLE, hollow
from darkroom.core.names import NAMELESS, Names
from darkroom.core.record import is_nested
from darkroom.core.spec import Spec
from darkroom.core.writing import whole_file, write_safetensors
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.network.unet import UNetSpec

FORMAT = 1
WITH_ROWS = 2  # the same, with weights in eight bits, which earlier versions cannot read
_LATER_NAMES: Final = ("categories", "map_classes")  # files written before there were any lack them
MOST_TEXT: Final = 2**18  # characters of a spec or a card
MOST_NAMES: Final = 2**20
PREFIX = "darkroom."
FIRST_STAGE = "first_stage."
FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Kind = Literal["model", "first-stage"]
FloatName = Literal["float32", "bfloat16", "float16"]
StoredName = FloatName | Literal["int8"]


@final
@dataclass(frozen=True, eq=False)
class StoredModel:
    """A model as it lies in a file: what it is, its tensors by our names, and what is known about it.

    kind: `model` has a ModelSpec, `first-stage` an AutoencoderSpec · card: JSON values (task, data, steps, measured
    quality, licence) · names: of labels, categories and map ids · tokenizer: a `tokenizer.json` text · latents: how the
    first stage's latents are spread over its training set, None for models that never measured it · odd: sentences
    about a foreign file that was read (not written to ours).
    """

    kind: Kind
    spec: ModelSpec | AutoencoderSpec
    state: Mapping[str, Tensor] = field(repr=False)
    card: Mapping[str, Any] = field(default_factory=dict)
    names: Names = NAMELESS
    tokenizer: str | None = field(default=None, repr=False)
    latents: LatentStatistics | None = None
    odd: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class StoredHeader:
    """A model file without its weights: all of `StoredModel` but the state, and the tensors' shapes and types."""

    kind: Kind
    spec: ModelSpec | AutoencoderSpec
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    card: Mapping[str, Any] = field(default_factory=dict)
    names: Names = NAMELESS
    tokenizer: str | None = field(default=None, repr=False)
    latents: LatentStatistics | None = None
    latents_of: str | None = field(default=None, repr=False)


def spec_hash(model: StoredModel | StoredHeader | Spec) -> str:
    """Twelve hexadecimal digits that change with the spec (sha256 of its canonical JSON)."""
    spec = model.spec if isinstance(model, StoredModel | StoredHeader) else model
    text = json.dumps(spec.plain(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def save_model(path: Path, stored: StoredModel, *, dtype: StoredName = "float32") -> Path:
    """Write the file atomically; weights in `dtype`, buffers as they are.

    int8: matrices and kernels of the denoiser and its conditioners in rows of eight bits (`checkpoint.rows`), all else,
    first stages too, in bfloat16.
    `ModelFileError` when the tensors are not those of the spec, or hold what `dtype` cannot; `InputError` when it
    cannot be written.
    """
    skeleton = _skeleton(stored.spec)
    _check_tensors(str(path), _described(stored.state), skeleton=skeleton)
    _check_scale(str(path), stored)
    weights = {name for name, _ in skeleton.named_parameters()}
    written: dict[str, Tensor] = {}
    for name, tensor in stored.state.items():
        if name not in weights:
            written[name] = tensor
        elif dtype == "int8" and stored.kind == "model" and tensor.ndim > 1 and not name.startswith(FIRST_STAGE):
            written[name], written[name + STEPS] = in_rows(tensor)
        else:
            written[name] = narrowed(tensor, "bfloat16" if dtype == "int8" else dtype, name=name)
    tensors = apart(written)
    with whole_file(path) as temporary:
        write_safetensors(temporary, tensors, metadata=_metadata(stored, tensors))
    return path


def narrowed(tensor: Tensor, dtype: FloatName, *, name: str) -> Tensor:
    """A weight in a type; `ModelFileError` for numbers that the type cannot hold."""
    made = tensor.to(FLOATS[dtype])
    if made is not tensor and not bool(made.isfinite().all()) and bool(tensor.isfinite().all()):
        raise ModelFileError(f"tensor {name!r} holds numbers that {dtype} cannot; bfloat16 and float32 can")
    return made


def compact(tensor: Tensor) -> Tensor:
    """On the CPU, in order, and without the rest of a larger storage, which would be written as well."""
    flat = tensor.detach().cpu().contiguous()
    return flat if flat.untyped_storage().nbytes() == flat.numel() * flat.itemsize else flat.clone()


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compact tensors of which no two share memory, as `.safetensors` files need them; copied only where they do."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        flat = compact(tensor)
        found[name] = flat.clone() if flat.data_ptr() in seen else flat
        seen.add(flat.data_ptr())
    return found


def read_header(path: Path) -> StoredHeader:
    """What the file says about its model, in milliseconds; `ModelFileError` for files that are not ours or damaged."""
    return _interpret(path, read_safetensors_header(path))


def is_ours(path: Path) -> bool:
    """Is this a file of tensors that says it is one of ours? `ModelFileError` when it is damaged."""
    return holds_safetensors(path) and any(key.startswith(PREFIX) for key in read_safetensors_header(path).metadata)


def load_model(path: Path) -> StoredModel:
    """The model in a file, weights upcast to float32; `ModelFileError` as for `read_header`, or for other tensors."""
    header = read_header(path)
    skeleton = _skeleton(header.spec, where=path)
    _check_tensors(str(path), unfolded(header.tensors, where=str(path)), skeleton=skeleton)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in header.tensors}
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: damaged ({error})") from None
    if header.latents is not None and header.latents_of != _encoder_hash(tensors):
        raise ModelFileError(f"{path}: the latent statistics in it belong to another encoder; measure them anew")
    state = read(tensors)
    return StoredModel(header.kind, header.spec, state, header.card, header.names, header.tokenizer, header.latents)


def build(stored: StoredModel) -> LatentDiffusion | Autoencoder:
    """The module with the stored tensors as they are (not copied), in evaluation mode; `ModelFileError` by name."""
    module = _skeleton(stored.spec)
    _check_tensors("the model", _described(stored.state), skeleton=module)
    if isinstance(module, LatentDiffusion):
        _check_scale("the model", stored)
        module.scale = torch.empty_like(stored.state["scale"], device="meta")
    module.load_state_dict(dict(stored.state), strict=True, assign=True)
    return module.eval()


def _check_scale(where: str, stored: StoredModel) -> None:
    """`ModelFileError` for a factor on latents that cannot be; one that nobody measured yet (NaN) can."""
    scale = stored.state["scale"] if stored.kind == "model" else torch.tensor(1.0)
    if bool((scale <= 0).any()) or bool(scale.isinf().any()):
        raise ModelFileError(f"{where}: its scale of latents is {scale.tolist()}; a finite number above 0 fits")


def first_stage_of(stored: StoredModel) -> StoredModel:
    """The first stage of a model, or the model itself when it is one; `ModelFileError` for pixel-space models."""
    if not isinstance(stored.spec, ModelSpec):
        return stored
    spec = stored.spec.first_stage
    if not isinstance(spec, AutoencoderSpec):
        raise ModelFileError("this model works on pixels, so there is no first stage to take from it")
    state = {
        name.removeprefix(FIRST_STAGE): tensor for name, tensor in stored.state.items() if name.startswith(FIRST_STAGE)
    }
    return replace(stored, kind="first-stage", spec=spec, state=state, names=NAMELESS, tokenizer=None)


def _metadata(stored: StoredModel, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    values = {
        "format": str(WITH_ROWS if any(name.endswith(STEPS) for name in tensors) else FORMAT),
        "kind": stored.kind,
        "spec": json.dumps(stored.spec.plain()),
        "card": json.dumps(dict(stored.card), ensure_ascii=False),
        "classes": json.dumps(list(stored.names.classes), ensure_ascii=False),
    }
    for key in _LATER_NAMES:
        if getattr(stored.names, key):
            values[key] = json.dumps(list(getattr(stored.names, key)), ensure_ascii=False)
    long = next((key for key in ("spec", "card") if len(values[key]) > MOST_TEXT), None)
    if long is not None:
        raise ModelFileError(f"the {long} of this model has more than {MOST_TEXT} characters, which no file may")
    if stored.tokenizer is not None:
        values["tokenizer"] = stored.tokenizer
    if stored.latents is not None:
        values["latents"] = json.dumps({"of": _encoder_hash(tensors), "statistics": stored.latents.plain()})
    return {PREFIX + key: value for key, value in values.items()}


def _interpret(path: Path, header: Header) -> StoredHeader:
    ours = {key.removeprefix(PREFIX): value for key, value in header.metadata.items() if key.startswith(PREFIX)}
    if "format" not in ours:
        raise ModelFileError(
            f"{path}: a safetensors file, but not one of darkroom's; an original checkpoint needs its YAML (--config)"
        )
    if ours["format"] not in (str(FORMAT), str(WITH_ROWS)):
        raise ModelFileError(
            f"{path}: written in format {ours['format'][:20]}, this version reads formats {FORMAT} and "
            f"{WITH_ROWS}; update darkroom"
        )
    kind = ours.get("kind")
    if kind not in ("model", "first-stage"):
        raise ModelFileError(f"{path}: damaged, its kind is {str(kind)[:40]!r}; model and first-stage fit")
    family = ModelSpec if kind == "model" else AutoencoderSpec
    spec = parsed(family, _json(path, ours, key="spec", kind=dict), where=f"{path}, spec")
    if fewest_tensors(spec) > len(header.tensors):
        raise ModelFileError(f"{path}: damaged, its spec has more layers than the file has tensors")
    names = Names(
        classes=_texts(path, ours, key="classes"),
        **{key: _texts(path, ours, key=key) for key in _LATER_NAMES if key in ours},
    )
    card = _json(path, ours, key="card", kind=dict)
    check_card(card, where=f"{path}, card")
    latents, of = _latents(path, ours, spec=spec)
    tokenizer = ours.get("tokenizer")
    return StoredHeader(cast("Kind", kind), spec, header.tensors, card, names, tokenizer, latents, of)


def _latents(
    path: Path, values: Mapping[str, str], *, spec: ModelSpec | AutoencoderSpec
) -> tuple[LatentStatistics | None, str | None]:
    """The statistics of latents and the hash of the encoder they were measured on; `ModelFileError` when damaged."""
    if "latents" not in values:
        return None, None
    found = _json(path, values, key="latents", kind=dict)
    statistics = parsed(LatentStatistics, found.get("statistics"), where=f"{path}, latents")
    channels = (spec.first_stage if isinstance(spec, ModelSpec) else spec).latent_channels
    if len(statistics.mean) != channels:
        raise ModelFileError(
            f"{path}: damaged, it has statistics of {len(statistics.mean)} latent channels of {channels}"
        )
    return statistics, str(found.get("of"))


def _encoder_hash(tensors: Mapping[str, Tensor]) -> str:
    """Of the weights that latents depend on, as they lie in the file."""
    named = ((name.removeprefix(FIRST_STAGE), tensor) for name, tensor in tensors.items())
    return weights_hash(pair for pair in named if pair[0].startswith(("encoder.", "to_latent.", "shortcut_in.")))


def _json(path: Path, values: Mapping[str, str], *, key: str, kind: type, limit: int = MOST_TEXT) -> Any:
    text = values.get(key, "null")
    if len(text) > limit:
        raise ModelFileError(f"{path}: refused, its {key} has {len(text)} characters, {limit} at most fit")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind) or is_nested(value):
        raise ModelFileError(f"{path}: damaged, its {key} is missing or cannot be read")
    return value


def _texts(path: Path, values: Mapping[str, str], *, key: str) -> tuple[str, ...]:
    found = _json(path, values, key=key, kind=list, limit=MOST_NAMES)
    if not all(isinstance(name, str) for name in found):
        raise ModelFileError(f"{path}: damaged, its class names ({key}) are not texts")
    return tuple(found)


def _skeleton(spec: ModelSpec | AutoencoderSpec, *, where: Path | None = None) -> nn.Module:
    """The module on meta tensors."""
    try:
        with hollow():
            return LatentDiffusion(spec) if isinstance(spec, ModelSpec) else Autoencoder(spec)
    except UNBUILDABLE as error:
        raise ModelFileError(f"{where or 'the model'}: its spec cannot be built ({first_line(error)})") from None


def fewest_tensors(spec: ModelSpec | AutoencoderSpec | UNetSpec | SequenceEncoderSpec) -> int:
    """A lower bound on the number of a spec's tensors, without building anything."""
    match spec:
        case AutoencoderSpec():
            return spec.blocks * len(spec.multipliers)
        case UNetSpec():
            blocks = spec.blocks * len(spec.multipliers)
            return blocks + spec.transformer_depth * (1 + spec.blocks * bool(spec.attention))
        case SequenceEncoderSpec():
            return spec.depth
        case ModelSpec():
            parts: list[AutoencoderSpec | UNetSpec | SequenceEncoderSpec] = [spec.network]
            if isinstance(spec.first_stage, AutoencoderSpec):
                parts.append(spec.first_stage)
            parts += [each.encoder for each in spec.conditioners if each.kind in ("text", "layout")]
            return sum(fewest_tensors(part) for part in parts)


def _described(state: Mapping[str, Tensor]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(tuple(t.shape), t.dtype, (0, 0)) for name, t in state.items()}


def _check_tensors(where: str, tensors: Mapping[str, TensorInfo], *, skeleton: nn.Module) -> None:
    """`ModelFileError` naming what is missing, left over, or of another shape or type than the spec says."""
    expected = skeleton.state_dict()
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    if missing or extra:
        verb, names = ("lacks", missing) if missing else ("has an unknown", extra)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise ModelFileError(f"{where}: {verb} tensor {names[0]!r}{more} for its spec")
    for name, wanted in expected.items():
        came = tensors[name]
        fits = {tuple(wanted.shape)}
        if name == "scale" and isinstance(skeleton, LatentDiffusion):
            fits.add((skeleton.spec.first_stage.latent_channels,))  # a scale per channel
        if came.shape not in fits:
            raise ModelFileError(
                f"{where}: tensor {name!r} has shape {came.shape}, its spec needs {tuple(wanted.shape)}"
            )
        if came.dtype.is_floating_point != wanted.dtype.is_floating_point:
            raise ModelFileError(f"{where}: tensor {name!r} is {came.dtype}, its spec needs {wanted.dtype}")

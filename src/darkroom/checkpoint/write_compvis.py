"""Our models as checkpoints of the original code: all that its module holds, its YAML beside, and what is lost."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.clip_names import clip_empty, clip_places
from darkroom.checkpoint.compvis import EMPTY_CAPTION, UNFUSED, empty_caption
from darkroom.checkpoint.config import Target
from darkroom.checkpoint.fold import with_scale_one
from darkroom.checkpoint.inventory import PLACES_OF_TOKENS
from darkroom.checkpoint.keymap import CONDITIONER, FIRST_STAGE, first_stage_table, model_table, to_original
from darkroom.checkpoint.published import own_facts
from darkroom.checkpoint.ramp import nearest_ramp
from darkroom.checkpoint.read_spec import parsed
from darkroom.checkpoint.specs import original_spec
from darkroom.checkpoint.store import FloatName, StoredModel, apart, compact, narrowed
from darkroom.checkpoint.to_compvis import original_config
from darkroom.checkpoint.unpickle import STEP, Tensors, read_checkpoint
from darkroom.conditioning.spatial import MaskedSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec
from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.record import yaml_text
from darkroom.core.writing import whole_file, write_safetensors, write_torch
from darkroom.diffusion.model import ModelSpec
from darkroom.process.schedule import DiscreteSchedule, TableSpec, build_schedule, original_buffers

SUFFIXES: Final = (".ckpt", ".safetensors")
_WRITTEN_ANEW: Final = {"source", "file", "family", "weights", "steps", "odd", UNFUSED}  # of a card
_ONLY_TRAINS: Final = (".drop", ".dropout", ".beta", ".commitment", ".recompute")
_SHAPED: Final = ("network.", "first_stage.")  # what changes here changes what the weights compute
_UNITS: Final = ".units"  # of latents with a hole: likewise
_NOT_SAID: Final = "lvlb_weights"  # which the original's module computes and does not keep


def save_original(path: Path, stored: StoredModel, *, dtype: FloatName = "float32") -> tuple[str, ...]:
    """Write a `.ckpt` or `.safetensors` that the original code loads, and its YAML beside it; what is lost is answered.

    dtype: of the weights; schedules and the scale stay float32, so that half precision does not move the noise levels.
    `ModelFileError` names what the original has no words for, weights that `dtype` cannot hold, or another suffix;
    `InputError` when one of both files is there already, with anything but the same YAML, or cannot be written.
    """
    check_suffix(path)
    stored, folded = _with_one_scale(stored)
    bert, by_head = _reads_bert(stored), stored.card.get(UNFUSED) is not True
    config = original_config(stored.spec, bert=bert, fused_by_head=by_head)
    lost = (*folded, *_lost(stored, config, bert=bert))
    yaml = yaml_text({"model": config}).encode()
    _check_free(path, yaml)
    state = _in_type(original_state(stored, fused_by_head=by_head), dtype)
    _write(path, state, step=_steps(stored.card), yaml=yaml)
    return lost


def rewrite_original(
    path: Path, source: Path, *, config: Path | None = None, dtype: FloatName | None = None
) -> tuple[str, ...]:
    """An original checkpoint written again with every tensor that it holds, raw and averaged, whatever it is for.

    config: its YAML, copied as it is (None: none is written) · dtype: of floating-point tensors (None: each as it is
    stored). What is lost is answered: all that is no tensor. In memory there are the tensors that are written, and one
    more. Errors as for `save_original` and `read_checkpoint`.
    """
    check_suffix(path)
    yaml = None if config is None else config.read_bytes()
    _check_free(path, yaml)
    found = read_checkpoint(source)
    state = found.state_dict
    first = {state.place(name): name for name in reversed(list(state))}  # what lies there once is read once
    kept = {name: _stored(state, name, dtype=dtype) for name in first.values()}
    _write(path, {name: kept[first[state.place(name)]] for name in state}, step=found.global_step, yaml=yaml)
    beside = [f"what lies beside the weights: {', '.join(found.beside)}"] if found.beside else []
    return (*found.odd, *beside)


def original_state(stored: StoredModel, *, fused_by_head: bool = True) -> dict[str, Tensor]:
    """Every tensor of the original's module, in its order: buffers, U-Net, first stage, conditioner.

    fused_by_head: see `unet_table`. The scale of latents must be one number.
    """
    spec = stored.spec
    if isinstance(spec, AutoencoderSpec):
        return to_original(first_stage_table(spec), stored.state)
    weights = to_original(model_table(spec, fused_by_head=fused_by_head), stored.state)
    schedule = build_schedule(spec.schedule)
    assert isinstance(schedule, DiscreteSchedule)  # others have no words in a YAML
    tables = {name: table.float() for name, table in original_buffers(schedule).items() if name != _NOT_SAID}
    buffers = {name: weights.pop(name) for name in ("scale_factor", "logvar") if name in weights}
    again = _first_stage_again(weights) if _is_first_stage(spec) else {}
    return {**tables, **buffers, **weights, **again, **_places_of_tokens(spec)}


def check_suffix(path: Path) -> None:
    """`ModelFileError` for a file name that the original's checkpoints do not have."""
    if path.suffix not in SUFFIXES:
        raise ModelFileError(f"{path}: an original checkpoint is called {' or '.join('NAME' + s for s in SUFFIXES)}")


def _with_one_scale(stored: StoredModel) -> tuple[StoredModel, list[str]]:
    """The model with a scale of latents that is one number, and a clause when it was not."""
    if not isinstance(stored.spec, ModelSpec):
        return stored, []
    if bool(stored.state["scale"].isnan().any()):
        raise ModelFileError("the scale of latents is not known, so a checkpoint could not hold it")
    if not stored.state["scale"].ndim:
        return stored, []
    what = "the scale of each latent channel, made part of the first stage's 1 x 1 convolutions: equal up to rounding"
    return with_scale_one(stored), [what]


def _is_first_stage(spec: ModelSpec) -> bool:
    """Is the conditioner the first stage once more? The original's module then holds it under both names."""
    return len(spec.conditioners) == 1 and isinstance(spec.conditioners[0], MaskedSpec)


def _first_stage_again(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        CONDITIONER + name.removeprefix(FIRST_STAGE): tensor
        for name, tensor in weights.items()
        if name.startswith(FIRST_STAGE)
    }


def _places_of_tokens(spec: ModelSpec) -> dict[str, Tensor]:
    """The numbers 0, 1, ... that CLIP's text model held when the original was written."""
    encoder = _clip(spec)
    return {} if encoder is None else {PLACES_OF_TOKENS: clip_places(encoder.length)}


def _clip(spec: ModelSpec | AutoencoderSpec) -> SequenceEncoderSpec | None:
    """CLIP's text model, where captions pass it."""
    given = spec.conditioners if isinstance(spec, ModelSpec) else ()
    found = [each.encoder for each in given if isinstance(each, TextSpec) and each.encoder.family == "clip"]
    return found[0] if found else None


def _in_type(state: Mapping[str, Tensor], dtype: FloatName) -> dict[str, Tensor]:
    """The same with weights in a type; a tensor that two names share stays shared."""
    made: dict[int, Tensor] = {}
    for name, tensor in state.items():
        if id(tensor) not in made:
            made[id(tensor)] = _as(dtype, tensor, name=name)
    return {name: made[id(tensor)] for name, tensor in state.items()}


def _stored(state: Tensors, name: str, *, dtype: FloatName | None) -> Tensor:
    tensor = state.stored(name)
    return tensor if dtype is None else _as(dtype, tensor, name=name)


def _as(dtype: FloatName, tensor: Tensor, *, name: str) -> Tensor:
    """A weight in a type, and what is none as it is; `ModelFileError` for numbers that the type cannot hold."""
    if not (tensor.is_floating_point() and tensor.ndim > 0 and "." in name):
        return tensor
    return narrowed(tensor, dtype, name=name)


def _check_free(path: Path, yaml: bytes | None) -> None:
    """`InputError` when a file would be written over, or be read by another YAML than its own.

    A YAML that says the same may lie there: it is what a write that was cut off leaves.
    """
    beside = path.with_suffix(".yaml")
    if os.path.lexists(path):
        raise InputError(f"{path}: this is there already, and is never written over")
    if os.path.lexists(beside) and not (yaml is not None and beside.is_file() and _holds(beside, yaml)):
        raise InputError(f"{beside}: this is there already, and says something else than the YAML of {path.name}")


def _holds(path: Path, content: bytes) -> bool:
    return path.stat().st_size == len(content) and path.read_bytes() == content


def _write(path: Path, state: Mapping[str, Tensor], *, step: int | None, yaml: bytes | None) -> None:
    """Both files, or none when one cannot be written.

    The YAML appears first: alone it describes nothing, while a checkpoint without its own would be read by any other
    YAML that lies there.
    """
    beside = path.with_suffix(".yaml")
    with contextlib.ExitStack() as undo:
        with whole_file(path) as temporary:
            if path.suffix == ".ckpt":
                tensors = {name: compact(tensor) for name, tensor in state.items()}
                write_torch(temporary, {"state_dict": tensors, STEP: step or 0})  # the original's scripts want the step
            else:
                said = {} if step is None else {STEP: str(step)}
                write_safetensors(temporary, apart(state), metadata={"format": "pt", **said})
            if yaml is not None and not beside.exists():
                with whole_file(beside) as text:
                    text.write_bytes(yaml)
                undo.callback(beside.unlink)
        undo.pop_all()


def _steps(card: Mapping[str, Any]) -> int | None:
    """Training steps that a card tells of: an original's, or of the last stage of ours."""
    match card:
        case {"steps": int(steps)} | {"trained": {"denoiser": {"steps": int(steps)}}}:
            return steps
        case {"trained": {"first_stage": {"steps": int(steps)}}}:
            return steps
        case _:
            return None


def _reads_bert(stored: StoredModel) -> bool:
    """Do captions pass BERT's tokenizer? Its empty caption tells."""
    ids = stored.state.get(EMPTY_CAPTION)
    return ids is not None and torch.equal(ids.cpu(), empty_caption(len(ids), bert=True))


def _lost(stored: StoredModel, config: Mapping[str, Any], *, bert: bool) -> Iterator[str]:
    """What the original's file has no place for, a clause each."""
    yield from _lost_facts(stored)
    spec, clip = stored.spec, _clip(stored.spec)
    if stored.tokenizer is not None:
        whose = "CLIP's" if clip else "BERT's"
        what = f"the original fetches {whose} own" if bert or clip else "captions must be given as ids"
        yield f"its tokenizer ({what})"
    ids = stored.state.get(EMPTY_CAPTION)
    if ids is not None and not torch.equal(ids.cpu(), clip_empty(clip) if clip else empty_caption(len(ids), bert=bert)):
        yield "the ids of its empty caption"
    if isinstance(spec, ModelSpec) and any(
        each.kind in ("text", "layout") and each.encoder.family == "bert" and not each.encoder.spare_logits
        for each in spec.conditioners
    ):
        yield "the unused output layer of its text encoder, which it never had (the original's scripts load without it)"
    if isinstance(spec, ModelSpec) and spec.prediction == "v":
        yield "programs that know only the predictions eps and x0, as the first of them: v came with Stable Diffusion 2"
    yield from _lost_meaning(spec, config)


def _lost_facts(stored: StoredModel) -> Iterator[str]:
    facts = [key for key in own_facts(stored) if key not in _WRITTEN_ANEW]
    if facts:
        yield f"its card ({', '.join(facts)})"
    known = stored.names
    names = {"classes": known.classes, "categories": known.categories, "map classes": known.map_classes}
    for what, words in names.items():
        if words:
            yield f"the names of {len(words)} {what}"
    if stored.latents is not None:
        yield "how its latents are spread"


def _lost_meaning(spec: ModelSpec | AutoencoderSpec, config: Mapping[str, Any]) -> Iterator[str]:
    """Where the YAML, read again, says something else."""
    where = "the YAML of this model"
    again = original_spec(parsed(Target, config, where=where), where=where).spec
    differ = list(_differences(_settled(spec), _settled(again)))
    if isinstance(spec, ModelSpec) and isinstance(spec.schedule, TableSpec):  # the tables of the checkpoint say it
        differ = [each for each in differ if not each[0].startswith("schedule.")]
        off = nearest_ramp(spec.schedule)[1]
        if off:
            yield f"its noise levels in the YAML, whose ramp is off by up to {off:.1g}; the checkpoint holds them"
    trains = [place for place, _, _ in differ if place.startswith("objective.") or place.endswith(_ONLY_TRAINS)]
    if trains:
        yield f"what only trains ({', '.join(trains)})"
    for place, ours, theirs in differ:
        if place in trains:
            continue
        what = f"{place}, which is {_shown(ours)} and will be read as {_shown(theirs)}"
        if not isinstance(spec, ModelSpec) or place.startswith(_SHAPED) or place.endswith(_UNITS):
            raise ModelFileError(f"not written, for the YAML would be another model's: {what}")
        yield what


def _settled(spec: ModelSpec | AutoencoderSpec) -> dict[str, Any]:
    """Plain values, in one way where a spec may be written in several, without what the tensors of a file say."""
    plain = spec.plain()
    first_stage, network = plain.get("first_stage", plain), plain.get("network", {})
    for part in (first_stage, network):
        if "attention" in part:
            part["attention"] = sorted(set(part["attention"]))
    if first_stage.get("code_channels") == first_stage.get("latent_channels"):
        first_stage["code_channels"] = None
    if network and not network["head_channels"]:
        network["heads"] = network["heads"] or 1
    if "conditioners" in plain:
        plain["conditioners"].sort(key=lambda each: each["kind"])
        for each in plain["conditioners"]:
            each.get("encoder", {}).pop("spare_logits", None)
    return plain


def _differences(ours: Any, theirs: Any, *, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where nested plain values differ, and both values there."""
    match ours, theirs:
        case ({**left}, {**right}):
            for key in left | right:
                yield from _differences(left.get(key), right.get(key), place=f"{place}.{key}".removeprefix("."))
        case ([{}, *_], [{}, *_]) if len(ours) == len(theirs):
            for number, (left, right) in enumerate(zip(ours, theirs, strict=True)):
                yield from _differences(left, right, place=f"{place}.{number}")
        case _ if ours != theirs:
            yield place, ours, theirs
        case _:
            pass


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)[:60]

"""An original checkpoint beside its YAML, compared by names and shapes before any weight is read."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.clip_names import INSIDE, PLACES, named_in
from darkroom.checkpoint.config import read_config
from darkroom.checkpoint.keymap import (
    CONDITIONER,
    FIRST_STAGE,
    Table,
    averaged_names,
    first_stage_table,
    model_table,
    some,
)
from darkroom.checkpoint.read_spec import parsed
from darkroom.checkpoint.specs import OriginalSpec, original_spec
from darkroom.checkpoint.store import fewest_tensors
from darkroom.checkpoint.unpickle import Checkpoint, Tensors, read_checkpoint
from darkroom.core.errors import ModelFileError, first_line
from darkroom.core.hollow import UNBUILDABLE
from darkroom.diffusion.model import ModelSpec
from darkroom.process.schedule import DiscreteSchedule, TableSpec, build_schedule, original_buffers

Levels: TypeAlias = Float[Tensor, " t"]
Averages = Literal["none", "incomplete", "complete"]
PARTS = {"first_stage.": "first_stage", "network.": "network", "conditioning.": "conditioner"}
MOST_GROUPS = 20  # first parts of names that are told apart
PLACES_OF_TOKENS = f"{CONDITIONER}transformer.{INSIDE}{PLACES}"
LOSSES = ("loss.", f"{FIRST_STAGE}loss.", f"{CONDITIONER}loss.")  # feature network and discriminator: they only train
OTHERS = {  # how a name begins in files that are read in no way, and what those are
    "conditioner.embedders.": "of Stable Diffusion XL, which is not read",
    "cond_stage_model.model.": "of Stable Diffusion 2, which is not read",
    "lora_": "of a LoRA, which changes a model and is none",
    "module.": "as torch's DataParallel gives them: save the state_dict of its .module",
}
NOTHING = "\0"  # begins no name: what moving averages cover of a first stage inside a whole model


@final
@dataclass(frozen=True, eq=False)
class Inventory:
    """What a checkpoint holds of what its YAML describes.

    described: the YAML, settled with the file · table: the tensors that are needed · names: under which each lies in
    the file, raw or averaged · averages: are moving averages there · ema: are they taken · missing: names ·
    misshapen: a sentence each · strays: keys that nothing explains · left_out: what is known and not taken ·
    odd: sentences for the user.
    """

    described: OriginalSpec
    checkpoint: Checkpoint
    table: Table
    names: Mapping[str, str]
    averages: Averages
    ema: bool
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    strays: tuple[str, ...]
    left_out: tuple[str, ...]
    odd: tuple[str, ...]

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters of first stage, network and conditioner, as the YAML describes them."""
        if isinstance(self.described.spec, AutoencoderSpec):
            return {"first_stage": sum(math.prod(entry.shape) for entry in self.table.entries)}
        counts = dict.fromkeys(PARTS.values(), 0)
        for entry in self.table.entries:
            for prefix, part in PARTS.items():
                if entry.ours[0].startswith(prefix):
                    counts[part] += math.prod(entry.shape)
        return counts


def describe_original(checkpoint_path: Path, config_path: Path, *, ema: bool = True) -> Inventory:
    """What lies in an original checkpoint and what of it would be taken, without reading a weight.

    Arguments and errors as for `convert_original`, but missing and misshapen tensors are reported.
    """
    return compare_original(checkpoint_path, read_original_spec(config_path), ema=ema)


def read_original_spec(config_path: Path) -> OriginalSpec:
    """What an original YAML says; `ModelFileError` or `NotYetError` name what does not fit."""
    return original_spec(read_config(config_path), where=str(config_path))


def compare_original(checkpoint_path: Path, described: OriginalSpec, *, ema: bool = True) -> Inventory:
    """`describe_original` for a YAML that has been read."""
    checkpoint = read_checkpoint(checkpoint_path)
    if fewest_tensors(described.spec) > len(checkpoint.state_dict):
        about = "".join(f"; {each}" for each in _about_names(checkpoint.state_dict))
        raise ModelFileError(f"{checkpoint_path}: its configuration has more layers than it has tensors{about}")
    try:
        return _compare(described, checkpoint, ema=ema)
    except ModelFileError as error:
        where, message = str(checkpoint_path), str(error)
        raise ModelFileError(message if message.startswith(where) else f"{where}: {message}") from None


def outline(checkpoint: Checkpoint) -> dict[str, Any]:
    """What can be told of a checkpoint without its YAML, as plain values: tensors and numbers by first part of name."""
    state = checkpoint.state_dict
    groups: dict[str, int] = {}
    for name in state:
        group = name.partition(".")[0] if "." in name else "buffers"
        group = group if group in groups or len(groups) < MOST_GROUPS else "others"
        groups[group] = groups.get(group, 0) + math.prod(state.shape(name))
    return {
        "steps": checkpoint.global_step,
        "tensors": len(state),
        "precision": precisions(state),
        "averages": any(name.startswith("model_ema.") and name not in _COUNTERS for name in state),
        "numbers": groups,
    }


def about_missing(found: Inventory) -> str:
    """A sentence about names that are missing, and what is there instead."""
    strays = [f"{some(found.strays)} there and not known"] if found.strays else []
    instead = (_about_names(found.checkpoint.state_dict) or strays)[:1]
    return "; ".join([f"{some(found.missing)} missing, which the configuration needs", *instead])


def precisions(state: Tensors) -> list[str]:
    """The types in which floating-point tensors are stored, by torch's names."""
    types = {state.dtype(name) for name in state}
    return sorted(str(each).removeprefix("torch.") for each in types if each.is_floating_point)


def _compare(described: OriginalSpec, checkpoint: Checkpoint, *, ema: bool) -> Inventory:
    state = checkpoint.state_dict
    described = _with_own_schedule(_without_spare_logits(described, state), state)
    table, base = _table(described, state)
    averaged = averaged_names(table, base=base)
    averages = _averages(averaged.values(), state)
    used = ema and described.ema and averages == "complete"
    names = {each.original: named_in(state, each.original) for each in table.entries} | (averaged if used else {})
    missing = tuple(name for name in names.values() if name not in state)
    strays = _strays(described, state, explained={*names.values(), *names, *averaged.values()})
    sentences = [_which_weights(averaged, state, wanted=ema, configured=described.ema)]
    sentences += [f"{some(strays)} in the file and not used"] if strays else []
    sentences += _about_names(state) if missing else []
    return Inventory(
        described,
        checkpoint,
        table,
        names,
        averages,
        used,
        missing=missing,
        misshapen=tuple(_misshapen(table, names, state=state)),
        strays=strays,
        left_out=tuple(_left_out(described, checkpoint, averaged=averaged, used=used)),
        odd=(*described.odd, *checkpoint.odd, *(each for each in sentences if each)),
    )


def _about_names(state: Tensors) -> list[str]:
    """A sentence when one of the names tells that this is a file of another kind."""
    told = ((name, kind) for start, kind in OTHERS.items() for name in state if name.startswith(start))
    return [f"{name[:200]!r} is a name {kind}" for name, kind in itertools.islice(told, 1)]


def _without_spare_logits(described: OriginalSpec, state: Tensors) -> OriginalSpec:
    """The spec without the unused output head of the text encoder, where the file has been freed of it."""
    spec = described.spec
    if f"{CONDITIONER}transformer.to_logits.weight" in state or not isinstance(spec, ModelSpec):
        return described
    lean = tuple(
        each.model_copy(update={"encoder": each.encoder.model_copy(update={"spare_logits": False})})
        if each.kind in ("text", "layout")
        else each
        for each in spec.conditioners
    )
    return replace(described, spec=spec.model_copy(update={"conditioners": lean}))


def _with_own_schedule(described: OriginalSpec, state: Tensors) -> OriginalSpec:
    """The spec with the noise levels of the file, where they are not those of its YAML: the original samples with them.

    Files in half precision hold rounded levels. `ModelFileError` when they are not noise levels, or not as many.
    """
    spec, name = described.spec, "alphas_cumprod"
    if name not in state or not isinstance(spec, ModelSpec):
        return described
    schedule = build_schedule(spec.schedule)
    assert isinstance(schedule, DiscreteSchedule)
    ours = original_buffers(schedule)[name].float()
    if state.shape(name) != tuple(ours.shape):
        came = " x ".join(map(str, state.shape(name))) or "1"
        raise ModelFileError(f"it has {came} noise levels, its configuration says {len(ours)}")
    theirs = state[name].float()
    if bool((theirs == 1).any()):
        return _with_noise(described, theirs, ours)
    if torch.allclose(theirs, ours, rtol=1e-5, atol=1e-7):
        return described
    table = parsed(TableSpec, {"powers": theirs.tolist()}, where=f"tensor {name!r}")
    apart = (theirs - ours).abs().max().item()
    sentence = f"its noise levels differ from those of its configuration by up to {apart:.1g}; the file's are taken"
    return replace(described, spec=spec.model_copy(update={"schedule": table}), odd=(*described.odd, sentence))


def _with_noise(described: OriginalSpec, theirs: Levels, ours: Levels) -> OriginalSpec:
    """The levels of the YAML for a file whose first ones were rounded to no noise at all, which nobody can sample with.

    `ModelFileError` when they are not those of the YAML rounded.
    """
    apart = (theirs - ours).abs().max().item()
    if not apart <= torch.finfo(torch.bfloat16).eps / 2:
        raise ModelFileError("tensor 'alphas_cumprod': there are noise levels without any noise")
    sentence = "its noise levels were rounded until the first had no noise; those of its configuration are taken"
    return replace(described, odd=(*described.odd, sentence))


def _table(described: OriginalSpec, state: Tensors) -> tuple[Table, str]:
    """The key table for this file, and the prefix of what its moving averages cover."""
    spec = described.spec
    try:
        if isinstance(spec, ModelSpec):
            return model_table(spec, fused_by_head=described.fused_by_head), "model."
        table = first_stage_table(spec)
    except UNBUILDABLE as error:
        raise ModelFileError(f"what its configuration says cannot be built ({first_line(error)})") from None
    if _inside_a_model(described, state):
        return table.under(original=FIRST_STAGE), NOTHING
    return table, ""


def _inside_a_model(described: OriginalSpec, state: Tensors) -> bool:
    """Is a first stage asked for, and does the file hold a whole model?"""
    name = "encoder.conv_in.weight"
    return isinstance(described.spec, AutoencoderSpec) and name not in state and f"{FIRST_STAGE}{name}" in state


_COUNTERS = frozenset({"model_ema.decay", "model_ema.num_updates"})


def _averages(averaged: Iterable[str], state: Tensors) -> Averages:
    there = [name in state for name in averaged]
    return "complete" if there and all(there) else "incomplete" if any(there) else "none"


def _which_weights(averaged: Mapping[str, str], state: Tensors, *, wanted: bool, configured: bool) -> str:
    """A sentence when it is remarkable which weights are taken."""
    match _averages(averaged.values(), state):
        case "none":
            return "no moving averages in the file, its weights are taken as they are" if configured else ""
        case "incomplete":
            lacking = [name for name in averaged.values() if name not in state]
            return f"the moving averages are incomplete ({some(lacking)} missing), raw weights are taken"
        case "complete" if not configured:
            return "use_ema is false, so raw weights are taken although moving averages are there"
        case "complete":
            return "" if wanted else "raw weights are taken although moving averages are there"


def _misshapen(table: Table, names: Mapping[str, str], *, state: Tensors) -> Iterable[str]:
    for entry in table.entries:
        name = names[entry.original]
        if name not in state:
            continue
        if state.shape(name) != entry.shape:
            yield f"tensor {name!r} has shape {state.shape(name)}, the configuration needs {entry.shape}"
        elif not state.dtype(name).is_floating_point:
            yield f"tensor {name!r} is of type {state.dtype(name)}, weights are floating point"


def _strays(described: OriginalSpec, state: Tensors, *, explained: set[str]) -> tuple[str, ...]:
    """Keys that are neither taken nor known to be left out."""
    known = {*_COUNTERS, *explained, named_in(state, PLACES_OF_TOKENS)}
    if isinstance(described.spec, ModelSpec):
        schedule = build_schedule(described.spec.schedule)
        assert isinstance(schedule, DiscreteSchedule)
        known |= set(original_buffers(schedule))
        if described.shared_conditioner:
            known |= set(copies(state))
    left = [name for name in state if name not in known and not name.startswith(LOSSES)]
    if _inside_a_model(described, state):
        left = [name for name in left if name.startswith(FIRST_STAGE)]
    return tuple(sorted(left))


def copies(state: Tensors) -> dict[str, str]:
    """Tensors of the first stage that lie there once more as the conditioner, and which those are."""
    pairs = ((name, FIRST_STAGE + name.removeprefix(CONDITIONER)) for name in state if name.startswith(CONDITIONER))
    return {name: first for name, first in pairs if first in state}


def _left_out(
    described: OriginalSpec, checkpoint: Checkpoint, *, averaged: Mapping[str, str], used: bool
) -> Iterable[str]:
    """What is known and not taken."""
    state = checkpoint.state_dict
    other = [name for name in (averaged if used else averaged.values()) if name in state]
    if other:
        yield f"the {'raw weights' if used else 'moving averages'} of {len(other)} tensors"
    losses = sum(name.startswith(LOSSES) for name in state)
    if losses:
        yield f"{losses} tensors of its losses, which only train"
    if _inside_a_model(described, state):
        rest = sum(not name.startswith(FIRST_STAGE) for name in state)
        if rest:
            yield f"the rest of the model that the first stage is taken from, {rest} tensors"
    if checkpoint.beside:
        yield f"what lies beside the weights: {', '.join(checkpoint.beside)}"

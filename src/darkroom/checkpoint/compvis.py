"""Original latent-diffusion models: YAML to our spec, checkpoint to our tensors, with a report of what is odd."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.config import read_config
from darkroom.checkpoint.keymap import (
    CONDITIONER,
    FIRST_STAGE,
    Table,
    averaged_names,
    first_stage_table,
    model_table,
    some,
    to_ours,
)
from darkroom.checkpoint.specs import OriginalSpec, original_spec
from darkroom.checkpoint.store import StoredModel
from darkroom.checkpoint.unpickle import Checkpoint, Tensors, read_checkpoint
from darkroom.core.errors import ModelFileError, SpecError
from darkroom.core.spec import parse
from darkroom.diffusion.model import ModelSpec
from darkroom.process.schedule import DiscreteSchedule, TableSpec, build_schedule, original_buffers

CLS, SEP, PAD = 101, 102, 0  # of bert-base-uncased, which the original's text encoder always uses


@final
@dataclass(frozen=True, eq=False)
class Original:
    """An original checkpoint as one of our models.

    ema: were the moving averages taken? · strays: keys of the checkpoint that nothing explains, left out ·
    odd: sentences for the user.
    """

    stored: StoredModel
    ema: bool
    strays: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()


def load_original(checkpoint_path: Path, config_path: Path, *, ema: bool = True) -> StoredModel:
    """What `convert_original` answers, without the report; its `odd` and `card` tell the same in sentences."""
    return convert_original(checkpoint_path, config_path, ema=ema).stored


def convert_original(checkpoint_path: Path, config_path: Path, *, ema: bool = True) -> Original:
    """An original `.ckpt` or `.safetensors` with its YAML, a whole model or a first stage alone.

    ema: take the moving averages when the checkpoint has them. A YAML of a first stage also takes that part out of a
    whole model's checkpoint. `ModelFileError` names missing keys, wrong shapes, unknown options and unsafe files;
    `NotYetError` classes that are planned.
    """
    described = original_spec(read_config(config_path), where=str(config_path))
    checkpoint = read_checkpoint(checkpoint_path)
    try:
        return _convert(described, checkpoint, ema=ema, name=checkpoint_path.name)
    except ModelFileError as error:
        where = str(checkpoint_path)
        message = str(error)
        raise ModelFileError(message if message.startswith(where) else f"{where}: {message}") from None


def _convert(described: OriginalSpec, checkpoint: Checkpoint, *, ema: bool, name: str) -> Original:
    described = _without_spare_logits(described, checkpoint.state_dict)
    described = _with_own_schedule(described, checkpoint.state_dict)
    state, spec = checkpoint.state_dict, described.spec
    table, base = _table(described, state)
    averaged = averaged_names(table, base=base)
    used, sentence = _choose_average(averaged, state, wanted=ema, configured=described.ema)
    names = {entry.original: averaged.get(entry.original, entry.original) for entry in table.entries}
    if not used:
        names = {original: original for original in names}
    _check_shapes(table, names, state=state)
    tensors = to_ours(table, _Renamed(state, names))
    if isinstance(spec, ModelSpec):
        tensors |= _own_buffers(described)
    strays = tuple(sorted(_strays(described, state, explained={*names.values(), *names, *averaged.values()})))
    unexplained = [f"{some(strays)} in the file and not used"] if strays else []
    odd = (*described.odd, *checkpoint.odd, *([sentence] if sentence else []), *unexplained)
    card = {
        "source": "original checkpoint",
        "file": name,
        "family": described.family,
        "weights": "ema" if used else "raw",
        "steps": checkpoint.global_step,
        "odd": list(odd),
    }
    kind = "model" if isinstance(spec, ModelSpec) else "first-stage"
    return Original(StoredModel(kind, spec, tensors, card, odd=odd), used, strays, odd)


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


def _table(described: OriginalSpec, state: Tensors) -> tuple[Table, str]:
    """The key table for this file, and the prefix of what its moving averages cover."""
    spec = described.spec
    if isinstance(spec, ModelSpec):
        return model_table(spec, fused_by_head=described.fused_by_head), "model."
    table = first_stage_table(spec)
    if "encoder.conv_in.weight" not in state and f"{FIRST_STAGE}encoder.conv_in.weight" in state:
        return table.under(original=FIRST_STAGE), "no average:"
    return table, ""


def _choose_average(averaged: Mapping[str, str], state: Tensors, *, wanted: bool, configured: bool) -> tuple[bool, str]:
    """Are the moving averages taken, and a sentence when that is remarkable."""
    present = [name for name in averaged.values() if name in state]
    if not present:
        return False, "no moving averages in the file, its weights are taken as they are" if configured else ""
    if len(present) < len(averaged):
        lacking = [name for name in averaged.values() if name not in state]
        return False, f"the moving averages are incomplete ({some(lacking)} missing), raw weights are taken"
    if not configured:
        return False, "use_ema is false, so raw weights are taken although moving averages are there"
    return wanted, "" if wanted else "raw weights are taken although moving averages are there"


@final
class _Renamed(Mapping[str, Tensor]):
    """Tensors under other names, still read on demand."""

    def __init__(self, state: Tensors, names: Mapping[str, str]) -> None:
        self._state, self._names = state, names

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self):
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names and self._names[str(name)] in self._state

    def __getitem__(self, name: str) -> Tensor:
        return self._state[self._names[name]]


def _check_shapes(table: Table, names: Mapping[str, str], *, state: Tensors) -> None:
    """Missing keys and wrong shapes by name, before any weight is read."""
    missing = [names[entry.original] for entry in table.entries if names[entry.original] not in state]
    if missing:
        raise ModelFileError(f"{some(missing)} missing, which the configuration needs")
    for entry in table.entries:
        came = state.shape(names[entry.original])
        if came != entry.shape:
            raise ModelFileError(
                f"tensor {names[entry.original]!r} has shape {came}, the configuration needs {entry.shape}"
            )


def _own_buffers(described: OriginalSpec) -> dict[str, Tensor]:
    """Buffers that original checkpoints do not hold: a fixed scale, and the ids of the empty caption."""
    spec = described.spec
    buffers: dict[str, Tensor] = {}
    if spec.scale is not None:
        buffers["scale"] = torch.tensor(spec.scale)
    for each in spec.conditioners:
        if each.kind == "text":
            ids = [PAD] * each.encoder.length
            if described.bert:
                ids[:2] = [CLS, SEP]
            buffers["conditioning.by_field.caption.empty_ids"] = torch.tensor(ids[: each.encoder.length])
    return buffers


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
        raise ModelFileError(f"it has {state.shape(name)} noise levels, its configuration says {len(ours)}")
    theirs = state[name].float()
    if torch.allclose(theirs, ours, rtol=1e-5, atol=1e-7):
        return described
    try:
        table = parse(TableSpec, {"powers": theirs.tolist()}, where=f"tensor {name!r}")
    except SpecError as error:
        raise ModelFileError(str(error)[:300]) from None
    apart = (theirs - ours).abs().max().item()
    sentence = f"its noise levels differ from those of its configuration by up to {apart:.1g}; the file's are taken"
    return replace(described, spec=spec.model_copy(update={"schedule": table}), odd=(*described.odd, sentence))


def _strays(described: OriginalSpec, state: Tensors, *, explained: set[str]) -> list[str]:
    """Keys that are neither taken nor known to be left out."""
    known = {"model_ema.decay", "model_ema.num_updates", *explained}
    prefixes = ["loss.", f"{FIRST_STAGE}loss."]
    if isinstance(described.spec, ModelSpec):
        schedule = build_schedule(described.spec.schedule)
        assert isinstance(schedule, DiscreteSchedule)
        known |= set(original_buffers(schedule))
        if described.shared_conditioner:
            prefixes.append(CONDITIONER)  # a second copy of the first stage
    left = [name for name in state if name not in known and not name.startswith(tuple(prefixes))]
    if isinstance(described.spec, AutoencoderSpec) and f"{FIRST_STAGE}encoder.conv_in.weight" in state:
        left = [name for name in left if name.startswith(FIRST_STAGE)]  # the rest of a whole model
    return left

"""Original latent-diffusion models: YAML to our spec, checkpoint to our tensors, with a report of what is odd."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from jaxtyping import Int
from torch import Tensor

from darkroom.checkpoint.clip_names import clip_empty
from darkroom.checkpoint.inventory import Inventory, about_missing, copies, describe_original
from darkroom.checkpoint.keymap import some, to_ours
from darkroom.checkpoint.published import sampling
from darkroom.checkpoint.specs import OriginalSpec
from darkroom.checkpoint.store import StoredModel
from darkroom.checkpoint.unpickle import Tensors
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import ModelSpec

CLS, SEP, PAD = 101, 102, 0  # of bert-base-uncased, which the original's text encoder always uses
EMPTY_CAPTION: Final = "conditioning.by_field.caption.empty_ids"
UNFUSED: Final = "new_attention_order"  # on the card of a model whose fused attention weights were not laid by heads


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
    found = describe_original(checkpoint_path, config_path, ema=ema)
    if found.missing:
        raise ModelFileError(f"{checkpoint_path}: {about_missing(found)}")
    if found.misshapen:
        raise ModelFileError(f"{checkpoint_path}: {found.misshapen[0]}")
    described = found.described
    state = found.checkpoint.state_dict
    tensors = to_ours(found.table, _Renamed(state, found.names))
    whole = isinstance(described.spec, ModelSpec)
    if whole:
        tensors |= _own_buffers(described)
    odd = (*found.odd, *(_about_copy(state) if described.shared_conditioner else ()))
    card = _card(found, file=checkpoint_path.name, odd=odd)
    kind = "model" if whole else "first-stage"
    return Original(StoredModel(kind, described.spec, tensors, card, odd=odd), found.ema, found.strays, odd)


def empty_caption(length: int, *, bert: bool) -> Int[Tensor, " l"]:
    """The ids of a caption without words: as BERT's tokenizer makes them, or zeros where no tokenizer is known."""
    ids = [PAD] * length
    if bert:
        ids[:2] = [CLS, SEP]
    return torch.tensor(ids[:length])


def _about_copy(state: Tensors) -> list[str]:
    """A sentence when the first stage that lies there once more, as the conditioner, is another one.

    Tensors are compared one by one, and those that lie at one place not at all.
    """
    differ = [name for name, first in copies(state).items() if not _same(state, name, first)]
    if not differ:
        return []
    return [f"{some(differ)} not equal to the first stage's of that name, which is taken in both places"]


def _same(state: Tensors, one: str, other: str) -> bool:
    return state.place(one) == state.place(other) or torch.equal(state.stored(one), state.stored(other))


def _card(found: Inventory, *, file: str, odd: Sequence[str]) -> dict[str, object]:
    return {
        "source": "original checkpoint",
        "file": file,
        "family": found.described.family,
        "weights": "ema" if found.ema else "raw",
        "steps": found.checkpoint.global_step,
        **({} if found.described.fused_by_head else {UNFUSED: True}),
        **(sampling(spec) if isinstance(spec := found.described.spec, ModelSpec) else {}),
        "odd": list(odd),
    }


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


def _own_buffers(described: OriginalSpec) -> dict[str, Tensor]:
    """Buffers that original checkpoints do not hold: a fixed scale, and the ids of the empty caption."""
    spec = described.spec
    assert isinstance(spec, ModelSpec)
    buffers: dict[str, Tensor] = {}
    if spec.scale is not None:
        buffers["scale"] = torch.tensor(spec.scale)
    for each in spec.conditioners:
        if each.kind == "text":
            encoder = each.encoder
            clip = encoder.family == "clip"
            empty = clip_empty(encoder) if clip else empty_caption(encoder.length, bert=described.bert)
            buffers[EMPTY_CAPTION] = empty
    return buffers

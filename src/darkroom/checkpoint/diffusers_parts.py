"""One component of a diffusers folder: its configuration as our spec, its weights still in their files."""

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, final

import torch
from torch import Tensor

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.clip_names import INSIDE, PLACES
from darkroom.checkpoint.clip_text import CLASS, clip_spec
from darkroom.checkpoint.diffusers_config import (
    STAGES,
    UNETS,
    UNetConfig,
    first_stage_spec,
    read_options,
    side,
    unet_spec,
)
from darkroom.checkpoint.diffusers_files import ENCODERS, NETWORK, read_object, weights_in
from darkroom.checkpoint.diffusers_keys import bert_table, class_table, clip_table, first_stage_table, unet_table
from darkroom.checkpoint.diffusers_text import bert_spec
from darkroom.checkpoint.keymap import Table, some, to_ours
from darkroom.checkpoint.store import fewest_tensors
from darkroom.checkpoint.unpickle import Tensors
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.text import SequenceEncoderSpec
from darkroom.core.errors import ModelFileError, did_you_mean, first_line
from darkroom.core.hollow import UNBUILDABLE
from darkroom.network.unet import UNetSpec

CONFIG: Final = "config.json"
CLASSES: Final = "class_embedding.weight"  # in the weights of a U-Net
S = TypeVar("S", UNetSpec, AutoencoderSpec, SequenceEncoderSpec, ClassSpec)


@final
@dataclass(frozen=True, eq=False)
class Part(Generic[S]):
    """A component whose weights are all there and of the right shapes, none of them read.

    family: its class · table: which of its tensors are which of ours · size: side of the pictures or latents that it is
    for, if it says so · scale: of a first stage, the factor on its latents; scaled: does it say that itself? · classes:
    of a U-Net, how many it is told apart (0: none) · odd: sentences for the user.
    """

    family: str
    spec: S
    table: Table = field(repr=False)
    tensors: Tensors = field(repr=False)
    size: int | None = None
    scale: float = 1.0
    scaled: bool = False
    classes: int = 0
    odd: tuple[str, ...] = ()

    def state(self) -> dict[str, Tensor]:
        """The tensors by our names, float32, read one by one."""
        return to_ours(self.table, self.tensors)

    @property
    def sizes(self) -> dict[str, int]:
        """Parameters, and the bytes they take in the files."""
        counts = {entry.original: math.prod(entry.shape) for entry in self.table.entries}
        held = sum(count * self.tensors.dtype(name).itemsize for name, count in counts.items())
        return {"parameters": sum(counts.values()), "bytes": held}

    @property
    def dtypes(self) -> set[torch.dtype]:
        """The types in its files."""
        return {self.tensors.dtype(entry.original) for entry in self.table.entries}


def unet_part(folder: Path) -> Part[UNetSpec]:
    """A UNet2DModel or UNet2DConditionModel; `ModelFileError` names what is damaged and what we do not have."""
    family, config = component(folder, UNETS)
    spec = unet_spec(config, where=str(folder / CONFIG))
    linear = config.get("use_linear_projection") is True
    part = _part(
        folder, family, spec=spec, table=lambda: unet_table(spec, linear=linear), size=side(config), known={CLASSES}
    )
    return replace(part, classes=read_options(UNetConfig, config, where=str(folder / CONFIG)).num_class_embeds or 0)


def class_part(folder: Path, network: Part[UNetSpec]) -> Part[ClassSpec] | None:
    """The embedding of classes in a U-Net's folder, None where it has none; `ModelFileError` as for `unet_part`.

    Whether one of them means none is not said: the last is taken for it where their number ends in 1.
    """
    count, width = network.classes, network.spec.embedding_width
    if not count:
        return None
    if count > 1 and count % 10 == 1:
        spec = ClassSpec(classes=count - 1, width=width, port="vector", null=count - 1)
        odd = f"class {count - 1}, the last, is taken as the null class"
    else:
        spec = ClassSpec(classes=count, width=width, port="vector", drop=0)
        odd = "no null class, so it cannot be guided"
    table = class_table(spec)
    _compare(table, network.tensors, where=folder)
    return Part("class_embedding", spec, table, network.tensors, odd=(odd,))


def first_stage_part(folder: Path) -> Part[AutoencoderSpec]:
    """An AutoencoderKL or VQModel; `ModelFileError` as for `unet_part`."""
    family, config = component(folder, STAGES)
    spec, scale = first_stage_spec(config, where=str(folder / CONFIG))
    return _part(
        folder,
        family,
        spec=spec,
        table=lambda: first_stage_table(spec),
        size=side(config),
        scale=scale,
        scaled=config.get("scaling_factor") is not None,
    )


def encoder_part(folder: Path) -> Part[SequenceEncoderSpec]:
    """An LDMBertModel; an output head that it has and never uses is kept. `ModelFileError` as for `unet_part`."""
    config = read_object(folder / CONFIG)
    spec = bert_spec(config, where=str(folder / CONFIG))
    if "to_logits.weight" not in weights_in(folder, stems=ENCODERS).tensors:
        spec = spec.model_copy(update={"spare_logits": False})
    return _part(folder, "LDMBertModel", spec=spec, table=lambda: bert_table(spec), stems=ENCODERS)


def clip_part(folder: Path) -> Part[SequenceEncoderSpec]:
    """A CLIPTextModel, by whatever version of transformers; `ModelFileError` as for `unet_part`."""
    spec = clip_spec(read_object(folder / CONFIG), where=str(folder / CONFIG))
    held = weights_in(folder, stems=ENCODERS).tensors
    inside = INSIDE if any(name.startswith(INSIDE) for name in held) else ""
    return _part(
        folder,
        CLASS,
        spec=spec,
        table=lambda: clip_table(spec, inside=inside),
        stems=ENCODERS,
        known={inside + PLACES},
    )


def component(folder: Path, families: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The class that a component says it is, one of `families`, and its configuration; else `ModelFileError`."""
    config = read_object(folder / CONFIG)
    family = config.get("_class_name")
    if not isinstance(family, str) or family not in families:
        came = str(family)[:60]
        raise ModelFileError(f"{folder / CONFIG}: of class {came!r}{did_you_mean(came, families)}")
    return family, config


def _part(
    folder: Path,
    family: str,
    *,
    spec: S,
    table: Callable[[], Table],
    size: int | None = None,
    scale: float = 1.0,
    scaled: bool = False,
    stems: tuple[str, ...] = (NETWORK,),
    known: Container[str] = (),
) -> Part[S]:
    """The component with its weights looked for and compared; a spec far larger than its files is not built.

    known: names of what may lie in the files besides and is not needed.
    """
    found = weights_in(folder, stems=stems)
    if fewest_tensors(spec) > len(found.tensors):
        raise ModelFileError(f"{folder}: damaged, its {CONFIG} has more layers than its weights have tensors")
    try:
        names = table()
    except UNBUILDABLE as error:
        raise ModelFileError(f"{folder / CONFIG}: cannot be built ({first_line(error)})") from None
    strays = [name for name in _compare(names, found.tensors, where=folder) if name not in known]
    unused = (f"{folder.name}: {some(strays)} in the file and not used",) if strays else ()
    return Part(family, spec, names, found.tensors, size, scale, scaled, odd=(*found.odd, *unused))


def _compare(table: Table, tensors: Tensors, *, where: Path) -> list[str]:
    """Names that the table does not know; `ModelFileError` for what is missing, of another shape, or no number."""
    wanted: Mapping[str, tuple[int, ...]] = {entry.original: entry.shape for entry in table.entries}
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise ModelFileError(f"{where}: {some(missing)} missing, which its {CONFIG} needs")
    for name, shape in wanted.items():
        if tensors.shape(name) != shape:
            raise ModelFileError(
                f"{where}: tensor {name!r} has shape {tensors.shape(name)}, its {CONFIG} needs {shape}"
            )
        if not tensors.dtype(name).is_floating_point:
            raise ModelFileError(
                f"{where}: tensor {name!r} is of type {tensors.dtype(name)}, weights are floating point"
            )
    return sorted(name[:100] for name in tensors if name not in wanted)

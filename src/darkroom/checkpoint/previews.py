"""Tiny decoders of others from their files: a folder of diffusers' AutoencoderTiny, or TAESD's decoder alone."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, final

from pydantic import Field, FiniteFloat

from darkroom.autoencoder.preview import Preview, PreviewSpec
from darkroom.checkpoint.diffusers import TINY
from darkroom.checkpoint.diffusers_config import read_options
from darkroom.checkpoint.diffusers_files import read_object, weights_in
from darkroom.checkpoint.keymap import Entry, Table, leaf, some, to_ours
from darkroom.checkpoint.read_spec import parsed
from darkroom.checkpoint.unpickle import Tensors, read_checkpoint
from darkroom.core.errors import ModelFileError
from darkroom.core.hollow import hollow
from darkroom.core.spec import Spec

CONFIG: Final = "config.json"
INSIDE: Final = "decoder.layers."  # before the numbers of layers, in diffusers' files
SUFFIXES: Final = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
ALONE: Final = re.compile(r"(\d{1,6})\.(conv\.0\.)?(weight|bias)")
STEM_ALONE: Final = 1  # in a file of the decoder alone, whose first layer limits latents and has no weights
Counts = Annotated[tuple[int, ...], Field(min_length=1, max_length=8)]


class TinyConfig(Spec):
    """What is read of an AutoencoderTiny, with its defaults."""

    out_channels: int = 3
    latent_channels: int = 4
    decoder_block_out_channels: Counts = (64, 64, 64, 64)
    num_decoder_blocks: Counts = (3, 3, 3, 1)
    act_fn: str = "relu"
    upsample_fn: str = "nearest"
    upsampling_scaling_factor: int = 2
    scaling_factor: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    shift_factor: FiniteFloat = 0.0


@final
@dataclass(frozen=True, eq=False)
class FoundPreview:
    """A tiny decoder whose weights are all there, none of them read. odd: sentences for the user."""

    spec: PreviewSpec
    table: Table = field(repr=False)
    tensors: Tensors = field(repr=False)
    odd: tuple[str, ...] = ()

    def built(self) -> Preview:
        """The decoder with its weights, in float32."""
        with hollow():
            module = Preview(self.spec)
        module.load_state_dict(to_ours(self.table, self.tensors), strict=True, assign=True)
        return module.eval()


def find_preview(path: Path) -> FoundPreview | None:
    """The tiny decoder in a file or folder; None where there is something else.

    `ModelFileError` names what is missing, of another shape, or made otherwise, and files of an encoder alone.
    """
    if path.is_dir():
        place = path / CONFIG
        config = read_object(place) if place.is_file() else {}
        return _in_folder(path, config) if config.get("_class_name") == TINY else None
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return None
    tensors = read_checkpoint(path).state_dict
    if f"{INSIDE}0.weight" in tensors and f"{INSIDE}2.conv.0.weight" in tensors:
        return _checked(_spec_of(tensors, before=INSIDE, stem=0, where=path), tensors, INSIDE, stem=0, where=path)
    if "0.weight" in tensors and "1.conv.0.weight" in tensors:
        raise ModelFileError(f"{path}: TAESD's encoder; its decoder (taesd_decoder) is what draws pictures")
    if f"{STEM_ALONE}.weight" in tensors and "3.conv.0.weight" in tensors:
        spec = _spec_of(tensors, before="", stem=STEM_ALONE, where=path)
        return _checked(spec, tensors, "", stem=STEM_ALONE, where=path)
    return None


def _in_folder(folder: Path, config: Mapping[str, Any]) -> FoundPreview:
    where = str(folder / CONFIG)
    found = read_options(TinyConfig, config, where=where)
    widths = set(found.decoder_block_out_channels)
    odd = {
        "act_fn": found.act_fn != "relu",
        "upsample_fn": found.upsample_fn != "nearest",
        "upsampling_scaling_factor": found.upsampling_scaling_factor != 2,
        "shift_factor": found.shift_factor != 0,
        "decoder_block_out_channels": len(widths) != 1
        or len(found.decoder_block_out_channels) != len(found.num_decoder_blocks),
    }
    for name, wrong in odd.items():
        if wrong:
            raise ModelFileError(f"{where}: {name} {str(getattr(found, name))[:60]!r} is not supported")
    values = {
        "image_channels": found.out_channels,
        "latent_channels": found.latent_channels,
        "channels": widths.pop(),
        "blocks": found.num_decoder_blocks,
        "scale": found.scaling_factor,
    }
    weights = weights_in(folder)
    return _checked(
        parsed(PreviewSpec, values, where=where), weights.tensors, INSIDE, stem=0, where=folder, odd=weights.odd
    )


def _spec_of(tensors: Tensors, *, before: str, stem: int, where: Path) -> PreviewSpec:
    """What a file of numbered layers is: a convolution, then runs of blocks, each with a convolution after it."""
    kinds: dict[int, bool] = {}  # layer -> is it a block?
    for name in tensors:
        found = ALONE.fullmatch(name.removeprefix(before)) if name.startswith(before) else None
        if found is not None and found[3] == "weight":
            kinds[int(found[1])] = found[2] is not None
    order = [kinds[number] for number in sorted(kinds) if number > stem]
    counts = "".join("b" if block else "c" for block in order).split("c")
    first, last = f"{before}{stem}.weight", f"{before}{max(kinds)}.weight"
    shapes = [tensors.shape(name) if name in tensors else () for name in (first, last)]
    if counts[-1] or any(len(shape) != 4 for shape in shapes):
        raise ModelFileError(f"{where}: its numbered layers are not those of a tiny decoder")
    values = {
        "image_channels": shapes[1][0],
        "latent_channels": shapes[0][1],
        "channels": shapes[0][0],
        "blocks": [len(run) for run in counts[:-1]],
    }
    return parsed(PreviewSpec, values, where=str(where))


def _checked(
    spec: PreviewSpec, tensors: Tensors, before: str, *, stem: int, where: Path, odd: tuple[str, ...] = ()
) -> FoundPreview:
    table = Table(tuple(_entries(spec, before, stem=stem)))
    missing = [entry.original for entry in table.entries if entry.original not in tensors]
    if missing:
        raise ModelFileError(f"{where}: {some(missing)} missing, which a tiny decoder of its kind needs")
    for entry in table.entries:
        if tensors.shape(entry.original) != entry.shape or not tensors.dtype(entry.original).is_floating_point:
            shape = tensors.shape(entry.original)
            raise ModelFileError(
                f"{where}: tensor {entry.original!r} has shape {shape}, a tiny decoder of its kind needs {entry.shape}"
            )
    unsaid = "nothing in a tiny decoder says whose latents it was made for; it is taken to fit"
    return FoundPreview(spec, table, tensors, (*odd, unsaid))


def _entries(spec: PreviewSpec, before: str, *, stem: int) -> Iterator[Entry]:
    """Layers are numbered in the order of computing, those without weights too."""
    with hollow():
        module = Preview(spec)
    yield from leaf(module.stem, f"{before}{stem}", ours="stem")
    number = stem + 2  # a ReLU lies between
    for place, count in enumerate(spec.blocks):
        for index in range(count):
            for conv in range(3):
                ours = f"levels.{place}.{index}.conv{conv + 1}"
                yield from leaf(module.get_submodule(ours), f"{before}{number}.conv.{2 * conv}", ours=ours)
            number += 1
        if place < len(spec.blocks) - 1:
            ours = f"enlarged.{place}"
            yield from leaf(module.get_submodule(ours), f"{before}{number + 1}", ours=ours)
            number += 2  # after the doubling of sides
    yield from leaf(module.head, f"{before}{number}", ours="head")

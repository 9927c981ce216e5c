"""The one table of parameter names, original <-> ours, total in both directions.

A table is derived from a spec by walking the module it describes (without memory), so that a tensor which our
module has and the table has not cannot exist. Three things differ besides names: 1 x 1 convolutions of the original
are linear layers here, its fused query-key-value is three layers, and decoder levels are counted from the other end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from einops import rearrange
from torch import Tensor, nn

from darkroom.autoencoder.coder import Decoder, Encoder
from darkroom.autoencoder.coder import Middle as CoderMiddle
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, PixelsSpec
from darkroom.checkpoint.clip_names import INSIDE, clip_names
from darkroom.conditioning.conditioner import ConditionerSpec, build_conditioner
from darkroom.conditioning.label import ClassConditioner
from darkroom.conditioning.layout import LayoutConditioner
from darkroom.conditioning.spatial import LowResSpec, MapConditioner, MaskedSpec
from darkroom.conditioning.text import SequenceEncoder, TextConditioner
from darkroom.core.errors import ModelFileError
from darkroom.core.hollow import hollow
from darkroom.diffusion.model import ModelSpec
from darkroom.network.blocks import Block
from darkroom.network.unet import UNet, UNetSpec
from darkroom.nn.attention import Attention, SelfAttention2d
from darkroom.nn.resample import Downsample, Upsample
from darkroom.nn.residual import ResidualBlock
from darkroom.nn.transformer import SpatialTransformer, TransformerBlock
from darkroom.process.schedule import build_schedule

UNET = "model.diffusion_model."
FIRST_STAGE = "first_stage_model."
CONDITIONER = "cond_stage_model."


@final
@dataclass(frozen=True)
class Entry:
    """One tensor of the original: its name and shape, and the one or three (query, key, value) tensors of ours.

    shape: in the original · our_shape: of each of ours · heads: how a fused tensor is laid out, as so many groups
    of [query | key | value].
    """

    original: str
    ours: tuple[str, ...]
    shape: tuple[int, ...]
    our_shape: tuple[int, ...]
    heads: int = 1


@final
@dataclass(frozen=True)
class Table:
    """All entries of a module, and the buffers that only we keep."""

    entries: tuple[Entry, ...]
    ours_only: tuple[str, ...] = ()

    def under(self, *, original: str = "", ours: str = "") -> "Table":
        """The same table with prefixes."""
        entries = tuple(
            replace(e, original=original + e.original, ours=tuple(ours + name for name in e.ours)) for e in self.entries
        )
        return Table(entries, tuple(ours + name for name in self.ours_only))


def joined(tables: Sequence[Table]) -> Table:
    """Several tables as one."""
    return Table(
        tuple(entry for table in tables for entry in table.entries),
        tuple(name for table in tables for name in table.ours_only),
    )


def to_ours(table: Table, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors from the original's; keys outside the table are left, `ModelFileError` for a missing or wrong one.

    `state` is asked for one tensor at a time, so that a mapping which reads on demand needs little memory.
    """
    missing = [entry.original for entry in table.entries if entry.original not in state]
    if missing:
        raise ModelFileError(f"{some(missing)} missing from the checkpoint")
    result: dict[str, Tensor] = {}
    for entry in table.entries:
        tensor = state[entry.original]
        if tuple(tensor.shape) != entry.shape:
            raise ModelFileError(
                f"tensor {entry.original!r} has shape {tuple(tensor.shape)}, the configuration needs {entry.shape}"
            )
        if len(entry.ours) == 1:
            result[entry.ours[0]] = tensor.reshape(entry.our_shape)
        else:
            parts = rearrange(tensor, "(h three d) ... -> three (h d) ...", h=entry.heads, three=3)
            result |= {
                name: part.reshape(entry.our_shape).clone() for name, part in zip(entry.ours, parts, strict=True)
            }
    return result


def to_original(table: Table, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original's tensors from ours; `ModelFileError` when one is missing."""
    missing = [name for entry in table.entries for name in entry.ours if name not in state]
    if missing:
        raise ModelFileError(f"{some(missing)} missing from the model")
    result: dict[str, Tensor] = {}
    for entry in table.entries:
        if len(entry.ours) == 1:
            result[entry.original] = state[entry.ours[0]].reshape(entry.shape)
        else:
            parts = torch.stack([state[name] for name in entry.ours])
            fused = rearrange(parts, "three (h d) ... -> (h three d) ...", h=entry.heads)
            result[entry.original] = fused.reshape(entry.shape)
    return result


def averaged_names(table: Table, *, base: str = "model.") -> dict[str, str]:
    """Original name -> the name of its moving average: `model_ema.` and the name below `base` without dots."""
    return {
        entry.original: "model_ema." + entry.original.removeprefix(base).replace(".", "")
        for entry in table.entries
        if entry.original.startswith(base)
    }


def some(names: Sequence[str]) -> str:
    """Up to three names, quoted, and how many more."""
    shown = ", ".join(repr(name[:200]) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    verb = "is" if len(names) == 1 else "are"
    return f"{shown}{more} {verb}"


def model_table(spec: ModelSpec, *, fused_by_head: bool = True) -> Table:
    """A whole model; `fused_by_head`: see `unet_table`."""
    tables = [
        unet_table(spec.network, fused_by_head=fused_by_head).under(original=UNET, ours="network."),
        first_stage_table(spec.first_stage).under(original=FIRST_STAGE, ours="first_stage."),
        conditioner_table(spec.conditioners).under(ours="conditioning.by_field."),
        Table((Entry("scale_factor", ("scale",), (), ()),)) if spec.scale is None else Table((), ("scale",)),
    ]
    if spec.objective.learn_log_variance:
        steps = build_schedule(spec.schedule).steps
        assert steps is not None  # only discrete schedules learn it
        tables.append(Table((Entry("logvar", ("log_variance",), (steps,), (steps,)),)))
    return joined(tables)


def leaf(module: nn.Module, original: str, *, ours: str, ones: int = 0) -> Iterator[Entry]:
    """Weight and bias of a layer; its original weight has `ones` more axes of length 1."""
    for name, parameter in module.named_parameters(recurse=False):
        shape = tuple(parameter.shape)
        wide = (*shape, *(1,) * ones) if name == "weight" else shape
        yield Entry(f"{original}.{name}", (f"{ours}.{name}",), wide, shape)


def unet_table(spec: UNetSpec, *, fused_by_head: bool = True) -> Table:
    """A U-Net; `fused_by_head` False is the original's `use_new_attention_order`."""
    with hollow():
        network = UNet(spec)
    return Table(tuple(_unet(network, fused_by_head=fused_by_head)))


def first_stage_table(spec: AutoencoderSpec | PixelsSpec) -> Table:
    """A first stage, as in a checkpoint of its own; `ModelFileError` for what the original does not have."""
    if isinstance(spec, PixelsSpec):
        if spec.patch > 1:
            raise ModelFileError("squares of pixels as channels have no counterpart in original checkpoints")
        return Table(())
    if spec.stem != "conv":
        raise ModelFileError(f"a first stage with stem {spec.stem!r} has no counterpart in original checkpoints")
    with hollow():
        model = Autoencoder(spec)
    return Table(tuple(_first_stage(model)))


def conditioner_table(specs: Sequence[ConditionerSpec]) -> Table:
    """Conditioners, with full original names; ours begin with the field. `ModelFileError` for guesses at latents."""
    if any(isinstance(spec, LowResSpec | MaskedSpec) and spec.guesses for spec in specs):
        raise ModelFileError("a model that learns what is beyond a guess has no counterpart in original checkpoints")
    return joined([_conditioner(spec).under(ours=f"{spec.field}.") for spec in specs])


_UNET_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "embed": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}
_CODER_RESIDUAL = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"skip": "nin_shortcut"}


def _residual(block: ResidualBlock, original: str, *, ours: str, names: Mapping[str, str]) -> Iterator[Entry]:
    for name, theirs in names.items():
        yield from leaf(getattr(block, name), f"{original}.{theirs}", ours=f"{ours}.{name}")


def _unet(network: UNet, *, fused_by_head: bool) -> Iterator[Entry]:
    yield from leaf(network.time.first, "time_embed.0", ours="time.first")
    yield from leaf(network.time.second, "time_embed.2", ours="time.second")
    yield from leaf(network.stem, "input_blocks.0.0", ours="stem")
    yield from _unet_down(network, fused_by_head=fused_by_head)
    first = network.middle.first
    yield from _residual(first.residual, "middle_block.0", ours="middle.first.residual", names=_UNET_RESIDUAL)
    yield from _unet_attention(first.attention, "middle_block.1", ours="middle.first.attention", by_head=fused_by_head)
    yield from _residual(network.middle.last, "middle_block.2", ours="middle.last", names=_UNET_RESIDUAL)
    yield from _unet_up(network, fused_by_head=fused_by_head)
    yield from leaf(network.norm, "out.0", ours="norm")
    yield from leaf(network.head, "out.2", ours="head")


def _unet_down(network: UNet, *, fused_by_head: bool) -> Iterator[Entry]:
    place = 1
    for depth, level in enumerate(network.down):
        for index, block in enumerate(level.blocks):
            ours = f"down.{depth}.blocks.{index}"
            yield from _unet_block(block, f"input_blocks.{place}", ours=ours, by_head=fused_by_head)
            place += 1
        if level.resample is not None:
            yield from _unet_resample(level.resample, f"input_blocks.{place}.0", ours=f"down.{depth}.resample")
            place += 1


def _unet_up(network: UNet, *, fused_by_head: bool) -> Iterator[Entry]:
    place = 0
    for depth, level in enumerate(network.up):
        for index, block in enumerate(level.blocks):
            ours = f"up.{depth}.blocks.{index}"
            yield from _unet_block(block, f"output_blocks.{place}", ours=ours, by_head=fused_by_head)
            place += 1
        if level.resample is not None:
            member = 1 if level.blocks[-1].attention is None else 2
            original = f"output_blocks.{place - 1}.{member}"
            yield from _unet_resample(level.resample, original, ours=f"up.{depth}.resample")


def _unet_block(block: Block, original: str, *, ours: str, by_head: bool) -> Iterator[Entry]:
    yield from _residual(block.residual, f"{original}.0", ours=f"{ours}.residual", names=_UNET_RESIDUAL)
    if block.attention is not None:
        yield from _unet_attention(block.attention, f"{original}.1", ours=f"{ours}.attention", by_head=by_head)


def _unet_resample(resample: nn.Module, original: str, *, ours: str) -> Iterator[Entry]:
    match resample:
        case ResidualBlock():
            yield from _residual(resample, original, ours=ours, names=_UNET_RESIDUAL)
        case Downsample():
            yield from leaf(resample.conv, f"{original}.op", ours=f"{ours}.conv")
        case Upsample():
            yield from leaf(resample.conv, f"{original}.conv", ours=f"{ours}.conv")
        case _:  # pooling has no weights
            return


def _unet_attention(
    module: SelfAttention2d | SpatialTransformer, original: str, *, ours: str, by_head: bool
) -> Iterator[Entry]:
    yield from leaf(module.norm, f"{original}.norm", ours=f"{ours}.norm")
    if isinstance(module, SelfAttention2d):
        heads = module.attention.heads if by_head else 1
        yield from _fused(module.attention, f"{original}.qkv", ours=f"{ours}.attention", heads=heads)
        yield from leaf(module.attention.out, f"{original}.proj_out", ours=f"{ours}.attention.out", ones=1)
        return
    yield from leaf(module.project_in, f"{original}.proj_in", ours=f"{ours}.project_in", ones=2)
    for index, block in enumerate(module.blocks):
        yield from transformer_block(block, f"{original}.transformer_blocks.{index}", ours=f"{ours}.blocks.{index}")
    yield from leaf(module.project_out, f"{original}.proj_out", ours=f"{ours}.project_out", ones=2)


def _fused(attention: Attention, original: str, *, ours: str, heads: int) -> Iterator[Entry]:
    for name, parameter in attention.query.named_parameters():
        shape = tuple(parameter.shape)
        wide = (3 * shape[0], *shape[1:], *((1,) if name == "weight" else ()))
        parts = tuple(f"{ours}.{part}.{name}" for part in ("query", "key", "value"))
        yield Entry(f"{original}.{name}", parts, wide, shape, heads)


def transformer_block(block: TransformerBlock, original: str, *, ours: str) -> Iterator[Entry]:
    """A block of a spatial transformer, called the same by the original and by diffusers."""
    for name in ("norm1", "norm2", "norm3"):
        yield from leaf(getattr(block, name), f"{original}.{name}", ours=f"{ours}.{name}")
    for name, theirs in (("self_attention", "attn1"), ("cross_attention", "attn2")):
        yield from _attention(getattr(block, name), f"{original}.{theirs}", ours=f"{ours}.{name}", out="to_out.0")
    yield from leaf(block.feed_forward.expand, f"{original}.ff.net.0.proj", ours=f"{ours}.feed_forward.expand")
    yield from leaf(block.feed_forward.out, f"{original}.ff.net.2", ours=f"{ours}.feed_forward.out")


def _attention(attention: Attention, original: str, *, ours: str, out: str) -> Iterator[Entry]:
    for name, theirs in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("out", out)):
        yield from leaf(getattr(attention, name), f"{original}.{theirs}", ours=f"{ours}.{name}")


def _first_stage(model: Autoencoder) -> Iterator[Entry]:
    yield from _coder(model.encoder, "encoder", levels="down", resample="downsample")
    yield from _coder(model.decoder, "decoder", levels="up", resample="upsample")
    yield from around_latents(model)


def around_latents(model: Autoencoder) -> Iterator[Entry]:
    """What stands between a first stage's coders, called the same by the original and by diffusers."""
    yield from leaf(model.to_latent, "quant_conv", ours="to_latent")
    yield from leaf(model.from_latent, "post_quant_conv", ours="from_latent")
    if model.codebook is not None:
        yield from leaf(model.codebook.codes, "quantize.embedding", ours="codebook.codes")


def _coder(coder: Encoder | Decoder, side: str, *, levels: str, resample: str) -> Iterator[Entry]:
    yield from leaf(coder.stem, f"{side}.conv_in", ours=f"{side}.stem")
    yield from _coder_middle(coder.middle, side)
    count = len(coder.levels)
    for place, level in enumerate(coder.levels):
        theirs = f"{side}.{levels}.{place if levels == 'down' else count - 1 - place}"
        ours = f"{side}.levels.{place}"
        for index, block in enumerate(level.blocks):
            names = (f"{theirs}.block.{index}", f"{ours}.blocks.{index}")
            yield from _residual(block, names[0], ours=names[1], names=_CODER_RESIDUAL)
        for index, attention in enumerate(level.attentions):
            yield from _coder_attention(attention, f"{theirs}.attn.{index}", ours=f"{ours}.attentions.{index}")
        if level.resample is not None:
            yield from leaf(level.resample.conv, f"{theirs}.{resample}.conv", ours=f"{ours}.resample.conv")
    yield from leaf(coder.norm, f"{side}.norm_out", ours=f"{side}.norm")
    yield from leaf(coder.head, f"{side}.conv_out", ours=f"{side}.head")


def _coder_middle(middle: CoderMiddle, side: str) -> Iterator[Entry]:
    for name, theirs in (("first", "block_1"), ("last", "block_2")):
        yield from _residual(
            getattr(middle, name),
            f"{side}.mid.{theirs}",
            ours=f"{side}.middle.{name}",
            names=_CODER_RESIDUAL,
        )
    if middle.attention is not None:
        yield from _coder_attention(middle.attention, f"{side}.mid.attn_1", ours=f"{side}.middle.attention")


def _coder_attention(module: SelfAttention2d, original: str, *, ours: str) -> Iterator[Entry]:
    yield from leaf(module.norm, f"{original}.norm", ours=f"{ours}.norm")
    for name, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "proj_out")):
        layer = getattr(module.attention, name)
        yield from leaf(layer, f"{original}.{theirs}", ours=f"{ours}.attention.{name}", ones=2)


def _conditioner(spec: ConditionerSpec) -> Table:
    with hollow():
        module = build_conditioner(spec)
    match module:
        case ClassConditioner():
            vector = spec.port == "vector"  # the original keeps that one in the U-Net
            original = f"{UNET}label_emb" if vector else f"{CONDITIONER}embedding"
            return Table(tuple(leaf(module.embedding, original, ours="embedding")))
        case TextConditioner():
            return Table(tuple(_sequence(module.encoder)), ("empty_ids",))
        case LayoutConditioner():
            return Table(tuple(_sequence(module.encoder)))
        case MapConditioner():
            return Table(tuple(leaf(module.mix, f"{CONDITIONER}channel_mapper", ours="mix")))
        case _:  # planes given as they are
            return Table(())


def clip_text(encoder: SequenceEncoder, original: str) -> Iterator[Entry]:
    """CLIP's text model; ours begin with `encoder.`."""
    for theirs, ours in clip_names(encoder.spec.depth).items():
        yield from leaf(encoder.get_submodule(ours), original + theirs, ours=f"encoder.{ours}")


def _sequence(encoder: SequenceEncoder) -> Iterator[Entry]:
    base = f"{CONDITIONER}transformer"
    if encoder.spec.family == "clip":
        yield from clip_text(encoder, f"{base}.{INSIDE}")
        return
    yield from leaf(encoder.tokens, f"{base}.token_emb", ours="encoder.tokens")
    yield from leaf(encoder.positions, f"{base}.pos_emb.emb", ours="encoder.positions")
    for index, layer in enumerate(encoder.transformer.layers):
        ours = f"encoder.transformer.layers.{index}"
        attend, feed = (f"{base}.attn_layers.layers.{2 * index + half}" for half in (0, 1))
        yield from leaf(layer.norm1, f"{attend}.0", ours=f"{ours}.norm1")
        yield from _attention(layer.attention, f"{attend}.1", ours=f"{ours}.attention", out="to_out")
        yield from leaf(layer.norm2, f"{feed}.0", ours=f"{ours}.norm2")
        yield from leaf(layer.expand, f"{feed}.1.net.0.0", ours=f"{ours}.expand")
        yield from leaf(layer.out, f"{feed}.1.net.2", ours=f"{ours}.out")
    yield from leaf(encoder.transformer.norm, f"{base}.norm", ours="encoder.transformer.norm")
    if encoder.logits is not None:
        yield from leaf(encoder.logits, f"{base}.to_logits", ours="encoder.logits")

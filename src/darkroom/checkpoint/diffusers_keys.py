"""The table of parameter names, diffusers <-> ours, total in both directions: `keymap`'s tables with other names.

Each table is made by walking our module, as there. diffusers keeps queries, keys and values apart as we do, and counts
decoder levels from the same end; what differs beside names are convolutions of one pixel around its transformers.
"""

from collections.abc import Iterator

from torch import nn

from darkroom.autoencoder.coder import Decoder, Encoder
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.checkpoint.clip_names import INSIDE
from darkroom.checkpoint.keymap import Entry, Table, around_latents, clip_text, leaf, transformer_block
from darkroom.conditioning.label import ClassConditioner, ClassSpec
from darkroom.conditioning.text import SequenceEncoder, SequenceEncoderSpec
from darkroom.core.errors import ModelFileError
from darkroom.core.hollow import hollow
from darkroom.network.blocks import Block
from darkroom.network.unet import UNet, UNetSpec
from darkroom.nn.attention import Attention, SelfAttention2d
from darkroom.nn.resample import Downsample, Upsample
from darkroom.nn.residual import ResidualBlock
from darkroom.nn.transformer import SpatialTransformer

RESIDUAL = {
    "norm1": "norm1",
    "conv1": "conv1",
    "embed": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "skip": "conv_shortcut",
}
ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}


def unet_table(spec: UNetSpec, *, linear: bool = False) -> Table:
    """A U-Net; linear: what leads into its transformers and out of them are matrices (`use_linear_projection`)."""
    with hollow():
        network = UNet(spec)
    return Table(tuple(_unet(network, ones=0 if linear else 2)))


def first_stage_table(spec: AutoencoderSpec) -> Table:
    """An AutoencoderKL or VQModel; `ModelFileError` for stems that these do not have."""
    if spec.stem != "conv" or spec.shortcut != "none" or spec.tiny is not None:
        raise ModelFileError("diffusers has no first stage with a stem of squares, a shortcut or a tiny decoder")
    with hollow():
        model = Autoencoder(spec)
    return Table(tuple(_first_stage(model)))


def bert_table(spec: SequenceEncoderSpec) -> Table:
    """The text encoder of LDMTextToImagePipeline (`LDMBertModel`); our names begin with `encoder.`."""
    with hollow():
        encoder = SequenceEncoder(spec)
    return Table(tuple(_bert(encoder)))


def clip_table(spec: SequenceEncoderSpec, *, inside: str = INSIDE) -> Table:
    """The text encoder of StableDiffusionPipeline (`CLIPTextModel`); inside: what its names begin with."""
    with hollow():
        encoder = SequenceEncoder(spec)
    return Table(tuple(clip_text(encoder, inside)))


def class_table(spec: ClassSpec) -> Table:
    """The embedding of classes that a U-Net adds to its times."""
    with hollow():
        module = ClassConditioner(spec)
    return Table(tuple(leaf(module.embedding, "class_embedding", ours="embedding")))


def _residual(block: ResidualBlock, theirs: str, *, ours: str) -> Iterator[Entry]:
    for name, other in RESIDUAL.items():
        module = getattr(block, name)
        if module is not None:
            yield from leaf(module, f"{theirs}.{other}", ours=f"{ours}.{name}")


def _attention(attention: Attention, theirs: str, *, ours: str) -> Iterator[Entry]:
    for name, other in ATTENTION.items():
        yield from leaf(getattr(attention, name), f"{theirs}.{other}", ours=f"{ours}.{name}")


def _unet(network: UNet, *, ones: int) -> Iterator[Entry]:
    yield from leaf(network.time.first, "time_embedding.linear_1", ours="time.first")
    yield from leaf(network.time.second, "time_embedding.linear_2", ours="time.second")
    yield from leaf(network.stem, "conv_in", ours="stem")
    for side, levels in (("down", network.down), ("up", network.up)):
        for depth, level in enumerate(levels):
            theirs = f"{side}_blocks.{depth}"
            for index, block in enumerate(level.blocks):
                yield from _block(block, theirs, index=index, ours=f"{side}.{depth}.blocks.{index}", ones=ones)
            if level.resample is not None:
                yield from _resample(level.resample, f"{theirs}.{side}samplers.0", ours=f"{side}.{depth}.resample")
    yield from _block(network.middle.first, "mid_block", index=0, ours="middle.first", ones=ones)
    yield from _residual(network.middle.last, "mid_block.resnets.1", ours="middle.last")
    yield from leaf(network.norm, "conv_norm_out", ours="norm")
    yield from leaf(network.head, "conv_out", ours="head")


def _block(block: Block, theirs: str, *, index: int, ours: str, ones: int) -> Iterator[Entry]:
    yield from _residual(block.residual, f"{theirs}.resnets.{index}", ours=f"{ours}.residual")
    name, inside = f"{theirs}.attentions.{index}", f"{ours}.attention"
    match block.attention:
        case SelfAttention2d():
            yield from leaf(block.attention.norm, f"{name}.group_norm", ours=f"{inside}.norm")
            yield from _attention(block.attention.attention, name, ours=f"{inside}.attention")
        case SpatialTransformer():
            yield from leaf(block.attention.norm, f"{name}.norm", ours=f"{inside}.norm")
            yield from leaf(block.attention.project_in, f"{name}.proj_in", ours=f"{inside}.project_in", ones=ones)
            for place, each in enumerate(block.attention.blocks):
                yield from transformer_block(
                    each, f"{name}.transformer_blocks.{place}", ours=f"{inside}.blocks.{place}"
                )
            yield from leaf(block.attention.project_out, f"{name}.proj_out", ours=f"{inside}.project_out", ones=ones)
        case None:
            return


def _resample(resample: nn.Module, theirs: str, *, ours: str) -> Iterator[Entry]:
    match resample:
        case ResidualBlock():
            yield from _residual(resample, theirs, ours=ours)
        case Downsample() | Upsample():
            yield from leaf(resample.conv, f"{theirs}.conv", ours=f"{ours}.conv")
        case _:
            raise ModelFileError("diffusers has no U-Net that halves by pooling alone")


def _first_stage(model: Autoencoder) -> Iterator[Entry]:
    yield from _coder(model.encoder, "encoder", levels="down_blocks", resample="downsamplers")
    yield from _coder(model.decoder, "decoder", levels="up_blocks", resample="upsamplers")
    yield from around_latents(model)


def _coder(coder: Encoder | Decoder, side: str, *, levels: str, resample: str) -> Iterator[Entry]:
    yield from leaf(coder.stem, f"{side}.conv_in", ours=f"{side}.stem")
    for place, level in enumerate(coder.levels):
        theirs, ours = f"{side}.{levels}.{place}", f"{side}.levels.{place}"
        for index, block in enumerate(level.blocks):
            yield from _residual(block, f"{theirs}.resnets.{index}", ours=f"{ours}.blocks.{index}")
        for index, attention in enumerate(level.attentions):
            yield from _level_attention(attention, f"{theirs}.attentions.{index}", ours=f"{ours}.attentions.{index}")
        if level.resample is not None:
            yield from leaf(level.resample.conv, f"{theirs}.{resample}.0.conv", ours=f"{ours}.resample.conv")
    for name, index in (("first", 0), ("last", 1)):
        block = getattr(coder.middle, name)
        yield from _residual(block, f"{side}.mid_block.resnets.{index}", ours=f"{side}.middle.{name}")
    if coder.middle.attention is not None:
        middle = coder.middle.attention
        yield from _level_attention(middle, f"{side}.mid_block.attentions.0", ours=f"{side}.middle.attention")
    yield from leaf(coder.norm, f"{side}.conv_norm_out", ours=f"{side}.norm")
    yield from leaf(coder.head, f"{side}.conv_out", ours=f"{side}.head")


def _level_attention(module: SelfAttention2d, theirs: str, *, ours: str) -> Iterator[Entry]:
    yield from leaf(module.norm, f"{theirs}.group_norm", ours=f"{ours}.norm")
    yield from _attention(module.attention, theirs, ours=f"{ours}.attention")


def _bert(encoder: SequenceEncoder) -> Iterator[Entry]:
    yield from leaf(encoder.tokens, "model.embed_tokens", ours="encoder.tokens")
    yield from leaf(encoder.positions, "model.embed_positions", ours="encoder.positions")
    for index, layer in enumerate(encoder.transformer.layers):
        theirs, ours = f"model.layers.{index}", f"encoder.transformer.layers.{index}"
        yield from leaf(layer.norm1, f"{theirs}.self_attn_layer_norm", ours=f"{ours}.norm1")
        for name, other in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
            yield from leaf(
                getattr(layer.attention, name), f"{theirs}.self_attn.{other}", ours=f"{ours}.attention.{name}"
            )
        yield from leaf(layer.norm2, f"{theirs}.final_layer_norm", ours=f"{ours}.norm2")
        yield from leaf(layer.expand, f"{theirs}.fc1", ours=f"{ours}.expand")
        yield from leaf(layer.out, f"{theirs}.fc2", ours=f"{ours}.out")
    yield from leaf(encoder.transformer.norm, "model.layer_norm", ours="encoder.transformer.norm")
    if encoder.logits is not None:
        yield from leaf(encoder.logits, "to_logits", ours="encoder.logits")

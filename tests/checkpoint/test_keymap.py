"""The key table: every tensor of ours once, and back to the original bit for bit."""

import pytest
import torch

from darkroom.autoencoder.bottleneck import VQSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, PixelsSpec
from darkroom.checkpoint.keymap import (
    Table,
    averaged_names,
    conditioner_table,
    first_stage_table,
    model_table,
    to_original,
    to_ours,
    unet_table,
)
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.network.unet import UNet, UNetSpec
from darkroom.nn.attention import Attention
from darkroom.process.objective import ObjectiveSpec

ENCODER = SequenceEncoderSpec(vocabulary=9, length=5, width=24, depth=2, spare_logits=True)
FIRST_STAGES = {
    "kl": AutoencoderSpec(channels=32, multipliers=(1, 2, 2), blocks=2, attention=(2, 4), code_channels=6),
    "vq-noattn": AutoencoderSpec(
        channels=32, multipliers=(1, 2), blocks=1, middle_attention=False, bottleneck=VQSpec(codes=16)
    ),
}
UNETS = {
    "plain": {"heads": 4},
    "by-channels": {"head_channels": 16, "resample": "residual", "scale_shift": True},
    "pooled": {"heads": 2, "resample": "pool"},
    "spatial": {"heads": 4, "transformer_depth": 2, "context_width": 24},
}
CONDITIONERS = {
    "none": (),
    "class": (ClassSpec(classes=10, width=24, null=10),),
    "text": (TextSpec(encoder=ENCODER),),
    "layout": (LayoutSpec(encoder=ENCODER, empty=8),),
    "vector": (ClassSpec(classes=7, width=128, port="vector", drop=0),),
    "map": (MapSpec(classes=5, channels=2, halvings=2),),
    "hybrid": (TextSpec(encoder=ENCODER), LowResSpec(channels=3)),
}


def network(kind: str, *, planes: int = 0) -> UNetSpec:
    base = {"in_channels": 4 + planes, "out_channels": 4, "channels": 32, "multipliers": (1, 2), "blocks": 2}
    return UNetSpec(**base, attention=(1, 2), **UNETS[kind])


def model(conditioners: str) -> ModelSpec:
    specs = CONDITIONERS[conditioners]
    tokens = any(spec.port == "tokens" for spec in specs)
    planes = sum(spec.channels for spec in specs if spec.port == "planes")
    return ModelSpec(
        image_size=64,
        first_stage=FIRST_STAGES["kl"],
        network=network("spatial" if tokens else "plain", planes=planes),
        conditioners=specs,
        objective=ObjectiveSpec(learn_log_variance=conditioners == "class"),
        scale=0.5 if conditioners == "text" else None,
    )


def assert_total(table: Table, expected: dict[str, torch.Tensor]) -> None:
    ours = [name for entry in table.entries for name in entry.ours] + list(table.ours_only)
    assert sorted(ours) == sorted(expected)
    originals = [entry.original for entry in table.entries]
    assert len(set(originals)) == len(originals)
    shapes = {name: entry.our_shape for entry in table.entries for name in entry.ours}
    assert all(tuple(expected[name].shape) == shape for name, shape in shapes.items())


def assert_bit_equal(table: Table) -> None:
    original = {entry.original: torch.randn(entry.shape) for entry in table.entries}
    back = to_original(table, to_ours(table, original))
    assert list(back) == list(original)
    assert all(torch.equal(back[name], original[name]) for name in original)


@pytest.mark.parametrize("kind", UNETS)
@pytest.mark.parametrize("by_head", [True, False])
def test_unet_table_is_total_and_invertible(kind: str, by_head: bool) -> None:
    table = unet_table(network(kind), fused_by_head=by_head)
    assert_total(table, UNet(network(kind)).state_dict())
    assert_bit_equal(table)


@pytest.mark.parametrize("kind", FIRST_STAGES)
def test_first_stage_table_is_total_and_invertible(kind: str) -> None:
    table = first_stage_table(FIRST_STAGES[kind])
    assert_total(table, Autoencoder(FIRST_STAGES[kind]).state_dict())
    assert_bit_equal(table)


@pytest.mark.parametrize("kind", CONDITIONERS)
def test_model_table_is_total_and_invertible(kind: str) -> None:
    table = model_table(model(kind))
    assert_total(table, LatentDiffusion(model(kind)).state_dict())
    assert_bit_equal(table)


def test_names_of_the_original() -> None:
    names = {entry.original: entry for entry in model_table(model("text")).entries}
    unet, first, text = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
    for name in (
        f"{unet}input_blocks.3.0.op.weight",
        f"{unet}output_blocks.2.2.conv.weight",
        f"{unet}middle_block.1.transformer_blocks.1.attn2.to_out.0.bias",
        f"{first}decoder.up.2.upsample.conv.weight",
        f"{first}encoder.down.1.attn.0.proj_out.weight",
        f"{text}attn_layers.layers.3.1.net.0.0.weight",
        f"{text}pos_emb.emb.weight",
    ):
        assert name in names
    decoder = names[f"{first}decoder.up.0.block.2.conv2.weight"]
    assert decoder.ours == ("first_stage.decoder.levels.2.blocks.2.conv2.weight",)
    assert names[f"{unet}input_blocks.1.1.proj_in.weight"].shape == (32, 32, 1, 1)
    pooled = {entry.original for entry in unet_table(network("pooled")).entries}
    assert "input_blocks.4.0.in_layers.0.weight" in pooled  # a level without weights still counts
    vector = [entry.original for entry in model_table(model("vector")).entries]
    assert f"{unet}label_emb.weight" in vector
    assert "scale_factor" in vector
    assert "scale_factor" not in names


@pytest.mark.parametrize("by_head", [True, False])
def test_fused_attention_computes_what_the_original_does(by_head: bool) -> None:
    """One convolution to 3 C channels, heads cut out of it in the original's two orders, softmax by hand."""
    heads, width, positions = 4, 32, 6
    table = unet_table(network("plain"), fused_by_head=by_head)
    entries = [entry for entry in table.entries if entry.original.startswith("input_blocks.1.1.qkv")]
    torch.manual_seed(0)
    state = {entry.original: 0.2 * torch.randn(entry.shape) for entry in entries}
    ours = to_ours(Table(tuple(entries)), state)
    prefix = "down.0.blocks.0.attention.attention."
    attention = Attention(width, heads=heads, head_width=width // heads, bias=True)
    attention.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in ours.items()}, strict=False)
    with torch.no_grad():
        attention.out.weight.copy_(torch.eye(width))
        attention.out.bias.zero_()
    x = torch.randn(2, width, positions)
    weight, bias = state["input_blocks.1.1.qkv.weight"], state["input_blocks.1.1.qkv.bias"]
    fused = torch.nn.functional.conv1d(x, weight, bias)
    if by_head:
        q, k, v = fused.reshape(2 * heads, 3 * width // heads, positions).chunk(3, dim=1)
    else:
        q, k, v = (each.reshape(2 * heads, width // heads, positions) for each in fused.chunk(3, dim=1))
    share = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / (width // heads) ** 0.5, dim=-1)
    expected = torch.einsum("bts,bcs->bct", share, v).reshape(2, width, positions)
    assert torch.allclose(attention(x.transpose(1, 2)).transpose(1, 2), expected, atol=1e-5)


def test_average_names_have_no_dots_and_do_not_collide() -> None:
    spec = network("spatial").model_copy(update={"blocks": 12})
    table = unet_table(spec).under(original="model.diffusion_model.")
    names = averaged_names(table)
    assert len(set(names.values())) == len(table.entries)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    assert names[first] == "model_ema.diffusion_modelinput_blocks00weight"


def test_missing_and_wrong_tensors_are_named() -> None:
    table = first_stage_table(FIRST_STAGES["vq-noattn"])
    state = {entry.original: torch.zeros(entry.shape) for entry in table.entries}
    assert first_stage_table(PixelsSpec()).entries == ()
    wrong = {**state, "quant_conv.bias": torch.zeros(9)}
    with pytest.raises(ModelFileError, match=r"quant_conv.bias.*\(9,\)"):
        to_ours(table, wrong)
    ours = to_ours(table, state)
    del state["quant_conv.bias"], ours["to_latent.bias"]
    with pytest.raises(ModelFileError, match=r"quant_conv.bias.* missing"):
        to_ours(table, state)
    with pytest.raises(ModelFileError, match=r"to_latent.bias.* missing"):
        to_original(table, ours)
    with pytest.raises(ModelFileError, match="patch2"):
        first_stage_table(AutoencoderSpec(stem="patch2"))


def test_what_the_original_does_not_know_is_refused() -> None:
    with pytest.raises(ModelFileError, match="squares of pixels as channels"):
        first_stage_table(PixelsSpec(patch=2))
    with pytest.raises(ModelFileError, match="beyond a guess"):
        conditioner_table([LowResSpec(guesses=4)])

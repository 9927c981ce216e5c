"""What the original's networks compute, straight from the tensors of a checkpoint, by its YAML and written rules.

A second source beside our modules and the key table: plain functions of tensors under the original's names; nothing
here knows the package. `layout` in `original_layout.py` says which names there are.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
Params = Mapping[str, Any]


def within(state: State, prefix: str) -> dict[str, Tensor]:
    """The tensors below a name."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def conv(s: State, name: str, x: Tensor, *, padding: int = 0, stride: int = 1) -> Tensor:
    return F.conv2d(x, s[f"{name}.weight"], s.get(f"{name}.bias"), padding=padding, stride=stride)


def dense(s: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, s[f"{name}.weight"], s.get(f"{name}.bias"))


def groups(s: State, name: str, x: Tensor, *, eps: float) -> Tensor:
    return F.group_norm(x, 32, s[f"{name}.weight"], s[f"{name}.bias"], eps)


def layer_norm(s: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"])


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -2).repeat_interleave(2, -1)


def halved(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(..., l, d) each."""
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v


# U-Net: `s` are the tensors below model.diffusion_model., `p` the params of its unet_config


def unet(s: State, p: Params, x: Tensor, t: Tensor, *, context: Tensor | None, label: Tensor | None = None) -> Tensor:
    """x with planes already beside it."""
    half = p["model_channels"] // 2
    angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(half) / half)
    emb = dense(s, "time_embed.0", torch.cat([angles.cos(), angles.sin()], dim=1))
    emb = dense(s, "time_embed.2", F.silu(emb))
    emb = emb if label is None else emb + s["label_emb.weight"][label]
    last, blocks = len(p["channel_mult"]) - 1, p["num_res_blocks"]
    attends = [2**level in p["attention_resolutions"] for level in range(last + 1)]
    h = conv(s, "input_blocks.0.0", x, padding=1)
    skips, place = [h], 1
    for level in range(last + 1):
        for _ in range(blocks):
            h = residual(s, f"input_blocks.{place}.0", h, emb, p)
            h = mixed(s, f"input_blocks.{place}.1", h, context, p) if attends[level] else h
            skips, place = [*skips, h], place + 1
        if level < last:
            h = smaller(s, f"input_blocks.{place}.0", h, emb, p)
            skips, place = [*skips, h], place + 1
    h = residual(s, "middle_block.0", h, emb, p)
    h = residual(s, "middle_block.2", mixed(s, "middle_block.1", h, context, p), emb, p)
    place = 0
    for level in reversed(range(last + 1)):
        for block in range(blocks + 1):
            h = residual(s, f"output_blocks.{place}.0", torch.cat([h, skips.pop()], dim=1), emb, p)
            h = mixed(s, f"output_blocks.{place}.1", h, context, p) if attends[level] else h
            if level and block == blocks:
                h = larger(s, f"output_blocks.{place}.{1 + attends[level]}", h, emb, p)
            place += 1
    return conv(s, "out.2", F.silu(groups(s, "out.0", h, eps=1e-5)), padding=1)


def residual(s: State, name: str, x: Tensor, emb: Tensor, p: Params, *, resized: Any = lambda x: x) -> Tensor:
    h = resized(F.silu(groups(s, f"{name}.in_layers.0", x, eps=1e-5)))
    h = conv(s, f"{name}.in_layers.2", h, padding=1)
    shift = dense(s, f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
    if p.get("use_scale_shift_norm"):
        scale, shift = shift.chunk(2, dim=1)
        h = groups(s, f"{name}.out_layers.0", h, eps=1e-5) * (1 + scale) + shift
    else:
        h = groups(s, f"{name}.out_layers.0", h + shift, eps=1e-5)
    h, x = conv(s, f"{name}.out_layers.3", F.silu(h), padding=1), resized(x)
    return h + (conv(s, f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in s else x)


def smaller(s: State, name: str, x: Tensor, emb: Tensor, p: Params) -> Tensor:
    if p.get("resblock_updown"):
        return residual(s, name, x, emb, p, resized=halved)
    return conv(s, f"{name}.op", x, padding=1, stride=2) if p.get("conv_resample", True) else halved(x)


def larger(s: State, name: str, x: Tensor, emb: Tensor, p: Params) -> Tensor:
    if p.get("resblock_updown"):
        return residual(s, name, x, emb, p, resized=doubled)
    return conv(s, f"{name}.conv", doubled(x), padding=1) if p.get("conv_resample", True) else doubled(x)


def mixed(s: State, name: str, x: Tensor, context: Tensor | None, p: Params) -> Tensor:
    """A spatial transformer, or attention with fused query, key and value."""
    width = x.shape[1]
    heads = width // p["num_head_channels"] if p.get("num_head_channels", -1) != -1 else p["num_heads"]
    if p.get("use_spatial_transformer"):
        h = conv(s, f"{name}.proj_in", groups(s, f"{name}.norm", x, eps=1e-6)).flatten(2).transpose(1, 2)
        for depth in range(p.get("transformer_depth", 1)):
            h = transformer(s, f"{name}.transformer_blocks.{depth}", h, context, heads=heads)
        return x + conv(s, f"{name}.proj_out", h.transpose(1, 2).reshape(x.shape))
    wide = conv_1d(s, f"{name}.qkv", groups(s, f"{name}.norm", x, eps=1e-5).flatten(2))
    if p.get("use_new_attention_order"):  # all queries, all keys, all values; else each head's own three together
        q, k, v = (each.unflatten(1, (heads, -1)).transpose(-1, -2) for each in wide.chunk(3, dim=1))
    else:
        q, k, v = wide.unflatten(1, (heads, 3, -1)).transpose(-1, -2).unbind(2)
    found = attend(q, k, v).transpose(-1, -2).flatten(1, 2)
    return x + conv_1d(s, f"{name}.proj_out", found).reshape(x.shape)


def conv_1d(s: State, name: str, x: Tensor) -> Tensor:
    return torch.einsum("oc,bcl->bol", s[f"{name}.weight"][:, :, 0], x) + s[f"{name}.bias"][:, None]


def transformer(s: State, name: str, x: Tensor, context: Tensor | None, *, heads: int) -> Tensor:
    h = layer_norm(s, f"{name}.norm1", x)
    x = x + crossed(s, f"{name}.attn1", h, h, heads=heads, out="to_out.0")
    h = layer_norm(s, f"{name}.norm2", x)
    x = x + crossed(s, f"{name}.attn2", h, h if context is None else context, heads=heads, out="to_out.0")
    value, gate = dense(s, f"{name}.ff.net.0.proj", layer_norm(s, f"{name}.norm3", x)).chunk(2, dim=-1)
    return x + dense(s, f"{name}.ff.net.2", value * F.gelu(gate))


def crossed(s: State, name: str, x: Tensor, context: Tensor, *, heads: int, out: str) -> Tensor:
    given = (("to_q", x), ("to_k", context), ("to_v", context))
    q, k, v = (dense(s, f"{name}.{part}", each).unflatten(2, (heads, -1)).transpose(1, 2) for part, each in given)
    return dense(s, f"{name}.{out}", attend(q, k, v).transpose(1, 2).flatten(2))


# First stage: `s` are its tensors without a prefix, `p` its `ddconfig`


def encoded(s: State, p: Params, images: Tensor) -> Tensor:
    """After the 1 x 1 convolution: mean and log variance, or latents before they are quantised."""
    h = conv(s, "encoder.conv_in", images, padding=1)
    last = len(p["ch_mult"]) - 1
    for level in range(last + 1):
        h = coder_level(s, f"encoder.down.{level}", h, range(p["num_res_blocks"]))
        if level < last:
            h = conv(s, f"encoder.down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), stride=2)
    return conv(s, "quant_conv", coder_end(s, "encoder", coder_middle(s, "encoder", h)))


def decoded(s: State, p: Params, latents: Tensor) -> Tensor:
    """As they are: of a codebook, codes."""
    h = coder_middle(s, "decoder", conv(s, "decoder.conv_in", conv(s, "post_quant_conv", latents), padding=1))
    for level in reversed(range(len(p["ch_mult"]))):
        h = coder_level(s, f"decoder.up.{level}", h, range(p["num_res_blocks"] + 1))
        h = conv(s, f"decoder.up.{level}.upsample.conv", doubled(h), padding=1) if level else h
    return coder_end(s, "decoder", h)


def nearest_codes(s: State, latents: Tensor) -> Tensor:
    codes, cells = s["quantize.embedding.weight"], latents.movedim(1, -1)
    return codes[(cells[..., None, :] - codes).square().sum(-1).argmin(-1)].movedim(-1, 1)


def coder_level(s: State, name: str, x: Tensor, blocks: Iterable[int]) -> Tensor:
    """Which levels attend is told by the tensors that there are."""
    for block in blocks:
        x = coder_residual(s, f"{name}.block.{block}", x)
        x = coder_attention(s, f"{name}.attn.{block}", x) if f"{name}.attn.{block}.q.weight" in s else x
    return x


def coder_middle(s: State, side: str, x: Tensor) -> Tensor:
    x = coder_residual(s, f"{side}.mid.block_1", x)
    x = coder_attention(s, f"{side}.mid.attn_1", x) if f"{side}.mid.attn_1.q.weight" in s else x
    return coder_residual(s, f"{side}.mid.block_2", x)


def coder_end(s: State, side: str, x: Tensor) -> Tensor:
    return conv(s, f"{side}.conv_out", F.silu(groups(s, f"{side}.norm_out", x, eps=1e-6)), padding=1)


def coder_residual(s: State, name: str, x: Tensor) -> Tensor:
    h = conv(s, f"{name}.conv1", F.silu(groups(s, f"{name}.norm1", x, eps=1e-6)), padding=1)
    h = conv(s, f"{name}.conv2", F.silu(groups(s, f"{name}.norm2", h, eps=1e-6)), padding=1)
    return h + (conv(s, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in s else x)


def coder_attention(s: State, name: str, x: Tensor) -> Tensor:
    h = groups(s, f"{name}.norm", x, eps=1e-6)
    q, k, v = (conv(s, f"{name}.{part}", h).flatten(2).transpose(1, 2) for part in "qkv")
    return x + conv(s, f"{name}.proj_out", attend(q, k, v).transpose(1, 2).reshape(x.shape))


# Conditioners: `s` are the tensors below cond_stage_model.


def sequence(s: State, ids: Tensor) -> Tensor:
    """Of a BERTEmbedder or TransformerEmbedder: 8 heads, norms before, attention and feed-forward by turns."""
    s = within(s, "transformer.")
    x = s["token_emb.weight"][ids] + s["pos_emb.emb.weight"][: ids.shape[1]]
    for layer in range(sum(name.endswith(".1.to_q.weight") for name in s)):
        attention, feed = (f"attn_layers.layers.{2 * layer + half}" for half in (0, 1))
        h = layer_norm(s, f"{attention}.0", x)
        x = x + crossed(s, f"{attention}.1", h, h, heads=8, out="to_out")
        h = F.gelu(dense(s, f"{feed}.1.net.0.0", layer_norm(s, f"{feed}.0", x)))
        x = x + dense(s, f"{feed}.1.net.2", h)
    return layer_norm(s, "norm", x)


def rescaled(s: State, p: Params, one_hot: Tensor) -> Tensor:
    """Of a SpatialRescaler."""
    for _ in range(p["n_stages"]):
        one_hot = F.interpolate(one_hot, scale_factor=0.5, mode="bilinear")
    return conv(s, "channel_mapper", one_hot)


def beside(s: State, p: Params, picture: Tensor, mask: Tensor) -> Tensor:
    """What the original's script for inpainting puts beside the latents; picture and mask in 0..1, 1 is the hole.

    `s` is the first stage, once more as the conditioner; the mask goes through no network.
    """
    black = 2 * (1 - mask) * picture - 1
    latents = encoded(s, p, black)
    return torch.cat([latents, F.interpolate(2 * mask - 1, size=latents.shape[-2:])], dim=1)

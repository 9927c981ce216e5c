"""Names and shapes of the tensors in an original checkpoint, from its YAML by written rules.

A second source beside `darkroom.checkpoint.keymap`, which derives them from our modules: nothing here knows the
package. The rules are those of the layout of ADM's U-Net, of the VQGAN's coder, of a pre-norm BERT and of CLIP's text
model.
"""

from collections.abc import Iterator
from typing import Any

Shapes = dict[str, tuple[int, ...]]
BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
INNER = 512  # 8 heads of 64 in every text encoder


def layout(model: dict[str, Any]) -> Shapes:
    """What the original's module holds, averages included, for the `model:` of a YAML."""
    params = model["params"]
    if "unet_config" not in params:
        return dict(first_stage(model))
    first = dict(first_stage(params["first_stage_config"]))
    network = {f"diffusion_model.{name}": shape for name, shape in unet(params["unet_config"]["params"])}
    made: Shapes = dict.fromkeys(BUFFERS, (params.get("timesteps", 1000),))
    if params.get("scale_by_std"):
        made["scale_factor"] = ()
    made |= {f"model.{name}": shape for name, shape in network.items()}
    if params.get("use_ema", True):
        made |= {"model_ema.decay": (), "model_ema.num_updates": ()}
        made |= {f"model_ema.{name.replace('.', '')}": shape for name, shape in network.items()}
    made |= {f"first_stage_model.{name}": shape for name, shape in first.items()}
    again = params["cond_stage_config"] == "__is_first_stage__"
    conditioner = first if again else dict(cond_stage(params["cond_stage_config"]))
    return made | {f"cond_stage_model.{name}": shape for name, shape in conditioner.items()}


def both(name: str, *shape: int, bias: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Weight and bias of a layer; a norm has one axis."""
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def unet(p: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, last = p["model_channels"], len(p["channel_mult"]) - 1
    yield from both("time_embed.0", 4 * width, width)
    yield from both("time_embed.2", 4 * width, 4 * width)
    if "num_classes" in p:
        yield "label_emb.weight", (p["num_classes"], 4 * width)
    yield from both("input_blocks.0.0", width, p["in_channels"], 3, 3)
    skips, now, place, down = [width], width, 1, 1
    for level, multiplier in enumerate(p["channel_mult"]):
        for _ in range(p["num_res_blocks"]):
            yield from residual(f"input_blocks.{place}.0", now, multiplier * width, p)
            now = multiplier * width
            if down in p["attention_resolutions"]:
                yield from attention(f"input_blocks.{place}.1", now, p)
            skips.append(now)
            place += 1
        if level != last:
            yield from resample(f"input_blocks.{place}.0", now, p, kind="op")
            skips.append(now)
            place, down = place + 1, 2 * down
    yield from residual("middle_block.0", now, now, p)
    yield from attention("middle_block.1", now, p)
    yield from residual("middle_block.2", now, now, p)
    place = 0
    for level in reversed(range(last + 1)):
        for number in range(p["num_res_blocks"] + 1):
            yield from residual(f"output_blocks.{place}.0", now + skips.pop(), p["channel_mult"][level] * width, p)
            now = p["channel_mult"][level] * width
            attends = down in p["attention_resolutions"]
            if attends:
                yield from attention(f"output_blocks.{place}.1", now, p)
            if level and number == p["num_res_blocks"]:
                yield from resample(f"output_blocks.{place}.{1 + attends}", now, p, kind="conv")
                down //= 2
            place += 1
    yield from both("out.0", now)
    yield from both("out.2", p["out_channels"], now, 3, 3)


def residual(name: str, came: int, goes: int, p: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from both(f"{name}.in_layers.0", came)
    yield from both(f"{name}.in_layers.2", goes, came, 3, 3)
    yield from both(f"{name}.emb_layers.1", goes * (2 if p.get("use_scale_shift_norm") else 1), 4 * p["model_channels"])
    yield from both(f"{name}.out_layers.0", goes)
    yield from both(f"{name}.out_layers.3", goes, goes, 3, 3)
    if came != goes:
        yield from both(f"{name}.skip_connection", goes, came, 1, 1)


def resample(name: str, width: int, p: dict[str, Any], *, kind: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    if p.get("resblock_updown"):
        yield from residual(name, width, width, p)
    elif p.get("conv_resample", True):  # else it is pooled
        yield from both(f"{name}.{kind}", width, width, 3, 3)


def attention(name: str, width: int, p: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from both(f"{name}.norm", width)
    if not p.get("use_spatial_transformer"):
        yield from both(f"{name}.qkv", 3 * width, width, 1)
        yield from both(f"{name}.proj_out", width, width, 1)
        return
    yield from both(f"{name}.proj_in", width, width, 1, 1)
    for number in range(p.get("transformer_depth", 1)):
        block = f"{name}.transformer_blocks.{number}"
        for attends, context in (("attn1", width), ("attn2", p["context_dim"])):
            yield from both(f"{block}.{attends}.to_q", width, width, bias=False)
            yield from both(f"{block}.{attends}.to_k", width, context, bias=False)
            yield from both(f"{block}.{attends}.to_v", width, context, bias=False)
            yield from both(f"{block}.{attends}.to_out.0", width, width)
        yield from both(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from both(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            yield from both(f"{block}.{norm}", width)
    yield from both(f"{name}.proj_out", width, width, 1, 1)


def first_stage(model: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    p = model["params"]
    d, e = p["ddconfig"], p["embed_dim"]
    z, moments = d["z_channels"], 2 if d["double_z"] else 1
    yield from coder("encoder", d, levels="down")
    yield from coder("decoder", d, levels="up")
    yield from both("quant_conv", moments * e, moments * z, 1, 1)
    yield from both("post_quant_conv", z, e, 1, 1)
    if "n_embed" in p:
        yield "quantize.embedding.weight", (p["n_embed"], e)


def coder(side: str, d: dict[str, Any], *, levels: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """An encoder (`down`) or a decoder (`up`, whose levels are walked from the last and which has a block more)."""
    widths, blocks, down = [d["ch"] * each for each in d["ch_mult"]], d["num_res_blocks"], levels == "down"
    z, deepest = d["z_channels"], widths[-1]
    now = d["ch"] if down else deepest
    yield from both(f"{side}.conv_in", now, d["in_channels"] if down else z, 3, 3)
    for level in range(len(widths)) if down else reversed(range(len(widths))):
        at = f"{side}.{levels}.{level}"
        for number in range(blocks if down else blocks + 1):
            yield from coder_residual(f"{at}.block.{number}", now, widths[level])
            now = widths[level]
            if d["resolution"] // 2**level in d["attn_resolutions"]:
                yield from coder_attention(f"{at}.attn.{number}", now)
        if down and level != len(widths) - 1:
            yield from both(f"{at}.downsample.conv", now, now, 3, 3)
        if not down and level:
            yield from both(f"{at}.upsample.conv", now, now, 3, 3)
    yield from coder_residual(f"{side}.mid.block_1", deepest, deepest)
    if d.get("attn_type") != "none":
        yield from coder_attention(f"{side}.mid.attn_1", deepest)
    yield from coder_residual(f"{side}.mid.block_2", deepest, deepest)
    yield from both(f"{side}.norm_out", now)
    yield from both(f"{side}.conv_out", (2 * z if d["double_z"] else z) if down else d["out_ch"], now, 3, 3)


def coder_residual(name: str, came: int, goes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from both(f"{name}.norm1", came)
    yield from both(f"{name}.conv1", goes, came, 3, 3)
    yield from both(f"{name}.norm2", goes)
    yield from both(f"{name}.conv2", goes, goes, 3, 3)
    if came != goes:
        yield from both(f"{name}.nin_shortcut", goes, came, 1, 1)


def coder_attention(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from both(f"{name}.norm", width)
    for each in ("q", "k", "v", "proj_out"):
        yield from both(f"{name}.{each}", width, width, 1, 1)


def cond_stage(config: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    p = {} if isinstance(config, str) else config.get("params", {})
    match "" if isinstance(config, str) else config["target"].rpartition(".")[2]:
        case "ClassEmbedder":
            yield "embedding.weight", (p.get("n_classes", 1000), p["embed_dim"])
        case "SpatialRescaler":
            yield "channel_mapper.weight", (p["out_channels"], p["in_channels"], 1, 1)
        case "BERTEmbedder":
            yield from bert(p)
        case "FrozenCLIPEmbedder":
            yield from clip(layers=12, width=768, words=49408)
        case _:
            return


def bert(p: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, words, base = p["n_embed"], p.get("vocab_size", 30522), "transformer"
    yield f"{base}.token_emb.weight", (words, width)
    yield f"{base}.pos_emb.emb.weight", (p.get("max_seq_len", 77), width)
    for layer in range(p["n_layer"]):
        attends, feeds = (f"{base}.attn_layers.layers.{2 * layer + half}" for half in (0, 1))
        yield from both(f"{attends}.0", width)
        for each in ("to_q", "to_k", "to_v"):
            yield from both(f"{attends}.1.{each}", INNER, width, bias=False)
        yield from both(f"{attends}.1.to_out", width, INNER)
        yield from both(f"{feeds}.0", width)
        yield from both(f"{feeds}.1.net.0.0", 4 * width, width)
        yield from both(f"{feeds}.1.net.2", width, 4 * width)
    yield from both(f"{base}.norm", width)
    yield from both(f"{base}.to_logits", words, width)


def clip(*, layers: int, width: int, words: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """CLIP's text model, in a version of transformers of 2022."""
    base = "transformer.text_model"
    yield f"{base}.embeddings.position_ids", (1, 77)
    yield f"{base}.embeddings.token_embedding.weight", (words, width)
    yield f"{base}.embeddings.position_embedding.weight", (77, width)
    for layer in range(layers):
        at = f"{base}.encoder.layers.{layer}"
        for each in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from both(f"{at}.self_attn.{each}", width, width)
        yield from both(f"{at}.layer_norm1", width)
        yield from both(f"{at}.mlp.fc1", 4 * width, width)
        yield from both(f"{at}.mlp.fc2", width, 4 * width)
        yield from both(f"{at}.layer_norm2", width)
    yield from both(f"{base}.final_layer_norm", width)

"""From an original configuration to our specs; options that we do not have are refused by name."""

from dataclasses import dataclass
from typing import Any, final

from darkroom.autoencoder.model import AutoencoderSpec, FirstStageSpec, PixelsSpec
from darkroom.checkpoint.clip_names import VIT_L
from darkroom.checkpoint.config import (
    LATER,
    ClassParams,
    ClipParams,
    CoderParams,
    DiffusionParams,
    FirstStageParams,
    RescalerParams,
    SequenceParams,
    Target,
    UNetParams,
    refuse_target,
)
from darkroom.checkpoint.published import trained_with_one_head
from darkroom.checkpoint.read_spec import parsed
from darkroom.conditioning import layout
from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.embedding import EmbeddingSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import ModelSpec
from darkroom.network.unet import UNetSpec

MODELS = "ldm.models.diffusion.ddpm.LatentDiffusion"
COMPRESSORS = ("AutoencoderKL", "VQModel", "VQModelInterface", "IdentityFirstStage")
ENCODERS = ("ClassEmbedder", "BERTEmbedder", "TransformerEmbedder", "FrozenCLIPEmbedder", "SpatialRescaler")
UNETS = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
LAYOUT_KEYS = ("coordinates_bbox", "objects_bbox", "objects_center_points")
NULL_SHARE = 0.1  # of a model known to be trained with a null condition; how much is not in the file
RETRIEVED = 21  # tokens of a retrieval model: a text and up to 20 neighbours
_AUTOENCODER = "ldm.models.autoencoder."
_ENCODER = "ldm.modules.encoders.modules."


@final
@dataclass(frozen=True)
class OriginalSpec:
    """What an original YAML says.

    family: its class · ema: does it keep moving averages · fused_by_head: order inside fused attention weights ·
    bert: captions pass BERT's tokenizer · shared_conditioner: the conditioner is the first stage once more.
    """

    spec: ModelSpec | AutoencoderSpec
    family: str
    ema: bool
    fused_by_head: bool = True
    bert: bool = False
    shared_conditioner: bool = False
    odd: tuple[str, ...] = ()


def original_spec(model: Target, *, where: str) -> OriginalSpec:
    """Our specs for an original `model:`; `ModelFileError` or `NotYetError` name what does not fit."""
    family = model.target.rpartition(".")[2]
    if model.target == MODELS:
        return _diffusion(parsed(DiffusionParams, model.params, where=f"{where}, LatentDiffusion"), where=where)
    if model.target.startswith(_AUTOENCODER) and family in COMPRESSORS[:3]:
        params = parsed(FirstStageParams, model.params, where=f"{where}, {family}")
        return OriginalSpec(_autoencoder(params, family=family, where=where), family, params.use_ema)
    return refuse_target(model.target, known=[MODELS, *(_AUTOENCODER + name for name in COMPRESSORS[:3])], where=where)


def _diffusion(params: DiffusionParams, *, where: str) -> OriginalSpec:
    if params.given_betas is not None or params.v_posterior != 0:
        name = "v_posterior" if params.given_betas is None else "given_betas"
        raise ModelFileError(f"{where}: {name} is not supported; only its default is")
    if params.unet_config.target != UNETS:
        return refuse_target(params.unet_config.target, known=[UNETS], where=where)
    if _full(params) in LATER:  # before the options of its U-Net, which may be as new
        return refuse_target(_full(params), known=(), where=where)
    unet = parsed(UNetParams, params.unet_config.params, where=f"{where}, UNetModel")
    first_stage = _first_stage(params, where=where)
    network = _network(unet, where=where)
    conditioners, odd = _conditioners(params, unet, where=where)
    if trained_with_one_head(network, first_stage=first_stage, conditioners=conditioners, size=params.image_size):
        network = network.model_copy(update={"heads": 1, "head_channels": None})
        odd.append("a published configuration whose file says 32 channels per head and which was trained with one head")
    size, sentences = _image_size(params, first_stage=first_stage, network=network)
    values = {
        "image_size": size,
        "first_stage": first_stage.plain(),
        "network": network.plain(),
        "conditioners": [each.plain() for each in conditioners],
        "schedule": _schedule(params),
        "prediction": params.parameterization,
        "objective": {
            "loss": params.loss_type,
            "learn_log_variance": params.learn_logvar,
            "log_variance_init": params.logvar_init,
            "simple_weight": params.l_simple_weight,
            "variational_weight": params.original_elbo_weight,
        },
        "scale": None if params.scale_by_std else params.scale_factor,
    }
    return OriginalSpec(
        parsed(ModelSpec, values, where=where),
        "LatentDiffusion",
        params.use_ema,
        fused_by_head=not unet.use_new_attention_order,
        bert=_uses_bert(params),
        shared_conditioner=params.cond_stage_config == "__is_first_stage__",
        odd=(*odd, *sentences),
    )


def _schedule(params: DiffusionParams) -> dict[str, Any]:
    if params.beta_schedule == "cosine":
        return {"kind": "cosine", "s": params.cosine_s, "steps": params.timesteps}
    kind = {"linear": "linear", "sqrt_linear": "true-linear", "sqrt": "sqrt"}[params.beta_schedule]
    return {"kind": kind, "start": params.linear_start, "end": params.linear_end, "steps": params.timesteps}


def _image_size(params: DiffusionParams, *, first_stage: FirstStageSpec, network: UNetSpec) -> tuple[int, list[str]]:
    """Side of the pictures: the latent's times f, up to what the network can take."""
    latent = params.image_size if isinstance(params.image_size, int) else max(params.image_size, default=0)
    if latent < 1:
        return 0, []  # refused by the spec
    fits = -(-latent // network.size_multiple) * network.size_multiple
    odd = [] if fits == latent else [f"image_size {latent} does not fit the network, {fits} is taken as its default"]
    return fits * first_stage.factor, odd


def _first_stage(params: DiffusionParams, *, where: str) -> FirstStageSpec:
    target = params.first_stage_config.target
    family = target.removeprefix(_AUTOENCODER)
    match family:
        case "IdentityFirstStage":
            return PixelsSpec(image_channels=params.channels)
        case "AutoencoderKL" | "VQModel" | "VQModelInterface":
            values = parsed(FirstStageParams, params.first_stage_config.params, where=f"{where}, {family}")
            return _autoencoder(values, family=family, where=where)
        case _:
            return refuse_target(target, known=[_AUTOENCODER + name for name in COMPRESSORS], where=where)


def _autoencoder(params: FirstStageParams, *, family: str, where: str) -> AutoencoderSpec:
    coder = params.ddconfig
    quantised = family != "AutoencoderKL"
    _check_coder(coder, where=where)
    if coder.double_z == quantised:
        raise ModelFileError(f"{where}: double_z {coder.double_z} does not go with {family}")
    if quantised and params.n_embed is None:
        raise ModelFileError(f"{where}: n_embed, the size of the codebook, is missing")
    if params.remap is not None:
        raise ModelFileError(f"{where}: remap, a codebook cut down by a file, is not supported")
    values = {
        "image_channels": coder.in_channels,
        "channels": coder.ch,
        "multipliers": coder.ch_mult,
        "blocks": coder.num_res_blocks,
        "attention": [] if coder.attn_type == "none" else _attending(coder, where=where),
        "middle_attention": coder.attn_type != "none",
        "latent_channels": params.embed_dim,
        "code_channels": None if coder.z_channels == params.embed_dim else coder.z_channels,
        "bottleneck": {"kind": "vq", "codes": params.n_embed} if quantised else {"kind": "kl"},
        "dropout": coder.dropout,
    }
    return parsed(AutoencoderSpec, values, where=where)


def _check_coder(coder: CoderParams, *, where: str) -> None:
    refused = {
        "attn_type": coder.attn_type == "linear",
        "use_linear_attn": coder.use_linear_attn,
        "resamp_with_conv": not coder.resamp_with_conv,
        "give_pre_end": coder.give_pre_end,
        "tanh_out": coder.tanh_out,
        "use_timestep": coder.use_timestep,
        "out_ch": coder.out_ch != coder.in_channels,
    }
    for name, wrong in refused.items():
        if wrong:
            value = getattr(coder, name)
            raise ModelFileError(f"{where}: ddconfig.{name} {value!r} is used by no published model and not supported")


def _attending(coder: CoderParams, *, where: str) -> list[int]:
    """Downsampling factors of the levels that attend: the file gives sides in pixels at its nominal resolution."""
    last = len(coder.ch_mult) - 1
    lowest = coder.resolution // 2**last
    down = [2**level for level in range(last + 1) if coder.resolution // 2**level in coder.attn_resolutions]
    up = [2**level for level in range(last + 1) if lowest * 2 ** (last - level) in coder.attn_resolutions]
    if down != up:
        raise ModelFileError(f"{where}: encoder and decoder would attend at different levels, which is not supported")
    return down


def _network(unet: UNetParams, *, where: str) -> UNetSpec:
    _check_unet(unet, where=where)
    context = unet.context_dim[0] if isinstance(unet.context_dim, tuple) else unet.context_dim
    values = {
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "channels": unet.model_channels,
        "multipliers": unet.channel_mult,
        "blocks": unet.num_res_blocks,
        "attention": sorted(set(unet.attention_resolutions), reverse=True),
        "heads": unet.num_heads if unet.num_head_channels == -1 else None,
        "head_channels": None if unet.num_head_channels == -1 else unet.num_head_channels,
        "transformer_depth": unet.transformer_depth if unet.use_spatial_transformer else 0,
        "context_width": context,
        "resample": "residual" if unet.resblock_updown else "conv" if unet.conv_resample else "pool",
        "scale_shift": unet.use_scale_shift_norm,
        "dropout": unet.dropout,
        "recompute": unet.use_checkpoint,
    }
    return parsed(UNetSpec, values, where=where)


def _check_unet(unet: UNetParams, *, where: str) -> None:
    """Refuse by name what the original's constructor takes and our network does not have.

    Heads as in its last version: num_head_channels decides when given, else num_heads; `legacy` changes nothing in
    what is left, and num_heads_upsample counts only for plain attention without num_head_channels.
    """
    by_count = unet.num_head_channels == -1
    plain = by_count and not unet.use_spatial_transformer and unet.legacy
    context = unet.context_dim
    refused = {
        "dims": unet.dims != 2,
        "n_embed": unet.n_embed is not None,
        "num_heads": by_count and unet.num_heads < 1,
        "num_head_channels": not by_count and unet.num_head_channels < 1,
        "num_heads_upsample": plain and unet.num_heads_upsample not in (-1, unet.num_heads),
        "context_dim": unet.use_spatial_transformer != (context is not None)
        or (isinstance(context, tuple) and len(set(context)) != 1),
        "transformer_depth": unet.use_spatial_transformer and unet.transformer_depth < 1,
    }
    for name, wrong in refused.items():
        if wrong:
            raise ModelFileError(f"{where}: UNetModel with {name} {getattr(unet, name)!r} is not supported")


def _conditioners(params: DiffusionParams, unet: UNetParams, *, where: str) -> tuple[list[ConditionerSpec], list[str]]:
    """What steers the model. The rule of the original: no key means concat or crossattn by `concat_mode`."""
    key = params.conditioning_key or ("concat" if params.concat_mode else "crossattn")
    if params.cond_stage_config == "__is_unconditional__":
        key = "none"
    if (unet.num_classes is not None) != (key == "adm"):
        raise ModelFileError(f"{where}: num_classes {unet.num_classes} does not go with conditioning_key {key}")
    match key:
        case "none":
            return [], []
        case "adm":
            spec = ClassSpec(classes=unet.num_classes or 0, width=4 * unet.model_channels, port="vector", drop=0)
            return [spec], ["the class enters as a vector and has no null, so it cannot be guided"]
        case "concat":
            return [_planes(params, unet, where=where)], []
        case "hybrid":
            tokens, odd = _tokens(params, unet, where=where)
            planes = _given_planes(unet.in_channels - params.channels, params=params)
            return [tokens, planes], [*odd, "what the planes of a hybrid model are is not in its file"]
        case _:
            tokens, odd = _tokens(params, unet, where=where)
            return [tokens], odd


def _target(params: DiffusionParams) -> tuple[str, dict[str, Any]]:
    """Name and parameters of the conditioner."""
    config = params.cond_stage_config
    return (config, {}) if isinstance(config, str) else (config.target.removeprefix(_ENCODER), config.params)


def _tokens(params: DiffusionParams, unet: UNetParams, *, where: str) -> tuple[ConditionerSpec, list[str]]:
    target, values = _target(params)
    match target:
        case "ClassEmbedder":
            return _classes(parsed(ClassParams, values, where=f"{where}, {target}"))
        case "BERTEmbedder" | "TransformerEmbedder":
            read = parsed(SequenceParams, values, where=f"{where}, {target}")
            return _sequence(read, params=params, tokenized=target == "BERTEmbedder" and read.use_tokenizer)
        case "FrozenCLIPEmbedder":
            parsed(ClipParams, values, where=f"{where}, {target}")
            return TextSpec(encoder=VIT_L, drop=NULL_SHARE), []
        case "torch.nn.Identity":
            width = unet.context_dim[0] if isinstance(unet.context_dim, tuple) else unet.context_dim
            spec = EmbeddingSpec(width=width or 1, length=RETRIEVED, drop=NULL_SHARE)
            return spec, ["tokens are given ready-made; how many it was trained with is not in the file"]
        case "SpatialRescaler" | "__is_first_stage__":
            raise ModelFileError(f"{where}: {target} makes planes and cannot enter by cross-attention")
        case _:
            return refuse_target(_full(params), known=[*(_ENCODER + name for name in ENCODERS)], where=where)


def _full(params: DiffusionParams) -> str:
    config = params.cond_stage_config
    return config if isinstance(config, str) else config.target


def _classes(values: ClassParams) -> tuple[ConditionerSpec, list[str]]:
    count = values.n_classes
    if count > 1 and count % 10 == 1:
        spec = ClassSpec(classes=count - 1, width=values.embed_dim, null=count - 1, drop=NULL_SHARE)
        return spec, [f"class {count - 1}, the last, is taken as the null class"]
    return ClassSpec(classes=count, width=values.embed_dim, drop=0), ["no null class, so it cannot be guided"]


def _sequence(values: SequenceParams, *, params: DiffusionParams, tokenized: bool) -> tuple[ConditionerSpec, list[str]]:
    encoder = SequenceEncoderSpec(
        vocabulary=values.vocab_size,
        length=values.max_seq_len,
        width=values.n_embed,
        depth=values.n_layer,
        spare_logits=True,
    )
    if params.cond_stage_key in LAYOUT_KEYS:
        known = (layout.ORIGINAL.length, layout.ORIGINAL.vocabulary) == (values.max_seq_len, values.vocab_size)
        scheme = layout.ORIGINAL if known else None
        return LayoutSpec(encoder=encoder, scheme=scheme, empty=values.vocab_size - 1, drop=0), []
    odd = [] if tokenized else ["captions come as ids of a tokenizer that is not in the file; empty is taken as zeros"]
    return TextSpec(encoder=encoder, drop=NULL_SHARE), odd


def _planes(params: DiffusionParams, unet: UNetParams, *, where: str) -> ConditionerSpec:
    target, values = _target(params)
    extra = unet.in_channels - params.channels
    match target:
        case "SpatialRescaler":
            return _rescaler(parsed(RescalerParams, values, where=f"{where}, {target}"), where=where)
        case "torch.nn.Identity":
            return LowResSpec(channels=max(extra, 1))
        case "__is_first_stage__":
            scaled = params.scale_by_std or params.scale_factor != 1  # which the original leaves away here
            return MaskedSpec(channels=max(extra, 1), units="first-stage" if scaled else "denoiser")
        case "ClassEmbedder" | "BERTEmbedder" | "TransformerEmbedder" | "FrozenCLIPEmbedder":
            raise ModelFileError(f"{where}: {target} makes tokens and cannot enter by concatenation")
        case _:
            return refuse_target(_full(params), known=[*(_ENCODER + name for name in ENCODERS)], where=where)


def _given_planes(extra: int, *, params: DiffusionParams) -> ConditionerSpec:
    """Planes as they are: masked latents and a mask when there is one channel more than a latent has."""
    return MaskedSpec(channels=extra) if extra == params.channels + 1 else LowResSpec(channels=max(extra, 1))


def _rescaler(values: RescalerParams, *, where: str) -> MapSpec:
    usual = {"method": "bilinear", "multiplier": 0.5, "bias": False}
    for name, fits in usual.items():
        if getattr(values, name) != fits:
            raise ModelFileError(f"{where}: SpatialRescaler with {name} {getattr(values, name)!r} is not supported")
    if values.out_channels is None:
        raise ModelFileError(f"{where}: SpatialRescaler without out_channels is not supported")
    return MapSpec(classes=values.in_channels, channels=values.out_channels, halvings=values.n_stages)


def _uses_bert(params: DiffusionParams) -> bool:
    target, values = _target(params)
    return target == "BERTEmbedder" and bool(values.get("use_tokenizer", True))

"""Our specs as an original configuration: the way back of `specs`; what it cannot say is refused by name."""

from typing import Any, Final

from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import AutoencoderSpec, FirstStageSpec, PixelsSpec
from darkroom.checkpoint.clip_names import VIT_L
from darkroom.checkpoint.ramp import nearest_ramp
from darkroom.checkpoint.specs import LAYOUT_KEYS, MODELS, UNETS
from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.embedding import EmbeddingSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import ModelSpec
from darkroom.network.unet import UNetSpec
from darkroom.process.schedule import CosineSpec, LinearSpec, ScheduleSpec, SqrtSpec, TableSpec, TrueLinearSpec

Plain = dict[str, Any]
GROUPS: Final = 32  # of every norm
HEADS: Final = (8, 64)  # of every text encoder: how many, how wide
_AUTOENCODER: Final = "ldm.models.autoencoder."
_ENCODER: Final = "ldm.modules.encoders.modules."


def original_config(spec: ModelSpec | AutoencoderSpec, *, bert: bool = False, fused_by_head: bool = True) -> Plain:
    """The `model:` of an original YAML. `ModelFileError` names what the original has no words for.

    bert: captions pass the tokenizer of BERT, as the original's do · fused_by_head: see `unet_table`. What only trains
    (weightings, times, dropped conditions) is not in it; of a table of noise levels it says the nearest ramp.
    """
    if isinstance(spec, AutoencoderSpec):
        return _autoencoder(spec, resolution=_nominal(spec))
    if spec.regresses:
        raise _refuse("a regression, which is drawn in one step and from zeros")
    conditioned = _conditioning(spec, bert=bert)
    part = spec.objective
    params = {
        **_schedule(spec.schedule),
        "parameterization": _said({"eps", "x0", "v"}, spec.prediction, what="prediction"),
        "loss_type": part.loss,
        "learn_logvar": part.learn_log_variance,
        "logvar_init": part.log_variance_init,
        "l_simple_weight": part.simple_weight,
        "original_elbo_weight": part.variational_weight,
        "image_size": spec.image_size // spec.first_stage.factor,
        "channels": spec.first_stage.latent_channels,
        "first_stage_key": "image",
        "use_ema": False,
        **({"scale_by_std": True} if spec.scale is None else {"scale_factor": spec.scale}),
        **conditioned,
        "unet_config": _network(spec, fused_by_head=fused_by_head),
        "first_stage_config": _first_stage(spec.first_stage, size=spec.image_size),
    }
    return {"target": MODELS, "params": params}


def _refuse(what: str) -> ModelFileError:
    return ModelFileError(f"original configurations have no words for {what}")


def _said(known: set[str], value: str, *, what: str) -> str:
    if value not in known:
        raise _refuse(f"{what} {value!r}")
    return value


def _schedule(spec: ScheduleSpec) -> Plain:
    match spec:
        case LinearSpec() | TrueLinearSpec() | SqrtSpec() if not spec.zero_terminal_snr:
            names = {"linear": "linear", "true-linear": "sqrt_linear", "sqrt": "sqrt"}
            ramp = {"linear_start": spec.start, "linear_end": spec.end}
            return {"timesteps": spec.steps, "beta_schedule": names[spec.kind], **ramp}
        case CosineSpec() if not spec.zero_terminal_snr:
            return {"timesteps": spec.steps, "beta_schedule": "cosine", "cosine_s": spec.s}
        case TableSpec() if spec.powers[-1] > 0:  # the tables in the checkpoint say it exactly
            return _schedule(nearest_ramp(spec)[0])
        case LinearSpec() | TrueLinearSpec() | SqrtSpec() | CosineSpec() | TableSpec():
            raise _refuse("zero terminal SNR")
        case _:
            raise _refuse(f"the schedule {spec.kind!r}")


def _nominal(spec: AutoencoderSpec) -> int:
    """A resolution at which the levels that attend have sides of their own."""
    return 256 if 256 % spec.factor == 0 else 16 * spec.factor


def _first_stage(spec: FirstStageSpec, *, size: int) -> Plain:
    if isinstance(spec, PixelsSpec):
        if spec.patch > 1:
            raise _refuse("squares of pixels as channels")
        return {"target": f"{_AUTOENCODER}IdentityFirstStage", "params": {}}
    return _autoencoder(spec, resolution=size, interface=True)


def _autoencoder(spec: AutoencoderSpec, *, resolution: int, interface: bool = False) -> Plain:
    """A first stage; `interface`: inside a whole model, where quantising is left to the decoder."""
    odd = {
        f"the stem {spec.stem!r}": spec.stem != "conv",
        "a shortcut past encoder and decoder": spec.shortcut != "none",
        "a tiny decoder": spec.tiny is not None,
        f"norms of {spec.norm_groups} groups": spec.norm_groups != GROUPS,
        "attention in levels but not in the middle": bool(spec.attention) and not spec.middle_attention,
        "a first stage without bottleneck": not isinstance(spec.bottleneck, KLSpec | VQSpec),
    }
    for what, wrong in odd.items():
        if wrong:
            raise _refuse(what)
    quantised = isinstance(spec.bottleneck, VQSpec)
    coder = {
        "double_z": not quantised,
        "z_channels": spec.code_channels or spec.latent_channels,
        "resolution": resolution,
        "in_channels": spec.image_channels,
        "out_ch": spec.image_channels,
        "ch": spec.channels,
        "ch_mult": list(spec.multipliers),
        "num_res_blocks": spec.blocks,
        "attn_resolutions": [resolution // factor for factor in spec.attention],
        "dropout": spec.dropout,
        **({} if spec.middle_attention else {"attn_type": "none"}),
    }
    kind = ("VQModelInterface" if interface else "VQModel") if quantised else "AutoencoderKL"
    params: Plain = {
        "embed_dim": spec.latent_channels,
        "ddconfig": coder,
        "lossconfig": {"target": "torch.nn.Identity"},
    }
    if isinstance(spec.bottleneck, VQSpec):
        params["n_embed"] = spec.bottleneck.codes
    return {"target": f"{_AUTOENCODER}{kind}", "params": params}


def _network(spec: ModelSpec, *, fused_by_head: bool) -> Plain:
    unet = spec.network
    odd = {
        "waves that tell attention where it is": unet.places != "none",
        f"norms of {unet.norm_groups} groups": unet.norm_groups != GROUPS,
        "a factor on times": unet.time_scale != 1.0,
        "spatial transformers without tokens": unet.transformer_depth > 0 and unet.context_width is None,
    }
    for what, wrong in odd.items():
        if wrong:
            raise _refuse(what)
    vector = next((each for each in spec.conditioners if each.port == "vector"), None)
    params = {
        "image_size": spec.image_size // spec.first_stage.factor,
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "model_channels": unet.channels,
        "attention_resolutions": list(unet.attention),
        "num_res_blocks": unet.blocks,
        "channel_mult": list(unet.multipliers),
        **_heads(unet),
        "dropout": unet.dropout,
        "use_scale_shift_norm": unet.scale_shift,
        "use_checkpoint": unet.recompute,
        "resblock_updown": unet.resample == "residual",
        "conv_resample": unet.resample != "pool",
        **({} if fused_by_head else {"use_new_attention_order": True}),
        **({"num_classes": vector.classes} if isinstance(vector, ClassSpec) else {}),
    }
    if unet.transformer_depth:
        tokens = {"transformer_depth": unet.transformer_depth, "context_dim": unet.context_width}
        params |= {"use_spatial_transformer": True, **tokens, "legacy": False}
    return {"target": UNETS, "params": params}


def _heads(unet: UNetSpec) -> Plain:
    """One head where none of both is said."""
    return {"num_head_channels": unet.head_channels} if unet.head_channels else {"num_heads": unet.heads or 1}


def _conditioning(spec: ModelSpec, *, bert: bool) -> Plain:
    """The conditioner, its key, and how it enters; `ModelFileError` for more than one of a port, or all but hybrid."""
    ports = sorted(each.port for each in spec.conditioners)
    match ports:
        case []:
            return {"cond_stage_config": "__is_unconditional__", "conditioning_key": None}
        case [_]:
            key = {"tokens": "crossattn", "vector": "adm", "planes": "concat"}[ports[0]]
            return {"conditioning_key": key, **_conditioner(spec.conditioners[0], bert=bert)}
        case ["planes", "tokens"]:
            (tokens,) = (each for each in spec.conditioners if each.port == "tokens")
            (planes,) = (each for each in spec.conditioners if each.port == "planes")
            _conditioner(planes, bert=bert)  # refuses planes that the original does not know
            if isinstance(planes, MapSpec):
                raise _refuse("a semantic map beside tokens")
            return {"conditioning_key": "hybrid", **_conditioner(tokens, bert=bert)}
        case _:
            raise _refuse(f"a model steered by {' and '.join(each.field for each in spec.conditioners)} together")


def _conditioner(spec: ConditionerSpec, *, bert: bool) -> Plain:
    """Its key and what makes it."""
    identity = {"target": "torch.nn.Identity"}
    match spec:
        case ClassSpec(port="vector", null=None):
            found = "class_label", identity
        case ClassSpec(port="tokens"):
            rows = max(spec.classes, 0 if spec.null is None else spec.null + 1)
            params = {"n_classes": rows, "embed_dim": spec.width, "key": "class_label"}
            found = "class_label", _made("ClassEmbedder", params)
        case TextSpec(encoder=encoder) if encoder.family == "clip":
            if encoder != VIT_L:
                raise _refuse("a CLIP text encoder of other sizes than those of ViT-L/14")
            found = "txt", _made("FrozenCLIPEmbedder", {})
        case TextSpec():
            found = "caption", _made("BERTEmbedder", _sequence(spec.encoder) | {"use_tokenizer": bert})
        case LayoutSpec():
            found = LAYOUT_KEYS[0], _made("BERTEmbedder", _sequence(spec.encoder) | {"use_tokenizer": False})
        case EmbeddingSpec():
            found = "embedding", identity
        case MapSpec(patch=1):
            sizes = {"n_stages": spec.halvings, "in_channels": spec.classes, "out_channels": spec.channels}
            found = "segmentation", _made("SpatialRescaler", sizes)
        case LowResSpec(patch=1, enlarge=1, guesses=0):
            found = "LR_image", identity
        case MaskedSpec(shrink="nearest", fill="black", guesses=False):
            found = "masked_image", "__is_first_stage__"
        case _:
            raise _refuse(f"the way in which its {spec.field} enters")
    return dict(zip(("cond_stage_key", "cond_stage_config"), found, strict=True))


def _made(name: str, params: Plain) -> Plain:
    return {"target": f"{_ENCODER}{name}", "params": params}


def _sequence(encoder: SequenceEncoderSpec) -> Plain:
    if encoder.family != "bert":
        raise _refuse("a layout that passes CLIP's text model")
    if (encoder.heads, encoder.head_width) != HEADS:
        raise _refuse(f"a text encoder of {encoder.heads} heads of {encoder.head_width}")
    sizes = {"n_embed": encoder.width, "n_layer": encoder.depth}
    return sizes | {"vocab_size": encoder.vocabulary, "max_seq_len": encoder.length}

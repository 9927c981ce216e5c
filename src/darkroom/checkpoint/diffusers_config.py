"""Configurations of diffusers (config.json of a U-Net, first stage or scheduler) <-> our specs; refused by name."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.core.errors import ModelFileError, SpecError
from darkroom.core.spec import parse
from darkroom.network.unet import UNetSpec
from darkroom.process.prediction import PredictionName
from darkroom.process.schedule import (
    CosineSpec,
    DiscreteSchedule,
    LinearSpec,
    ScheduleSpec,
    TableSpec,
    TrueLinearSpec,
    build_schedule,
)

Plain = dict[str, Any]
PREDICTIONS: Final[dict[str, PredictionName]] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SCALE: Final = 0.18215  # what diffusers takes for the factor on latents where a file does not say it
_SETTINGS: Final = ("_class_name", "_diffusers_version", "_name_or_path", "sample_size")
_LEVELS: Final = (
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "up_block_types",
    "norm_num_groups",
)
_UNET_READ: Final = (
    *_LEVELS,
    "attention_head_dim",
    "num_attention_heads",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "use_linear_projection",
    "resnet_time_scale_shift",
    "downsample_type",
    "upsample_type",
    "mid_block_type",
    "attn_norm_num_groups",
    "dropout",
)
_UNET_USUAL: Final[dict[str, tuple[object, ...]]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "freq_shift": (0,),
    "flip_sin_to_cos": (True,),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1,),
    "act_fn": ("silu", "swish"),
    "norm_eps": (1e-5,),
    "add_attention": (True,),
    "only_cross_attention": (False,),
    "attention_type": ("default",),
    "resnet_out_scale_factor": (1.0,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "upcast_attention": (True, False, None),
    "num_train_timesteps": (None, 1000),
}
_STAGE_READ: Final = (
    *_LEVELS,
    "latent_channels",
    "vq_embed_dim",
    "num_vq_embeddings",
    "mid_block_add_attention",
    "scaling_factor",
)
_STAGE_USUAL: Final[dict[str, tuple[object, ...]]] = {
    "act_fn": ("silu", "swish"),
    "norm_type": ("group",),
    "use_quant_conv": (True,),
    "use_post_quant_conv": (True,),
    "force_upcast": (True, False, None),
}


def unet_spec(config: Mapping[str, Any], *, where: str) -> UNetSpec:
    """Of a UNet2DModel or UNet2DConditionModel; `ModelFileError` names an option that our network does not have."""
    crossed = config.get("_class_name") == "UNet2DConditionModel"
    _check(config, read=_UNET_READ, usual=_UNET_USUAL, where=where)
    widths = _numbers(config, "block_out_channels", otherwise=(320, 640, 1280, 1280) if crossed else ())
    levels = _levels(config, count=len(widths), attending="CrossAttn" if crossed else "Attn", where=where)
    resampled = {config.get(name) or "conv" for name in ("downsample_type", "upsample_type")}
    if len(resampled) > 1:
        raise ModelFileError(f"{where}: halving and doubling in different ways is not supported")
    shifts, groups = config.get("resnet_time_scale_shift", "default"), config.get("norm_num_groups", 32)
    middle = "UNetMidBlock2DCrossAttn" if crossed else "UNetMidBlock2D"
    of_middle = {groups} if shifts == "scale_shift" else {None, groups}  # none: there its attention has no norm
    known: dict[str, tuple[set[Any], Any]] = {
        "downsample_type": ({"conv", "resnet"}, next(iter(resampled))),
        "resnet_time_scale_shift": ({"default", "scale_shift"}, shifts),
        "mid_block_type": ({middle}, config.get("mid_block_type", middle)),
    }
    if not crossed:
        known["attn_norm_num_groups"] = of_middle, config.get("attn_norm_num_groups")
    for name, (fits, value) in known.items():
        if value not in fits:
            raise ModelFileError(f"{where}: {name} {str(value)[:60]!r} is not supported")
    values: Plain = {
        "in_channels": config.get("in_channels", 4 if crossed else 3),
        "out_channels": config.get("out_channels", 4 if crossed else 3),
        "channels": widths[0] if widths else 0,
        "multipliers": _multipliers(widths, where=where),
        "blocks": config.get("layers_per_block", 2),
        "attention": [2**level for level, attends in enumerate(levels) if attends],
        "resample": "residual" if "resnet" in resampled else "conv",
        "scale_shift": shifts == "scale_shift",
        "norm_groups": groups,
        "dropout": config.get("dropout", 0.0),
    }
    if crossed:
        depth = _one(config.get("transformer_layers_per_block", 1), "transformer_layers_per_block", where=where)
        width = _one(config.get("cross_attention_dim", 1280), "cross_attention_dim", where=where)
        values |= {"transformer_depth": depth, "context_width": width, **_heads(config, widths, where=where)}
    else:
        each = config.get("attention_head_dim", 8)
        values |= {"heads": 1} if each is None else {"head_channels": each}
    return _parsed(UNetSpec, values, where=where)


def unet_config(spec: UNetSpec, *, size: int) -> Plain:
    """config.json of a U-Net of this spec; size: side of the latents."""
    odd = {
        "waves that tell attention where it is": spec.places != "none",
        "a factor on times": spec.time_scale != 1.0,
        "halving by pooling alone": spec.resample == "pool",
        "a first level of another width than its first convolution": spec.multipliers[0] != 1,
        "halving in residual blocks beside tokens": spec.resample == "residual" and spec.transformer_depth > 0,
        "spatial transformers without tokens": spec.transformer_depth > 0 and spec.context_width is None,
    }
    _refuse(odd, of="U-Net")
    attends = [2**level in spec.attention for level in range(len(spec.multipliers))]
    kind = "CrossAttn" if spec.transformer_depth else "Attn"
    widths = [spec.channels * each for each in spec.multipliers]
    config: Plain = {
        "_class_name": "UNet2DConditionModel" if spec.transformer_depth else "UNet2DModel",
        "sample_size": size,
        "in_channels": spec.in_channels,
        "out_channels": spec.out_channels,
        "block_out_channels": widths,
        "layers_per_block": spec.blocks,
        "down_block_types": [f"{kind if each else ''}DownBlock2D" for each in attends],
        "up_block_types": [f"{kind if each else ''}UpBlock2D" for each in reversed(attends)],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if spec.transformer_depth else "UNetMidBlock2D",
        "norm_num_groups": spec.norm_groups,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        "dropout": spec.dropout,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "downsample_padding": 1,
        "resnet_time_scale_shift": "scale_shift" if spec.scale_shift else "default",
    }
    if spec.transformer_depth:
        heads = [spec.heads_at(width) for width in widths]
        tokens = {"cross_attention_dim": spec.context_width, "transformer_layers_per_block": spec.transformer_depth}
        # a number of heads, whatever its name says
        return config | tokens | {"attention_head_dim": heads[0] if len(set(heads)) == 1 else heads}
    way = "resnet" if spec.resample == "residual" else "conv"
    groups = {"attn_norm_num_groups": spec.norm_groups} if spec.scale_shift else {}
    return (
        config
        | {"attention_head_dim": _head_width(spec, widths, attends), **groups}
        | {
            "downsample_type": way,
            "upsample_type": way,
        }
    )


def _head_width(spec: UNetSpec, widths: Sequence[int], attends: Sequence[bool]) -> int | None:
    """Channels of a head at all levels that attend and in the middle, None for one head."""
    if spec.head_channels is not None:
        return spec.head_channels
    if spec.heads in {None, 1}:
        return None
    found = {width // spec.heads_at(width) for width, each in zip(widths, attends, strict=True) if each}
    found.add(widths[-1] // spec.heads_at(widths[-1]))
    if len(found) > 1:
        raise ModelFileError(
            f"diffusers has no U-Net without tokens that has {spec.heads} heads at levels of different widths"
        )
    return found.pop()


def first_stage_spec(config: Mapping[str, Any], *, where: str) -> tuple[AutoencoderSpec, float]:
    """Of an AutoencoderKL or VQModel, and the factor on its latents; `ModelFileError` names what we do not have."""
    quantised = config.get("_class_name") == "VQModel"
    _check(config, read=_STAGE_READ, usual=_STAGE_USUAL, where=where)
    widths = _numbers(config, "block_out_channels", otherwise=(64,))
    levels = _levels(config, count=len(widths), attending="Attn", where=where)
    code = config.get("latent_channels", 3 if quantised else 4)
    latent = (config.get("vq_embed_dim") or code) if quantised else code
    if config.get("in_channels", 3) != config.get("out_channels", 3):
        raise ModelFileError(f"{where}: pictures of other channels out than in are not supported")
    values: Plain = {
        "image_channels": config.get("in_channels", 3),
        "channels": widths[0],
        "multipliers": _multipliers(widths, where=where),
        "blocks": config.get("layers_per_block", 1),
        "attention": [2**level for level, attends in enumerate(levels) if attends],
        "middle_attention": config.get("mid_block_add_attention", True),
        "latent_channels": latent,
        "code_channels": None if code == latent else code,
        "bottleneck": {"kind": "vq", "codes": config.get("num_vq_embeddings", 256)} if quantised else {"kind": "kl"},
        "norm_groups": config.get("norm_num_groups", 32),
    }
    return _parsed(AutoencoderSpec, values, where=where), float(config.get("scaling_factor", SCALE))


def first_stage_config(spec: AutoencoderSpec, *, size: int, scale: float) -> Plain:
    """config.json of a first stage of this spec; size: side of the pictures · scale: factor on its latents."""
    quantised = isinstance(spec.bottleneck, VQSpec)
    odd = {
        "a stem of squares": spec.stem != "conv",
        "a shortcut": spec.shortcut != "none",
        "a tiny decoder": spec.tiny is not None,
        "no bottleneck": not isinstance(spec.bottleneck, KLSpec | VQSpec),
        "a first level of another width than its first convolution": spec.multipliers[0] != 1,
        "codes of another width than latents, and no codebook": not quantised and spec.code_channels is not None,
    }
    _refuse(odd, of="first stage")
    attends = [2**level in spec.attention for level in range(len(spec.multipliers))]
    config: Plain = {
        "_class_name": "VQModel" if quantised else "AutoencoderKL",
        "sample_size": size,
        "in_channels": spec.image_channels,
        "out_channels": spec.image_channels,
        "block_out_channels": [spec.channels * each for each in spec.multipliers],
        "layers_per_block": spec.blocks,
        "down_block_types": [f"{'Attn' if each else ''}DownEncoderBlock2D" for each in attends],
        "up_block_types": [f"{'Attn' if each else ''}UpDecoderBlock2D" for each in reversed(attends)],
        "latent_channels": spec.code_channels or spec.latent_channels,
        "norm_num_groups": spec.norm_groups,
        "act_fn": "silu",
        "mid_block_add_attention": spec.middle_attention,
        "scaling_factor": scale,
    }
    if isinstance(spec.bottleneck, VQSpec):
        config |= {"num_vq_embeddings": spec.bottleneck.codes, "vq_embed_dim": spec.latent_channels}
    return config


def schedule_spec(config: Mapping[str, Any], *, where: str) -> tuple[ScheduleSpec, PredictionName]:
    """Noise levels and prediction of a scheduler's configuration; how it steps is not in them."""
    said = config.get("prediction_type", "epsilon")
    if said not in PREDICTIONS:
        raise ModelFileError(f"{where}: prediction_type {said!r} is unknown; {', '.join(PREDICTIONS)} fit")
    steps, terminal = config.get("num_train_timesteps", 1000), bool(config.get("rescale_betas_zero_snr", False))
    ramp = {"start": config.get("beta_start", 1e-4), "end": config.get("beta_end", 2e-2), "steps": steps}
    kind = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        powers: list[float] = []
        for beta in config["trained_betas"]:
            powers.append((powers[-1] if powers else 1.0) * (1 - float(beta)))
        return _parsed(TableSpec, {"powers": powers}, where=where), PREDICTIONS[said]
    match kind:
        case "scaled_linear":
            found = _parsed(LinearSpec, {**ramp, "zero_terminal_snr": terminal}, where=where)
        case "linear":
            found = _parsed(TrueLinearSpec, {**ramp, "zero_terminal_snr": terminal}, where=where)
        case "squaredcos_cap_v2":
            found = _parsed(CosineSpec, {"steps": steps, "zero_terminal_snr": terminal}, where=where)
        case _:
            raise ModelFileError(f"{where}: beta_schedule {str(kind)[:40]!r} is not supported")
    return found, PREDICTIONS[said]


def scheduler_config(schedule: ScheduleSpec, prediction: PredictionName) -> Plain:
    """scheduler_config.json of a DDIMScheduler with these noise levels, stepping as the original does."""
    words = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if prediction not in words:
        raise ModelFileError(f"diffusers has no DDIMScheduler for the prediction {prediction!r}")
    config: Plain = {
        "_class_name": "DDIMScheduler",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "prediction_type": words[prediction],
    }
    built = build_schedule(schedule)
    if not isinstance(built, DiscreteSchedule):
        raise ModelFileError(f"diffusers has no DDIMScheduler for the schedule {schedule.kind!r}")
    config["num_train_timesteps"] = built.steps
    match schedule:
        case LinearSpec() | TrueLinearSpec():
            kind = "scaled_linear" if isinstance(schedule, LinearSpec) else "linear"
            ramp = {"beta_schedule": kind, "beta_start": schedule.start, "beta_end": schedule.end}
            return config | ramp | {"rescale_betas_zero_snr": schedule.zero_terminal_snr}
        case CosineSpec() if math.isclose(schedule.s, 0.008):
            return config | {"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": schedule.zero_terminal_snr}
        case _:
            return config | {"trained_betas": built.betas.tolist()}


def _check(
    config: Mapping[str, Any], *, read: Sequence[str], usual: Mapping[str, tuple[object, ...]], where: str
) -> None:
    """`ModelFileError` for an option that is not read and is set to something."""
    for name, value in config.items():
        if name in read or name in _SETTINGS:
            continue
        fits = usual.get(name, (None, False))
        if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in fits):
            raise ModelFileError(f"{where}: {name} {str(value)[:60]!r} is not supported")


def _levels(config: Mapping[str, Any], *, count: int, attending: str, where: str) -> list[bool]:
    """Which levels attend; the way up must be the mirror of the way down. attending: how such types begin."""
    down, mirrored = list(config.get("down_block_types", ())), list(reversed(config.get("up_block_types", ())))
    if len(down) != count or len(mirrored) != count:
        raise ModelFileError(
            f"{where}: down_block_types and up_block_types must name {count} levels, as block_out_channels does"
        )
    for each, other in zip(down, mirrored, strict=True):
        if str(each).removeprefix(attending) not in {"DownBlock2D", "DownEncoderBlock2D"}:
            raise ModelFileError(f"{where}: a level of type {str(each)[:60]!r} is not supported")
        if str(other).replace("Decoder", "Encoder").replace("Up", "Down") != each:
            raise ModelFileError(f"{where}: levels {each!r} down and {str(other)[:60]!r} up do not mirror each other")
    return [str(each).startswith(attending) for each in down]


def _multipliers(widths: Sequence[int], *, where: str) -> list[int]:
    if not widths or widths[0] < 1 or any(width % widths[0] for width in widths):
        raise ModelFileError(f"{where}: block_out_channels {list(widths)} must be multiples of the first")
    return [width // widths[0] for width in widths]


def _heads(config: Mapping[str, Any], widths: Sequence[int], *, where: str) -> Plain:
    """Of a UNet2DConditionModel, whose `attention_head_dim` is a number of heads unless `num_attention_heads` is."""
    said = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
    heads = [said] * len(widths) if isinstance(said, int) else list(said)
    if len(heads) != len(widths) or not all(isinstance(each, int) and each > 0 for each in heads):
        raise ModelFileError(f"{where}: {str(said)[:60]} heads do not fit {len(widths)} levels")
    if len(set(heads)) == 1:
        return {"heads": heads[0]}
    each = {width // count for width, count in zip(widths, heads, strict=True)}
    if len(each) > 1:
        raise ModelFileError(f"{where}: heads {heads} are neither as many nor as wide at every level")
    return {"head_channels": each.pop()}


def _numbers(config: Mapping[str, Any], name: str, *, otherwise: Sequence[int]) -> list[int]:
    return [int(each) for each in config.get(name, otherwise)]


def _one(value: object, name: str, *, where: str) -> object:
    """The value of all levels."""
    if isinstance(value, list | tuple):
        if len({str(each) for each in value}) != 1:
            raise ModelFileError(f"{where}: {name} {str(value)[:60]} differs between levels, which is not supported")
        return value[0]
    return value


def _refuse(odd: Mapping[str, bool], *, of: str) -> None:
    for what, wrong in odd.items():
        if wrong:
            raise ModelFileError(f"diffusers has no {of} with {what}")


def _parsed(kind: Any, values: Plain, *, where: str) -> Any:
    try:
        return parse(kind, values, where=where)
    except SpecError as error:
        raise ModelFileError(str(error)) from None

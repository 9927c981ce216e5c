"""Configurations of diffusers' networks (config.json of a U-Net or first stage) <-> our specs; refused by name."""

from collections.abc import Container, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, FiniteFloat

from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.read_spec import parsed
from darkroom.core.errors import ModelFileError
from darkroom.core.spec import Spec
from darkroom.network.unet import UNetSpec

Plain = dict[str, Any]
S = TypeVar("S", bound=Spec)
UNETS: Final = ("UNet2DModel", "UNet2DConditionModel")
STAGES: Final = ("VQModel", "AutoencoderKL")
SCALE: Final = 0.18215  # what diffusers takes for the factor on latents where a file does not say it
MOST: Final = 2**20
_OLD_KINDS: Final = "UNetRes"  # how types of levels began in the first files
_AVERAGING: Final = (  # how an average came about, where diffusers' EMAModel wrote the file
    "decay",
    "min_decay",
    "optimization_step",
    "update_after_step",
    "use_ema_warmup",
    "inv_gamma",
    "power",
)
_SETTINGS: Final = ("sample_size", *_AVERAGING)  # and all that begins with _, which diffusers notes for itself
Count = Annotated[int, Field(gt=0, le=MOST)]
Levels = Annotated[tuple[Count, ...], Field(max_length=16)]
Types = Annotated[tuple[str, ...], Field(max_length=16)]


class _NetworkConfig(Spec):
    """What all of them have."""

    in_channels: Count = 3
    out_channels: Count = 3
    block_out_channels: Levels = ()
    layers_per_block: Count = 2
    down_block_types: Types = ()
    up_block_types: Types = ()
    norm_num_groups: Count = 32


class UNetConfig(_NetworkConfig):
    """What is read of a UNet2DModel or UNet2DConditionModel, with the former's defaults."""

    attention_head_dim: Count | Levels | None = 8
    num_attention_heads: Count | Levels | None = None
    cross_attention_dim: Count | Levels = 1280
    transformer_layers_per_block: Count | Levels = 1
    use_linear_projection: bool = False
    resnet_time_scale_shift: str = "default"
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    mid_block_type: str | None = None
    attn_norm_num_groups: Count | None = None
    dropout: float = 0.0
    num_class_embeds: Count | None = None


class FirstStageConfig(_NetworkConfig):
    """What is read of an AutoencoderKL or VQModel."""

    block_out_channels: Levels = (64,)
    layers_per_block: Count = 1
    latent_channels: Count | None = None
    vq_embed_dim: Count | None = None
    num_vq_embeddings: Annotated[int, Field(gt=1, le=MOST)] = 256
    mid_block_add_attention: bool = True
    scaling_factor: Annotated[FiniteFloat, Field(gt=0)] | None = None


_OF_CROSSED: Final[Plain] = {"in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280)}
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
    "addition_embed_type_num_heads": (64,),
}
_STAGE_USUAL: Final[dict[str, tuple[object, ...]]] = {
    "act_fn": ("silu", "swish"),
    "norm_type": ("group",),
    "use_quant_conv": (True,),
    "use_post_quant_conv": (True,),
    "force_upcast": (True, False, None),
    "shift_factor": (0, None),
}


def read_options(kind: type[S], config: Mapping[str, Any], *, where: str) -> S:
    """The options of `config` that `kind` has; `ModelFileError` by name."""
    return parsed(kind, {name: value for name, value in config.items() if name in kind.model_fields}, where=where)


def check_options(came: Mapping[str, Any], fits: Mapping[str, Any], *, where: str) -> None:
    """`ModelFileError` names the first option that is not what fits."""
    for name, value in came.items():
        if value != fits[name]:
            raise ModelFileError(f"{where}: {name} {str(value)[:60]!r} is not supported, {str(fits[name])!r} is")


def side(config: Mapping[str, Any]) -> int | None:
    """The `sample_size`, where it is one side of squares."""
    match config.get("sample_size"):
        case bool():
            return None
        case int(one) if 0 < one <= MOST:
            return one
        case [int(one), int(other)] if one == other and 0 < one <= MOST:
            return one
        case _:
            return None


def unet_spec(config: Mapping[str, Any], *, where: str) -> UNetSpec:
    """Of a UNet2DModel or UNet2DConditionModel; `ModelFileError` names an option that our network does not have."""
    crossed = config.get("_class_name") == "UNet2DConditionModel"
    _check(config, read=UNetConfig.model_fields, usual=_UNET_USUAL, where=where)
    found = read_options(UNetConfig, (_OF_CROSSED if crossed else {}) | _without_empty(config), where=where)
    widths = found.block_out_channels
    levels = _levels(found, attending="CrossAttn" if crossed else "Attn", where=where)
    _check_kinds(found, crossed=crossed, where=where)
    values: Plain = {
        "in_channels": found.in_channels,
        "out_channels": found.out_channels,
        "channels": widths[0] if widths else 0,
        "multipliers": _multipliers(widths, where=where),
        "blocks": found.layers_per_block,
        "attention": [2**level for level, attends in enumerate(levels) if attends],
        "resample": "residual" if found.downsample_type == "resnet" else "conv",
        "scale_shift": found.resnet_time_scale_shift == "scale_shift",
        "norm_groups": found.norm_num_groups,
        "dropout": found.dropout,
    }
    if crossed:
        depth = _one(found.transformer_layers_per_block, "transformer_layers_per_block", where=where)
        width = _one(found.cross_attention_dim, "cross_attention_dim", where=where)
        values |= {"transformer_depth": depth, "context_width": width, **_heads(found, where=where)}
    else:
        each = found.attention_head_dim
        values |= {"heads": 1} if each is None else {"head_channels": each}
    return parsed(UNetSpec, values, where=where)


def _without_empty(config: Mapping[str, Any]) -> Plain:
    """Ways of halving and doubling that are null are those of old."""
    return {name: value for name, value in config.items() if value is not None or not name.endswith("sample_type")}


def _check_kinds(found: UNetConfig, *, crossed: bool, where: str) -> None:
    """`ModelFileError` for a kind of block, norm or middle that our network does not have."""
    if found.downsample_type != found.upsample_type:
        raise ModelFileError(f"{where}: halving and doubling in different ways is not supported")
    shifts, groups = found.resnet_time_scale_shift, found.norm_num_groups
    middle = "UNetMidBlock2DCrossAttn" if crossed else "UNetMidBlock2D"
    of_middle = {groups} if shifts == "scale_shift" else {None, groups}  # none: there its attention has no norm
    known: dict[str, tuple[set[Any], Any]] = {
        "downsample_type": ({"conv", "resnet"}, found.downsample_type),
        "resnet_time_scale_shift": ({"default", "scale_shift"}, shifts),
        "mid_block_type": ({middle}, found.mid_block_type or middle),
    }
    if not crossed:
        known["attn_norm_num_groups"] = of_middle, found.attn_norm_num_groups
    for name, (fits, value) in known.items():
        if value not in fits:
            raise ModelFileError(f"{where}: {name} {str(value)[:60]!r} is not supported")


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
    """Of an AutoencoderKL or VQModel, and the factor on its latents; `ModelFileError` names what we do not have.

    A VQModel that says no factor has 1: the 0.18215 that diffusers takes there is that of one KL model, and models with
    a codebook were published, and trained, without any.
    """
    quantised = config.get("_class_name") == "VQModel"
    _check(config, read=FirstStageConfig.model_fields, usual=_STAGE_USUAL, where=where)
    found = read_options(FirstStageConfig, config, where=where)
    widths = found.block_out_channels
    levels = _levels(found, attending="Attn", where=where)
    code = found.latent_channels or (3 if quantised else 4)
    latent = (found.vq_embed_dim or code) if quantised else code
    if found.in_channels != found.out_channels:
        raise ModelFileError(f"{where}: pictures of other channels out than in are not supported")
    values: Plain = {
        "image_channels": found.in_channels,
        "channels": widths[0] if widths else 0,
        "multipliers": _multipliers(widths, where=where),
        "blocks": found.layers_per_block,
        "attention": [2**level for level, attends in enumerate(levels) if attends],
        "middle_attention": found.mid_block_add_attention,
        "latent_channels": latent,
        "code_channels": None if code == latent else code,
        "bottleneck": {"kind": "vq", "codes": found.num_vq_embeddings} if quantised else {"kind": "kl"},
        "norm_groups": found.norm_num_groups,
    }
    return parsed(AutoencoderSpec, values, where=where), found.scaling_factor or (1.0 if quantised else SCALE)


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


def _check(
    config: Mapping[str, Any], *, read: Container[str], usual: Mapping[str, tuple[object, ...]], where: str
) -> None:
    """`ModelFileError` for an option that is not read and is set to something."""
    for name, value in config.items():
        if name in read or name in _SETTINGS or name.startswith("_"):
            continue
        fits = usual.get(name, (None, False))
        if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in fits):
            raise ModelFileError(f"{where}: {name} {str(value)[:60]!r} is not supported")


def _levels(found: _NetworkConfig, *, attending: str, where: str) -> list[bool]:
    """Which levels attend; the way up must be the mirror of the way down. attending: how such types begin."""
    down = [each.removeprefix(_OLD_KINDS) for each in found.down_block_types]
    mirrored = [each.removeprefix(_OLD_KINDS) for each in reversed(found.up_block_types)]
    count = len(found.block_out_channels)
    if len(down) != count or len(mirrored) != count:
        raise ModelFileError(
            f"{where}: down_block_types and up_block_types must name {count} levels, as block_out_channels does"
        )
    for each, other in zip(down, mirrored, strict=True):
        if each.removeprefix(attending) not in {"DownBlock2D", "DownEncoderBlock2D"}:
            raise ModelFileError(f"{where}: a level of type {each[:60]!r} is not supported")
        if other.replace("Decoder", "Encoder").replace("Up", "Down") != each:
            raise ModelFileError(f"{where}: levels {each!r} down and {other[:60]!r} up do not mirror each other")
    return [each.startswith(attending) for each in down]


def _multipliers(widths: Sequence[int], *, where: str) -> list[int]:
    if not widths or widths[0] < 1 or any(width % widths[0] for width in widths):
        raise ModelFileError(f"{where}: block_out_channels {list(widths)} must be multiples of the first")
    return [width // widths[0] for width in widths]


def _heads(found: UNetConfig, *, where: str) -> Plain:
    """Of a UNet2DConditionModel, whose `attention_head_dim` is a number of heads unless `num_attention_heads` is."""
    widths, said = found.block_out_channels, found.num_attention_heads or found.attention_head_dim or 8
    heads = (said,) * len(widths) if isinstance(said, int) else said
    if len(heads) != len(widths):
        raise ModelFileError(f"{where}: {str(said)[:60]} heads do not fit {len(widths)} levels")
    if len(set(heads)) == 1:
        return {"heads": heads[0]}
    each = {width // count for width, count in zip(widths, heads, strict=True)}
    if len(each) > 1:
        raise ModelFileError(f"{where}: heads {list(heads)} are neither as many nor as wide at every level")
    return {"head_channels": each.pop()}


def _one(value: int | Sequence[int], name: str, *, where: str) -> int:
    """The value of all levels."""
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise ModelFileError(f"{where}: {name} {str(list(value))[:60]} differs between levels, which is not supported")
    return value[0]


def _refuse(odd: Mapping[str, bool], *, of: str) -> None:
    for what, wrong in odd.items():
        if wrong:
            raise ModelFileError(f"diffusers has no {of} with {what}")

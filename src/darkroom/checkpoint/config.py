"""Original YAML files as typed values. A `target:` is compared with a closed list of words and never imported."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Field

from darkroom.checkpoint.header import refuse_other_than_files
from darkroom.checkpoint.read_spec import parsed
from darkroom.core.errors import ModelFileError, NotYetError, SpecError, did_you_mean
from darkroom.core.spec import Spec, parse_yaml

CONFIG_LIMIT = 2**17  # bytes; reading YAML takes a thousand times its size
MOST_VALUES = 10_000  # with every alias written out
Count = Annotated[int, Field(gt=0)]
LATER = {
    "ldm.models.diffusion.ddpm.LatentUpscaleDiffusion": "the upscaling variant",
    "ldm.models.diffusion.ddpm.LatentUpscaleFinetuneDiffusion": "the upscaling variant",
    "ldm.models.diffusion.ddpm.LatentInpaintDiffusion": "the Stable Diffusion inpainting variant",
    "ldm.models.diffusion.ddpm.LatentFinetuneDiffusion": "the fine-tuning variant",
    "ldm.models.diffusion.ddpm.LatentDepth2ImageDiffusion": "the depth variant of Stable Diffusion 2",
    "ldm.models.diffusion.ddpm.DDPM": "pixel diffusion without a first stage",
    "ldm.models.diffusion.ddpm.Layout2ImgDiffusion": "the plotting variant; rename it to LatentDiffusion",
    "ldm.modules.encoders.modules.FrozenCLIPTextEmbedder": "the CLIP text encoder",
    "ldm.modules.encoders.modules.FrozenClipImageEmbedder": "the CLIP image encoder",
    "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder": "the OpenCLIP text encoder of Stable Diffusion 2",
    "sgm.models.diffusion.DiffusionEngine": "Stable Diffusion XL and what came after it",
}


class CoderParams(Spec):
    """`ddconfig`: encoder and decoder."""

    ch: int
    out_ch: int
    in_channels: int
    resolution: int = Field(gt=0)
    z_channels: int
    ch_mult: tuple[int, ...] = (1, 2, 4, 8)
    num_res_blocks: int
    attn_resolutions: tuple[int, ...] = ()
    dropout: float = 0.0
    double_z: bool = True
    attn_type: Literal["vanilla", "vanilla-xformers", "none", "linear"] = "vanilla"
    use_linear_attn: bool = False
    resamp_with_conv: bool = True
    give_pre_end: bool = False
    tanh_out: bool = False
    use_timestep: bool = False


class FirstStageParams(Spec):
    """AutoencoderKL, VQModel and VQModelInterface; what only trains is let through."""

    embed_dim: int
    ddconfig: CoderParams
    n_embed: int | None = None
    remap: Any = None
    lossconfig: Any = None
    monitor: Any = None
    image_key: Any = None
    ckpt_path: Any = None
    ignore_keys: Any = None
    colorize_nlabels: Any = None
    batch_resize_range: Any = None
    scheduler_config: Any = None
    lr_g_factor: Any = None
    sane_index_shape: Any = None
    use_ema: bool = False


class UNetParams(Spec):
    """`openaimodel.UNetModel`, with the defaults of its last version; what Stability's added to it, at its defaults."""

    image_size: Any = None
    in_channels: int
    model_channels: int
    out_channels: int
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    dropout: float = 0.0
    channel_mult: tuple[int, ...] = (1, 2, 4, 8)
    conv_resample: bool = True
    dims: int = 2
    num_classes: Count | None = None
    use_checkpoint: bool = False
    use_fp16: bool = False
    num_heads: int = -1
    num_head_channels: int = -1
    num_heads_upsample: int = -1
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    use_spatial_transformer: bool = False
    transformer_depth: int = 1
    context_dim: int | tuple[int, ...] | None = None
    n_embed: int | None = None
    legacy: bool = True
    use_bf16: Any = None
    use_linear_in_transformer: Literal[False] = False
    disable_self_attentions: None = None
    disable_middle_self_attn: Literal[False] = False
    num_attention_blocks: None = None
    adm_in_channels: None = None


class Target(Spec):
    """A class by name and what it is given."""

    target: str
    params: dict[str, Any] = Field(default_factory=dict)


class DiffusionParams(Spec):
    """LatentDiffusion; what only trains or logs is let through."""

    first_stage_config: Target
    unet_config: Target
    cond_stage_config: Target | str
    image_size: int | tuple[int, ...] = 256
    channels: Count = 3
    timesteps: int = Field(default=1000, ge=1, le=1_000_000)
    beta_schedule: Literal["linear", "cosine", "sqrt_linear", "sqrt"] = "linear"
    linear_start: float = 1e-4
    linear_end: float = 2e-2
    cosine_s: float = 8e-3
    given_betas: Any = None
    parameterization: Literal["eps", "x0", "v"] = "eps"
    loss_type: Literal["l1", "l2"] = "l2"
    original_elbo_weight: float = 0.0
    l_simple_weight: float = 1.0
    learn_logvar: bool = False
    logvar_init: float = 0.0
    v_posterior: float = 0.0
    scale_factor: float = 1.0
    scale_by_std: bool = False
    use_ema: bool = True
    conditioning_key: Literal["concat", "crossattn", "hybrid", "adm"] | None = None
    concat_mode: bool = True
    cond_stage_key: Any = "image"
    first_stage_key: Any = "image"
    clip_denoised: Any = None
    monitor: Any = None
    log_every_t: Any = None
    num_timesteps_cond: Any = None
    cond_stage_trainable: Any = None
    cond_stage_forward: Any = None
    scheduler_config: Any = None
    ckpt_path: Any = None
    ignore_keys: Any = None
    load_only_unet: Any = None
    use_positional_encodings: Any = None
    ucg_training: Any = None
    make_it_fit: Any = None
    reset_ema: Any = None
    reset_num_ema_updates: Any = None
    unet_trainable: Any = None


class ClassParams(Spec):
    """ClassEmbedder."""

    embed_dim: Count
    n_classes: Count = 1000
    key: Any = "class"


class SequenceParams(Spec):
    """BERTEmbedder and TransformerEmbedder."""

    n_embed: Count
    n_layer: Count
    vocab_size: Count = 30522
    max_seq_len: Count = 77
    use_tokenizer: bool = True
    device: Any = None
    embedding_dropout: Any = None


class ClipParams(Spec):
    """FrozenCLIPEmbedder, as Stable Diffusion 1 and its descendants have it."""

    version: Literal["openai/clip-vit-large-patch14"] = "openai/clip-vit-large-patch14"
    max_length: Literal[77] = 77
    layer: Literal["last"] = "last"
    layer_idx: None = None
    device: Any = None
    freeze: Any = None


class RescalerParams(Spec):
    """SpatialRescaler."""

    n_stages: int = Field(default=1, ge=0)
    method: str = "bilinear"
    multiplier: float = 0.5
    in_channels: Count = 3
    out_channels: Count | None = None
    bias: bool = False


def refuse_target(target: str, *, known: Iterable[str], where: str) -> NoReturn:
    """`NotYetError` for a class that is planned, `ModelFileError` for one that is not known."""
    if target in LATER:
        raise NotYetError(f"{where}: {target} ({LATER[target]}) is not read yet")
    raise ModelFileError(f"{where}: unknown target {target[:100]!r}{did_you_mean(target, known)}")


def read_config(path: Path) -> Target:
    """The `model:` of an original YAML file; `ModelFileError` when it is missing, too large or of another kind."""
    refuse_other_than_files(path)
    try:
        if path.stat().st_size > CONFIG_LIMIT:
            raise ModelFileError(f"{path}: too large for a configuration")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such configuration") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: cannot be read as YAML ({error})") from None
    try:
        data = parse_yaml(text, where=str(path), most=MOST_VALUES)
    except SpecError as error:
        raise ModelFileError(str(error)) from None
    model = data.get("model") if isinstance(data, Mapping) else None
    if not isinstance(model, Mapping):
        raise ModelFileError(f"{path}: not an original configuration, it has no 'model:' with a 'target:'")
    kept = {key: value for key, value in model.items() if key != "base_learning_rate"}
    return parsed(Target, kept, where=f"{path}, model")

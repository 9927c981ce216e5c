"""The configurations of the published checkpoints: nine first stages and fifteen models, sizes as published."""

from typing import Any

AUTOENCODER = "ldm.models.autoencoder."
ENCODERS = "ldm.modules.encoders.modules."
UNET = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
IDENTITY = {"target": "torch.nn.Identity"}


def stage(latent: int, multipliers: list[int], *, codes: int | None = None, **coder: Any) -> dict[str, Any]:
    """A first stage of 256 px."""
    values = {
        "double_z": codes is None,
        "z_channels": latent,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": multipliers,
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
        **coder,
    }
    params = {"embed_dim": latent, "ddconfig": values, "lossconfig": IDENTITY}
    if codes is None:
        return {"target": f"{AUTOENCODER}AutoencoderKL", "params": params}
    return {"target": f"{AUTOENCODER}VQModel", "params": {**params, "n_embed": codes}}


FIRST_STAGES: dict[str, dict[str, Any]] = {
    "kl-f4": stage(3, [1, 2, 4]),
    "kl-f8": stage(4, [1, 2, 4, 4]),
    "kl-f16": stage(16, [1, 1, 2, 2, 4], attn_resolutions=[16]),
    "kl-f32": stage(64, [1, 1, 2, 2, 4, 4], attn_resolutions=[16, 8]),
    "vq-f4": stage(3, [1, 2, 4], codes=8192),
    "vq-f4-noattn": stage(3, [1, 2, 4], codes=8192, attn_type="none"),
    "vq-f8": stage(4, [1, 2, 2, 4], codes=16384, attn_resolutions=[32]),
    "vq-f8-n256": stage(4, [1, 2, 2, 4], codes=256, attn_resolutions=[32]),
    "vq-f16": stage(8, [1, 1, 2, 2, 4], codes=16384, attn_resolutions=[16]),
}


def inside(name: str) -> dict[str, Any]:
    """A first stage as it stands in the YAML of a whole model."""
    config = FIRST_STAGES[name]
    family = config["target"].removesuffix("VQModel")
    return config if family == config["target"] else {**config, "target": f"{family}VQModelInterface"}


def unet(width: int, multipliers: list[int], attention: list[int], **rest: Any) -> dict[str, Any]:
    sizes = {"model_channels": width, "channel_mult": multipliers, "attention_resolutions": attention}
    return {"num_res_blocks": 2, **sizes, **rest}


def model(
    first: str, network: dict[str, Any], conditioner: Any = "__is_unconditional__", **params: Any
) -> dict[str, Any]:
    """A latent diffusion model: latents of its first stage, a thousand steps."""
    latent = inside(first)["params"]["embed_dim"]
    channels = {"in_channels": latent, "out_channels": latent, "image_size": params["image_size"]}
    values = {
        "linear_start": 0.0015,
        "linear_end": 0.0195,
        "timesteps": 1000,
        "channels": latent,
        "cond_stage_key": "class_label",
        "monitor": "val/loss_simple_ema",
        **params,
        "unet_config": {"target": UNET, "params": {**channels, **network}},
        "first_stage_config": inside(first),
        "cond_stage_config": conditioner,
    }
    return {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": values}


def encoder(name: str, **params: Any) -> dict[str, Any]:
    return {"target": ENCODERS + name, "params": params}


def tokens(width: int, *, depth: int = 1) -> dict[str, Any]:
    return {"use_spatial_transformer": True, "transformer_depth": depth, "context_dim": width}


FACES = unet(224, [1, 2, 3, 4], [8, 4, 2], num_head_channels=32)
BY_TOKENS = {"conditioning_key": "crossattn"}
BESIDE = {"conditioning_key": "concat", "concat_mode": True}
MAPS = unet(128, [1, 4, 8], [32, 16, 8], num_heads=8, in_channels=6)
RESCALER = encoder("SpatialRescaler", n_stages=2, in_channels=182, out_channels=3)
SEMANTIC = {**BESIDE, "linear_end": 0.0205, "loss_type": "l1", "cond_stage_key": "segmentation"}
MODELS: dict[str, dict[str, Any]] = {
    "celeba256": model("vq-f4", FACES, image_size=64),
    "ffhq256": model("vq-f4", FACES, image_size=64),
    "lsun_beds256": model("vq-f4", FACES, image_size=64),
    "lsun_churches256": model(
        "kl-f8",
        unet(192, [1, 2, 2, 4, 4], [1, 2, 4, 8], num_heads=8, use_scale_shift_norm=True, resblock_updown=True),
        image_size=32,
        linear_end=0.0155,
        loss_type="l1",
        scale_by_std=True,
    ),
    "cin256": model(
        "vq-f8",
        unet(256, [1, 2, 4], [4, 2, 1], num_head_channels=32, **tokens(512)),
        encoder("ClassEmbedder", embed_dim=512, key="class_label"),
        image_size=32,
        **BY_TOKENS,
    ),
    "cin256-v2": model(
        "vq-f4",
        unet(192, [1, 2, 3, 5], [8, 4, 2], num_heads=1, **tokens(512)),
        encoder("ClassEmbedder", embed_dim=512, n_classes=1001, key="class_label"),
        image_size=64,
        use_ema=False,
        **BY_TOKENS,
    ),
    "text2img256": model(
        "vq-f4",
        unet(192, [1, 2, 3, 5], [8, 4, 2], num_head_channels=32, **tokens(640)),
        encoder("BERTEmbedder", n_embed=640, n_layer=32),
        image_size=64,
        **{**BY_TOKENS, "cond_stage_key": "caption"},
    ),
    "txt2img-1p4b": model(
        "kl-f8",
        unet(320, [1, 2, 4, 4], [4, 2, 1], num_heads=8, legacy=False, use_checkpoint=True, **tokens(1280)),
        encoder("BERTEmbedder", n_embed=1280, n_layer=32),
        image_size=32,
        **{**BY_TOKENS, "cond_stage_key": "caption", "linear_start": 0.00085, "linear_end": 0.012},
        scale_factor=0.18215,
        use_ema=False,
    ),
    "layout2img-openimages256": model(
        "vq-f4",
        unet(128, [1, 2, 3, 4], [8, 4, 2], num_head_channels=32, **tokens(512, depth=3)),
        encoder("BERTEmbedder", n_embed=512, n_layer=16, vocab_size=8192, max_seq_len=92, use_tokenizer=False),
        image_size=64,
        **{**BY_TOKENS, "cond_stage_key": "coordinates_bbox", "linear_end": 0.0205, "loss_type": "l1"},
    ),
    "semantic_synthesis256": model("vq-f4", MAPS, RESCALER, image_size=64, **SEMANTIC),
    "semantic_synthesis512": model("vq-f4", MAPS, RESCALER, image_size=128, **SEMANTIC),
    "bsr_sr": model(
        "vq-f4",
        unet(160, [1, 2, 2, 4], [16, 8], num_head_channels=32, in_channels=6),
        IDENTITY,
        image_size=64,
        **{**BESIDE, "cond_stage_key": "LR_image", "linear_end": 0.0155},
    ),
    "inpainting_big": model(
        "vq-f4-noattn",
        unet(256, [1, 2, 3, 4], [8, 4, 2], num_heads=8, resblock_updown=True, in_channels=7),
        "__is_first_stage__",
        image_size=64,
        **{**BESIDE, "cond_stage_key": "masked_image", "linear_end": 0.0205, "loss_type": "l1"},
    ),
    "rdm768": model(
        "kl-f16",
        unet(448, [1, 2, 3, 4], [4, 2, 1], num_head_channels=32, use_checkpoint=True, **tokens(768)),
        IDENTITY,
        image_size=48,
        **{**BY_TOKENS, "linear_end": 0.015},
        scale_factor=0.22765929,
    ),
}
DESCENDANTS: dict[str, dict[str, Any]] = {  # not of the paper, so there is no recipe for them
    "stable-diffusion-v1": model(
        "kl-f8",
        unet(320, [1, 2, 4, 4], [4, 2, 1], num_heads=8, legacy=False, use_checkpoint=True, **tokens(768)),
        {"target": f"{ENCODERS}FrozenCLIPEmbedder"},
        image_size=64,
        **{**BY_TOKENS, "cond_stage_key": "txt", "linear_start": 0.00085, "linear_end": 0.012},
        cond_stage_trainable=False,
        scale_factor=0.18215,
        use_ema=False,
    ),
}

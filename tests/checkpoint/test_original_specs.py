"""Original configurations: what they mean in our specs, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest

from darkroom.autoencoder.bottleneck import VQSpec
from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.config import read_config
from darkroom.core.errors import ModelFileError, NotYetError
from darkroom.diffusion.model import ModelSpec
from originals import BERT, CLASSES, CONFIGS, ENCODERS, IDENTITY, KL, RESCALER, SPATIAL, config, described, written


def test_what_guides_and_what_cannot(tmp_path: Path) -> None:
    def conditioner(model: dict[str, Any]) -> Any:
        spec = described(tmp_path, model).spec
        assert isinstance(spec, ModelSpec)
        return spec.conditioners[0]

    null = {**CLASSES, "params": {"n_classes": 1001, "embed_dim": 24}}
    found = conditioner(config(null, unet=SPATIAL, concat_mode=False))
    assert (found.classes, found.null) == (1000, 1000)
    assert found.drop > 0
    found = conditioner(CONFIGS["class"][0])
    assert (found.classes, found.null, found.drop) == (10, None, 0)
    assert conditioner(CONFIGS["text"][0]).drop > 0
    assert conditioner(CONFIGS["layout"][0]).empty == 29
    assert conditioner(CONFIGS["layout"][0]).drop == 0


def test_heads_follow_the_last_version_of_the_original(tmp_path: Path) -> None:
    def heads(width: int = 64, **unet: Any) -> int:
        spec = described(tmp_path, config(unet=unet)).spec
        assert isinstance(spec, ModelSpec)
        return spec.network.heads_at(width)

    assert heads(num_heads=2) == 2
    assert heads(num_heads=-1, num_head_channels=16) == 4
    assert heads(num_heads=8, num_head_channels=16) == 4
    assert heads(num_heads=4, legacy=False) == 4
    assert heads(num_head_channels=16, legacy=False, **SPATIAL) == 4
    assert heads(num_heads=4, num_heads_upsample=2, legacy=False) == 4
    assert heads(num_heads=4, num_heads_upsample=2, **SPATIAL) == 4


def test_first_stages(tmp_path: Path) -> None:
    coder = {**KL["params"]["ddconfig"], "double_z": False, "z_channels": 8, "ch_mult": [1, 2, 2]}
    coder |= {"resolution": 64, "attn_resolutions": [32, 16, 7]}
    params = {"embed_dim": 3, "n_embed": 64, "ddconfig": coder, "lossconfig": None}
    for name in ("VQModel", "VQModelInterface"):
        found = described(tmp_path, {"target": f"ldm.models.autoencoder.{name}", "params": params})
        assert found.spec == AutoencoderSpec(
            channels=32,
            multipliers=(1, 2, 2),
            blocks=1,
            attention=(2, 4),
            latent_channels=3,
            code_channels=8,
            bottleneck=VQSpec(codes=64, beta=0.25, commitment="legacy"),
        )
    bare = {**params, "ddconfig": {**coder, "attn_type": "none"}}
    spec = described(tmp_path, {"target": "ldm.models.autoencoder.VQModel", "params": bare}).spec
    assert isinstance(spec, AutoencoderSpec)
    assert (spec.attention, spec.middle_attention) == ((), False)


PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "cin256": (
        {"model_channels": 256, "channel_mult": [1, 2, 4], "attention_resolutions": [4, 2, 1], "context_dim": 512},
        {"channels": 4, "image_size": 32, "cond_stage_key": "class_label"},
        {"target": f"{ENCODERS}ClassEmbedder", "params": {"embed_dim": 512, "key": "class_label"}},
    ),
    "text2img256": (
        {"model_channels": 192, "channel_mult": [1, 2, 3, 5], "attention_resolutions": [8, 4, 2], "context_dim": 640},
        {"channels": 3, "image_size": 64, "cond_stage_key": "caption"},
        {"target": f"{ENCODERS}BERTEmbedder", "params": {"n_embed": 640, "n_layer": 32}},
    ),
    "layout2img-openimages256": (
        {
            "model_channels": 128,
            "channel_mult": [1, 2, 3, 4],
            "attention_resolutions": [8, 4, 2],
            "context_dim": 512,
            "transformer_depth": 3,
        },
        {"channels": 3, "image_size": 64, "cond_stage_key": "coordinates_bbox"},
        {
            "target": f"{ENCODERS}BERTEmbedder",
            "params": {
                "n_embed": 512,
                "n_layer": 16,
                "vocab_size": 8192,
                "max_seq_len": 92,
                "use_tokenizer": False,
            },
        },
    ),
}


def published(name: str, **unet: Any) -> dict[str, Any]:
    sizes, params, conditioner = PUBLISHED[name]
    latent = params["channels"]
    coder = {**KL["params"]["ddconfig"], "double_z": False, "z_channels": latent, "resolution": 256, "ch": 128}
    deep = {"ch_mult": [1, 2, 2, 4], "attn_resolutions": [32]}
    coder |= {"num_res_blocks": 2, **(deep if latent == 4 else {"ch_mult": [1, 2, 4]})}
    values = {"embed_dim": latent, "n_embed": 16384 if latent == 4 else 8192, "ddconfig": coder}
    first = {"target": "ldm.models.autoencoder.VQModelInterface", "params": values}
    network = {"in_channels": latent, "out_channels": latent, "num_res_blocks": 2, "use_spatial_transformer": True}
    heads = {"num_heads": -1, "num_head_channels": 32}
    rest = {"conditioning_key": "crossattn", "timesteps": 1000, **params}
    return config(conditioner, unet={**network, **heads, **sizes, **unet}, first=first, **rest)


@pytest.mark.parametrize("name", PUBLISHED)
def test_three_published_configurations_have_one_head(tmp_path: Path, name: str) -> None:
    found = described(tmp_path, published(name))
    assert isinstance(found.spec, ModelSpec)
    assert (found.spec.network.heads, found.spec.network.head_channels) == (1, None)
    assert any("one head" in sentence for sentence in found.odd)
    changes: list[dict[str, Any]] = [{"num_res_blocks": 1}, {"channel_mult": [1, 2]}, {"use_scale_shift_norm": True}]
    for change in changes:
        other = described(tmp_path, published(name, **change)).spec
        assert isinstance(other, ModelSpec)
        assert (other.network.heads, other.network.head_channels) == (None, 32), change
    smaller = published(name)
    smaller["params"]["first_stage_config"]["params"]["n_embed"] = 512
    assert described(tmp_path, smaller).spec.network.head_channels == 32
    elsewhere = published(name)
    elsewhere["params"]["image_size"] = 16
    assert described(tmp_path, elsewhere).spec.network.head_channels == 32


def vq(**params: Any) -> dict[str, Any]:
    coder = {**KL["params"]["ddconfig"], "double_z": False}
    return {"target": "ldm.models.autoencoder.VQModel", "params": {"embed_dim": 4, "ddconfig": coder, **params}}


def kl(**coder: Any) -> dict[str, Any]:
    params = {**KL["params"], "ddconfig": {**KL["params"]["ddconfig"], **coder}}
    return {**KL, "params": params}


def embedder(name: str, **params: Any) -> dict[str, Any]:
    return {"target": f"{ENCODERS}{name}", "params": params}


def crossed(name: str, **params: Any) -> dict[str, Any]:
    return config(embedder(name, **params), unet=SPATIAL, concat_mode=False)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "target": ({"target": "os.system", "params": {}}, "unknown target 'os.system'"),
    "near-target": ({**KL, "target": "ldm.models.autoencoder.AutoEncoderKL"}, "did you mean"),
    "no-params": ({"target": "ldm.models.diffusion.ddpm.LatentDiffusion"}, "missing"),
    "option": (config(timestep=5), "did you mean 'timesteps'"),
    "unet-option": (config(unet={"num_head": 5}), "did you mean 'num_heads'"),
    "dims": (config(unet={"dims": 3}), "dims 3"),
    "n_embed": (config(unet={"n_embed": 64}), "n_embed 64"),
    "no-heads": (config(unet={"num_heads": -1}), "num_heads -1"),
    "upsample": (config(unet={"num_heads_upsample": 2}), "num_heads_upsample 2"),
    "context": (config(unet={"context_dim": 24}), "context_dim 24"),
    "contexts": (config(unet={**SPATIAL, "context_dim": [24, 32]}), "context_dim"),
    "divide": (config(unet={"num_heads": 5}), "do not divide"),
    "groups": (config(unet={"model_channels": 20}), "norm_groups"),
    "depth": (config(unet={**SPATIAL, "transformer_depth": 0}), "transformer_depth 0"),
    "num_classes": (config(unet={"num_classes": 5}), "num_classes 5"),
    "v_posterior": (config(v_posterior=0.1), "v_posterior"),
    "betas": (config(given_betas=[0.1]), "given_betas"),
    "schedule": (config(beta_schedule="spline"), "beta_schedule"),
    "steps": (config(timesteps=10**9), "timesteps"),
    "learnt": (config(parameterization="v", original_elbo_weight=1.0), "variational"),
    "tokens-planes": (config(RESCALER, unet=SPATIAL, concat_mode=False), "cannot enter by cross-attention"),
    "planes-tokens": (config(CLASSES), "cannot enter by concatenation"),
    "planes": (config(RESCALER, unet={"in_channels": 9}), "in_channels"),
    "rescaler": (config(embedder("SpatialRescaler", method="area", out_channels=2)), "method 'area'"),
    "no-mapping": (config(embedder("SpatialRescaler")), "without out_channels"),
    "width": (config(BERT, unet={**SPATIAL, "context_dim": 32}, concat_mode=False), "width 24"),
    "encoder": (config(embedder("Unheard"), unet=SPATIAL, concat_mode=False), "unknown target"),
    "unet": (config() | {"params": {**config()["params"], "unet_config": IDENTITY}}, "unknown target"),
    "first": (config(first=IDENTITY), "unknown target"),
    "double": (kl(double_z=False), "double_z False"),
    "linear": (kl(attn_type="linear"), "attn_type 'linear'"),
    "tanh": (kl(tanh_out=True), "tanh_out True"),
    "channels": (kl(out_ch=1), "out_ch 1"),
    "odd-levels": (kl(resolution=17, ch_mult=[1, 1], attn_resolutions=[17]), "different levels"),
    "codebook": (vq(), "n_embed"),
    "one-code": (vq(n_embed=1), "codes"),
    "no-classes": (crossed("ClassEmbedder", n_classes=0, embed_dim=24), "'n_classes'"),
    "no-embedding": (crossed("ClassEmbedder", embed_dim=-1), "'embed_dim'"),
    "no-layers": (crossed("BERTEmbedder", n_embed=24, n_layer=0), "'n_layer'"),
    "no-words": (crossed("BERTEmbedder", n_embed=24, n_layer=1, vocab_size=0), "'vocab_size'"),
    "stages": (config(embedder("SpatialRescaler", n_stages=-1, out_channels=2)), "'n_stages'"),
    "no-labels": (config(IDENTITY, unet={"num_classes": 0}, conditioning_key="adm"), "'num_classes'"),
    "no-channels": (config(channels=0), "'channels'"),
    "linear-in": (config(unet={**SPATIAL, "use_linear_in_transformer": True}), "use_linear_in_transformer"),
    "remap": (vq(n_embed=8, remap="used.npy"), "remap"),
}
LATER = {
    "openclip": config(embedder("FrozenOpenCLIPEmbedder"), unet=SPATIAL, concat_mode=False),
    "clip-planes": config(embedder("FrozenClipImageEmbedder")),
    "upscale": {"target": "ldm.models.diffusion.ddpm.LatentUpscaleDiffusion", "params": {}},
    "inpaint": {"target": "ldm.models.diffusion.ddpm.LatentInpaintDiffusion", "params": {}},
    "stable diffusion 2": config(
        {"target": f"{ENCODERS}FrozenOpenCLIPEmbedder", "params": {"freeze": True, "layer": "penultimate"}},
        unet={**SPATIAL, "use_linear_in_transformer": True},
        parameterization="v",
        conditioning_key="crossattn",
    ),
    "stable diffusion xl": {"target": "sgm.models.diffusion.DiffusionEngine", "params": {"scale_factor": 0.13025}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, name: str) -> None:
    model, message = REFUSED[name]
    with pytest.raises(ModelFileError, match=message) as caught:
        described(tmp_path, model)
    assert "config.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", LATER)
def test_what_comes_later_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotYetError, match="not read yet"):
        described(tmp_path, LATER[name])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "YAML"),
        ("model: !!python/object/apply:os.system ['touch executed']", "YAML"),
        ("- 1", "no 'model:'"),
        ("model: {params: {}}", "target"),
        ("#" * (2**20 + 1), "too large"),
    ],
)
def test_broken_configurations(tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    with pytest.raises(ModelFileError, match="no such"):
        read_config(path)
    path.write_text(text)
    with pytest.raises(ModelFileError, match=message):
        read_config(path)
    assert not (tmp_path / "executed").exists()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_config(path)


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    """The original's reader of YAML refuses it too."""
    text = written(tmp_path, config()).read_text().splitlines()
    place = next(number for number, line in enumerate(text) if line.strip().startswith("timesteps:"))
    (tmp_path / "config.yaml").write_text("\n".join([*text[:place], text[place].replace("50", "40"), *text[place:]]))
    with pytest.raises(ModelFileError, match=f"config.yaml: key 'timesteps' stands twice, .* line {place + 2}"):
        read_config(tmp_path / "config.yaml")


def test_what_later_repositories_write_at_its_defaults(tmp_path: Path) -> None:
    """Stability's training code and its descendants: what only trains, and options of its network that are off."""
    unet = {"use_linear_in_transformer": False, "disable_self_attentions": None, "adm_in_channels": None}
    trains = {"ucg_training": {"txt": {"p": 0.1, "val": ""}}, "reset_ema": True, "make_it_fit": True}
    later = config(first=kl(attn_type="vanilla-xformers"), unet=unet, **trains)
    assert described(tmp_path, later).spec == described(tmp_path, config()).spec


def test_sizes_that_do_not_fit_are_rounded_up(tmp_path: Path) -> None:
    found = described(tmp_path, config(image_size=[7, 5]))
    assert isinstance(found.spec, ModelSpec)
    assert found.spec.image_size == 16
    assert any("image_size 7" in sentence for sentence in found.odd)

"""Pipelines of diffusers as our models: the same numbers, and the same weights when they go back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import darkroom
from darkroom.checkpoint.diffusers import load_first_stage, load_folder, load_unet
from darkroom.checkpoint.to_diffusers import save_folder
from darkroom.core.conditions import Conditions
from darkroom.core.errors import ModelFileError
from darkroom.process.schedule import LinearSpec
from pipelines import (
    ATTEND,
    CROSS,
    Words,
    all_close,
    change,
    first_stage,
    latent_text,
    network,
    same,
    save_text,
    super_resolution,
    text_parts,
    unconditional,
)

diffusers = pytest.importorskip("diffusers", reason="compares with diffusers")


def loaded(folder: Path) -> darkroom.Model:
    return darkroom.load(folder, device="cpu")


def pictures(images: Tensor) -> Tensor:
    return (images / 2 + 0.5).clamp(0, 1)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["kl", "vq"])
@torch.no_grad()
def test_an_unconditional_pipeline_gives_the_same_numbers(kind: str, tmp_path: Path) -> None:
    pipeline = unconditional(kind)
    pipeline.save_pretrained(tmp_path / "ldm")
    model = loaded(tmp_path / "ldm")
    assert (model.name, model.fields, model.spec.image_size) == ("ldm", (), 16)
    assert model.spec.schedule == LinearSpec(start=0.0015, end=0.0195)
    assert model.spec.scale == (0.7 if kind == "kl" else 0.18215)
    x, t = noise(2, 3, 8, 8), torch.tensor([3, 700])
    all_close(model.network(x, t, Conditions()), pipeline.unet(x, t).sample)
    all_close(model.decode(x), pipeline.vqvae.decode(x / pipeline.vqvae.config.scaling_factor).sample)
    pipeline.set_progress_bar_config(disable=True)
    options = {"batch_size": 2, "num_inference_steps": 10, "eta": 0.0, "output_type": "np"}
    theirs = pipeline(**options, generator=torch.Generator().manual_seed(1)).images
    latents = darkroom.sample_latents(model, x, solver="ddim", steps=10, eta=0.0, times="original")
    all_close(pictures(model.decode(latents)), torch.from_numpy(theirs).permute(0, 3, 1, 2))
    assert latents.std() > 0.1


@torch.no_grad()
def test_latents_of_ten_steps(tmp_path: Path) -> None:
    pipeline = unconditional(prediction_type="v_prediction")
    pipeline.save_pretrained(tmp_path)
    model = loaded(tmp_path)
    theirs = x = noise(1, 3, 8, 8)
    pipeline.scheduler.set_timesteps(10)
    for t in pipeline.scheduler.timesteps:
        theirs = pipeline.scheduler.step(pipeline.unet(theirs, t).sample, t, theirs, eta=0.0).prev_sample
    all_close(darkroom.sample_latents(model, x, solver="ddim", steps=10, times="original"), theirs)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_an_unconditional_pipeline_goes_back(kind: str, tmp_path: Path) -> None:
    pipeline = unconditional(kind)
    pipeline.save_pretrained(tmp_path / "theirs")
    stored = load_folder(tmp_path / "theirs")
    assert save_folder(tmp_path / "ours", stored) == ()
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")
    assert type(again) is type(pipeline)
    for name in ("unet", "vqvae"):
        assert same(getattr(pipeline, name), getattr(again, name))
        assert meaning(getattr(pipeline, name)) == meaning(getattr(again, name))
    assert meaning(pipeline.scheduler) == meaning(again.scheduler)
    twice = load_folder(tmp_path / "ours")
    assert twice.spec == stored.spec
    assert twice.state.keys() == stored.state.keys()
    assert all(torch.equal(twice.state[name], stored.state[name]) for name in stored.state)
    again.set_progress_bar_config(disable=True)
    assert len(again(num_inference_steps=2).images) == 1


def meaning(part: Any) -> dict[str, Any]:
    """A configuration without what says the same twice."""
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in part.config.items()}
    if values.get("vq_embed_dim", 0) is None:
        values["vq_embed_dim"] = values["latent_channels"]
    return {name: value for name, value in values.items() if not name.startswith("_")}


@pytest.mark.parametrize("kind", ["vq", "kl"])
@torch.no_grad()
def test_super_resolution_decodes_without_a_scale(kind: str, tmp_path: Path) -> None:
    pipeline = super_resolution(kind)
    pipeline.save_pretrained(tmp_path / "sr")
    model = loaded(tmp_path / "sr")
    assert model.fields == ("low_res",)
    assert model.spec.scale == 1.0
    said = ["scaling_factor is 1, which LDMSuperResolutionPipeline does not use"]
    assert list(model.odd) == ([said[0].replace("is 1", "is 0.7")] if kind == "kl" else said)
    small = 2 * torch.rand(2, 3, 32, 32) - 1
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 10, "output_type": "pt"}
    theirs = pipeline(small, **options, generator=torch.Generator().manual_seed(1)).images
    conditions = model.condition(low_res=small)
    latents = darkroom.sample_latents(
        model, noise(2, 3, 32, 32), conditions=conditions, solver="ddim", steps=10, times="original"
    )
    all_close(pictures(model.decode(latents)), theirs)
    save_folder(tmp_path / "back", load_folder(tmp_path / "sr"))
    again = type(pipeline).from_pretrained(tmp_path / "back")
    assert same(pipeline.unet, again.unet)
    assert same(pipeline.vqvae, again.vqvae)


@pytest.mark.parametrize("binary", [False, True])
@torch.no_grad()
def test_text_to_image_gives_the_same_numbers(binary: bool, tmp_path: Path) -> None:
    parts = text_parts()
    folder = save_text(tmp_path / "text", parts, binary=binary)
    model = loaded(folder)
    assert model.fields == ("caption",)
    words = Words(folder / "tokenizer" / "vocab.txt")
    prompts = ["a red Circles", "blué squares, a bird"]
    ids = words(prompts, max_length=77).input_ids
    assert torch.equal(model.words.caption_ids(prompts), ids)
    conditions = model.condition(caption=prompts)
    all_close(conditions.tokens, parts["bert"](ids)[0])
    pipeline = latent_text().LDMTextToImagePipeline(**parts, tokenizer=words)
    pipeline.set_progress_bar_config(disable=True)
    x = noise(2, 3, 8, 8)
    options = {"height": 64, "width": 64, "num_inference_steps": 10, "guidance_scale": 3.0, "output_type": "pt"}
    theirs = pipeline(prompts, latents=x, **options).images
    null = model.null(conditions)
    latents = darkroom.sample_latents(
        model, x, conditions=conditions, null=null, guidance=3.0, solver="ddim", steps=10, times="original"
    )
    all_close(pictures(model.decode(latents)), theirs)


def test_text_to_image_goes_back(tmp_path: Path) -> None:
    parts = text_parts()
    stored = load_folder(save_text(tmp_path / "text", parts))
    (said,) = save_folder(tmp_path / "back", stored)
    assert "ask it for sides 8 / 2 times those wanted" in said
    assert same(diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "back" / "unet"), parts["unet"])
    assert same(diffusers.AutoencoderKL.from_pretrained(tmp_path / "back" / "vqvae"), parts["vqvae"])
    again = load_folder(tmp_path / "back")
    assert again.spec == stored.spec
    assert again.tokenizer == stored.tokenizer
    assert all(torch.equal(again.state[name], stored.state[name]) for name in stored.state)
    names = [f"tokenizer/{name}" for name in ("special_tokens_map.json", "tokenizer_config.json", "vocab.txt")]
    assert all((tmp_path / "back" / name).is_file() for name in names)
    assert (tmp_path / "back" / "tokenizer" / "vocab.txt").read_text() == (
        tmp_path / "text" / "tokenizer" / "vocab.txt"
    ).read_text()


def test_a_codebook_without_a_factor_has_one(tmp_path: Path) -> None:
    unconditional("vq").save_pretrained(tmp_path)
    assert load_folder(tmp_path).odd == (
        "scaling_factor is 0.18215 beside a codebook, which diffusers writes where nobody chose one",
    )
    change(tmp_path / "vqvae" / "config.json", scaling_factor=None)
    stored = load_folder(tmp_path)
    assert float(stored.state["scale"]) == 1.0
    assert stored.odd == ("scaling_factor is not said; 1 is taken, as models with a codebook were trained",)
    unconditional("kl").save_pretrained(tmp_path / "kl")
    change(tmp_path / "kl" / "vqvae" / "config.json", scaling_factor=None)
    assert load_folder(tmp_path / "kl").spec.plain()["scale"] == 0.18215


@pytest.mark.parametrize("kind", ["kl", "vq"])
@torch.no_grad()
def test_a_first_stage_alone(kind: str, tmp_path: Path) -> None:
    stage = first_stage(kind)
    stage.save_pretrained(tmp_path / "stage")
    stored = load_folder(tmp_path / "stage")
    assert (stored.kind, stored.card["data"]) == ("first-stage", {"size": 16})
    model = darkroom.load_autoencoder(tmp_path / "stage", device="cpu")
    images = 2 * torch.rand(1, 3, 16, 32) - 1
    found = stage.encode(images)
    latents = found.latent_dist.mean if kind == "kl" else found.latents
    all_close(model.moments(images)[0], latents)
    all_close(model.decode(latents), stage.decode(latents).sample)
    assert save_folder(tmp_path / "back", stored) == ()
    again = type(stage).from_pretrained(tmp_path / "back")
    assert same(stage, again)
    assert meaning(stage) == meaning(again)
    with pytest.raises(ModelFileError, match="a first stage alone, which draws nothing"):
        darkroom.load(tmp_path / "stage")
    with pytest.raises(ModelFileError, match=r"config.json: of class '(VQModel|AutoencoderKL)'"):
        darkroom.load_network(tmp_path / "stage")


@torch.no_grad()
def test_a_network_alone_or_inside(tmp_path: Path) -> None:
    pipeline = unconditional()
    pipeline.save_pretrained(tmp_path)
    x, t = noise(1, 3, 8, 8), torch.tensor([5])
    for folder in (tmp_path, tmp_path / "unet"):
        all_close(darkroom.load_network(folder, device="cpu")(x, t), pipeline.unet(x, t).sample)
    with pytest.raises(ModelFileError, match="a U-Net alone, which draws nothing"):
        darkroom.load(tmp_path / "unet")
    assert load_first_stage(tmp_path).spec == load_first_stage(tmp_path / "vqvae").spec


@torch.no_grad()
def test_of_stable_diffusion_the_parts(tmp_path: Path) -> None:
    from pipelines import CROSS, scheduler, write

    unet = network(**CROSS, cross_attention_dim=24, attention_head_dim=4, use_linear_projection=True)
    parts = {"vae": first_stage("kl"), "unet": unet, "scheduler": scheduler()}
    for name, part in parts.items():
        part.save_pretrained(tmp_path / name)
    named = {name: ["diffusers", type(part).__name__] for name, part in parts.items()}
    others = {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    write(tmp_path / "model_index.json", {"_class_name": "StableDiffusionPipeline", **named, **others})
    with pytest.raises(ModelFileError, match=r"text_encoder/config.json: no such file"):
        darkroom.load(tmp_path)
    x, t, tokens = noise(1, 3, 8, 8), torch.tensor([5]), torch.randn(1, 7, 24)
    mine = load_unet(tmp_path)(x, t, Conditions(tokens=tokens))
    all_close(mine, unet(x, t, tokens).sample)
    all_close(darkroom.load_autoencoder(tmp_path, device="cpu").decode(x), parts["vae"].decode(x).sample)


@pytest.mark.parametrize("count", [4, 11])
@torch.no_grad()
def test_networks_that_tell_classes_apart(count: int, tmp_path: Path) -> None:
    pipeline = unconditional()
    pipeline.unet = unet = network(**ATTEND, attention_head_dim=16, num_class_embeds=count)
    pipeline.save_pretrained(tmp_path)
    model = loaded(tmp_path)
    assert (model.fields, model.spec.guided) == (("label",), count == 11)
    assert ("no null class" in model.odd[0]) == (count == 4)
    x, t, labels = noise(2, 3, 8, 8), torch.tensor([3, 700]), torch.tensor([3, 0])
    conditions = model.condition(label=labels)
    all_close(model.network(x, t, conditions), unet(x, t, class_labels=labels).sample)
    if count == 11:
        nothing = unet(x, t, class_labels=torch.tensor([10, 10])).sample
        all_close(model.network(x, t, model.null(conditions)), nothing)
    save_folder(tmp_path / "back", load_folder(tmp_path))
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "back").unet
    assert same(again, unet)
    assert meaning(again) == meaning(unet)
    vector = model.condition(label=labels).vector
    assert vector is not None
    mine = darkroom.load_network(tmp_path / "unet", device="cpu")(x, t, Conditions(vector=vector))
    all_close(mine, unet(x, t, class_labels=labels).sample)


@torch.no_grad()
def test_classes_beside_captions(tmp_path: Path) -> None:
    parts = text_parts()
    parts["unet"] = network(**CROSS, cross_attention_dim=24, attention_head_dim=4, num_class_embeds=5)
    model = loaded(save_text(tmp_path, parts))
    assert model.fields == ("caption", "label")
    x, t, labels = noise(2, 3, 8, 8), torch.tensor([3, 700]), torch.tensor([3, 0])
    conditions = model.condition(caption=["a red", "blue"], label=labels)
    all_close(model.network(x, t, conditions), parts["unet"](x, t, conditions.tokens, class_labels=labels).sample)


@pytest.mark.parametrize("kind", ["timestep", "identity", "projection"])
def test_other_embeddings_of_classes_are_refused(kind: str, tmp_path: Path) -> None:
    unconditional().save_pretrained(tmp_path)
    change(tmp_path / "unet" / "config.json", class_embed_type=kind)
    with pytest.raises(ModelFileError, match=f"class_embed_type '{kind}' is not supported"):
        load_folder(tmp_path)


def test_what_its_scheduler_would_do_besides_is_said(tmp_path: Path) -> None:
    unconditional(clip_sample=True, thresholding=True).save_pretrained(tmp_path)
    assert [sentence.partition(" at ")[0] for sentence in load_folder(tmp_path).odd] == [
        "its scheduler clips x0 to [-1, 1]",
        "its scheduler bounds x0 by a threshold",
    ]


def test_the_side_of_pictures(tmp_path: Path) -> None:
    unconditional().save_pretrained(tmp_path)
    for latents, images, side in ((8, 16, 16), ([8, 8], 16, 16), ([8, 12], 20, 20), (None, 21, 20), (None, None, 256)):
        change(tmp_path / "unet" / "config.json", sample_size=latents)
        change(tmp_path / "vqvae" / "config.json", sample_size=images)
        assert load_folder(tmp_path).spec.plain()["image_size"] == side

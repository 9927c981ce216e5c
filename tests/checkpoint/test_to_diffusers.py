"""Our models as folders of diffusers: what they hold, what is said, and what is refused."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import darkroom
from darkroom.autoencoder.bottleneck import PlainSpec, VQSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, PixelsSpec
from darkroom.autoencoder.statistics import LatentStatistics
from darkroom.autoencoder.tiny import TinyDecoderSpec
from darkroom.checkpoint import to_diffusers
from darkroom.checkpoint.diffusers import load_folder
from darkroom.checkpoint.fold import with_scale_one
from darkroom.checkpoint.store import StoredModel, build, save_model
from darkroom.checkpoint.to_diffusers import save_folder
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.spatial import LowResSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextConditioner, TextSpec, Tokenizer
from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.names import Names
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.network.unet import UNetSpec
from darkroom.process.objective import NoisiestTimeSpec, ObjectiveSpec
from darkroom.process.schedule import CosineFlowSpec, CosineSpec, LinearSpec, SqrtSpec
from darkroom.recipes.read import groups, recipe
from pipelines import LATENT, STEPS, all_close, latent_text, same

diffusers = pytest.importorskip("diffusers", reason="compares with diffusers")
KL = AutoencoderSpec(channels=8, multipliers=(1, 1), blocks=1, latent_channels=3, norm_groups=4)
VQ = KL.model_copy(update={"bottleneck": VQSpec(codes=16)})
NETWORK = UNetSpec(in_channels=3, out_channels=3, channels=8, multipliers=(1, 2), blocks=1, heads=1, norm_groups=4)
SMALL = LowResSpec(channels=3)
CAPTIONS = ("a red circle", "a blue square", "two green stars left of a red square")


def tokens(**options: Any) -> dict[str, Any]:
    sizes = {"vocabulary": 60, "length": 77, "width": 8, "depth": 1, "heads": 2, "head_width": 4}
    return {
        "network": NETWORK.model_copy(update={"transformer_depth": 1, "context_width": 8}),
        "conditioners": (TextSpec(encoder=SequenceEncoderSpec(**{**sizes, **options})),),
    }


def spec(**options: Any) -> ModelSpec:
    return ModelSpec(**{"image_size": 16, "first_stage": KL, "network": NETWORK, "schedule": LinearSpec(), **options})


def enlarging(**options: Any) -> ModelSpec:
    network = NETWORK.model_copy(update={"in_channels": 6})
    return spec(network=network, conditioners=(SMALL,), **options)


def made(of: ModelSpec | AutoencoderSpec, *, scale: Any = 0.5, **values: Any) -> StoredModel:
    """A model as a training of ours might end; nothing is left at zero."""
    torch.manual_seed(7)
    if isinstance(of, AutoencoderSpec):
        return StoredModel("first-stage", of, Autoencoder(of).state_dict(), **values)
    model = LatentDiffusion(of)
    for parameter in model.network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    if of.scale is None:
        model.scale = torch.tensor(scale)
    if "caption" in of.fields:
        length = of.conditioners[0].plain()["encoder"]["length"]
        tokenizer = Tokenizer.train(CAPTIONS, vocabulary=60, length=length)
        conditioner = model.conditioning["caption"]
        assert isinstance(conditioner, TextConditioner)
        conditioner.set_empty(tokenizer([""])[0].tolist())
        values = {"tokenizer": tokenizer.to_json(), **values}
    return StoredModel("model", of, model.state_dict(), **values)


def loaded(stored: StoredModel, folder: Path) -> darkroom.Model:
    return darkroom.load(save_model(folder / "ours.safetensors", stored), device="cpu")


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def drawn(model: darkroom.Model, x: Tensor, **options: Any) -> Tensor:
    latents = darkroom.sample_latents(model, x, solver="ddim", steps=10, times="original", **options)
    return (model.decode(latents) / 2 + 0.5).clamp(0, 1)


UNCONDITIONAL: dict[str, tuple[ModelSpec, Any]] = {
    "kl": (spec(), 0.5),
    "vq": (spec(first_stage=VQ), 1.3),
    "fixed": (spec(scale=0.18215), None),
    "codes": (spec(first_stage=VQ.model_copy(update={"code_channels": 5})), 1.0),
    "channels": (spec(), [0.4, 1.7, 0.9]),
    "cosine": (spec(schedule=CosineSpec(steps=100), prediction="x0"), 0.5),
    "table": (spec(schedule=SqrtSpec(steps=50, end=0.0195), prediction="v"), 0.5),
}


@pytest.mark.parametrize("name", UNCONDITIONAL)
@torch.no_grad()
def test_diffusers_draws_the_same(name: str, tmp_path: Path) -> None:
    of, scale = UNCONDITIONAL[name]
    stored = made(of, scale=scale)
    said = save_folder(tmp_path / "folder", stored)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "folder")
    assert type(pipeline).__name__ == "LDMPipeline"
    pipeline.set_progress_bar_config(disable=True)
    options = {"batch_size": 2, "num_inference_steps": 10, "output_type": "np"}
    theirs = pipeline(**options, generator=torch.Generator().manual_seed(1)).images
    mine = drawn(loaded(stored, tmp_path), noise(2, 3, 8, 8))
    all_close(mine, torch.from_numpy(theirs).permute(0, 3, 1, 2))
    again = load_folder(tmp_path / "folder")
    assert again.state.keys() == stored.state.keys()
    if name == "channels":
        assert "one for each channel, is made part of the first stage's" in said[0]
        return
    assert all(torch.equal(again.state[key], stored.state[key]) for key in stored.state)
    before = of.plain() | {"scale": again.spec.plain()["scale"]}
    before["network"] |= {"heads": again.spec.plain()["network"]["heads"]}
    changes = {"schedule"} if name == "table" else set()
    assert {key for key, value in again.spec.plain().items() if value != before[key]} == changes


@pytest.mark.parametrize("first_stage", [KL, VQ], ids=["kl", "vq"])
@torch.no_grad()
def test_enlarging_with_a_scale_that_the_pipeline_has_not(first_stage: AutoencoderSpec, tmp_path: Path) -> None:
    import importlib

    stored = made(enlarging(first_stage=first_stage), scale=0.6)
    (said,) = save_folder(tmp_path / "folder", stored)
    assert "for which LDMSuperResolutionPipeline has no word" in said
    kind = importlib.import_module(f"{LATENT}_superresolution").LDMSuperResolutionPipeline
    pipeline = kind.from_pretrained(tmp_path / "folder")
    pipeline.set_progress_bar_config(disable=True)
    small = 2 * torch.rand(1, 3, 32, 32) - 1
    options = {"num_inference_steps": 10, "output_type": "pt"}
    theirs = pipeline(small, **options, generator=torch.Generator().manual_seed(1)).images
    model = loaded(stored, tmp_path)
    all_close(drawn(model, noise(1, 3, 32, 32), conditions=model.condition(low_res=small)), theirs)
    assert save_folder(tmp_path / "plain", made(enlarging(first_stage=first_stage), scale=1.0)) == ()


@pytest.mark.parametrize(("first_stage", "scale"), [(KL, 0.3), (KL, [0.2, 1.0, 3.0]), (VQ, 2.7)])
@torch.no_grad()
def test_a_scale_inside_the_first_stage_says_the_same(first_stage: AutoencoderSpec, scale: Any) -> None:
    stored = made(spec(first_stage=first_stage), scale=scale)
    one, other = build(stored), build(with_scale_one(stored))
    assert isinstance(one, LatentDiffusion)
    assert isinstance(other, LatentDiffusion)
    images, latents, drawn_noise = 2 * torch.rand(1, 3, 16, 16) - 1, noise(1, 3, 8, 8), noise(1, 3, 8, 8)
    torch.testing.assert_close(other.encode(images, noise=drawn_noise), one.encode(images, noise=drawn_noise))
    torch.testing.assert_close(other.decode(latents), one.decode(latents), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_text_model_of_ours(tmp_path: Path) -> None:
    stored = made(spec(**tokens()))
    said = save_folder(tmp_path / "folder", stored)
    assert len(said) == 1
    config = json.loads((tmp_path / "folder" / "bert" / "config.json").read_text())
    module = latent_text()
    encoder = module.LDMBertModel(module.LDMBertConfig(**config))
    state = load_file(tmp_path / "folder" / "bert" / "model.safetensors")
    lacking = encoder.load_state_dict(state, strict=False)
    assert (lacking.missing_keys, lacking.unexpected_keys) == (["to_logits.weight", "to_logits.bias"], [])
    model = loaded(stored, tmp_path)
    ids = model.words.caption_ids(CAPTIONS)
    all_close(model.condition(caption=CAPTIONS).tokens, encoder.eval()(ids)[0])
    unet = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "folder" / "unet")
    x, t, conditions = noise(3, 3, 8, 8), torch.tensor([3, 30, 300]), model.condition(caption=CAPTIONS)
    all_close(model.network(x, t, conditions), unet(x, t, conditions.tokens).sample)
    again = load_folder(tmp_path / "folder")
    assert all(torch.equal(again.state[key], stored.state[key]) for key in stored.state)
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    assert (index["bert"], index["tokenizer"]) == (
        ["latent_diffusion", "LDMBertModel"],
        ["transformers", "BertTokenizer"],
    )


@pytest.mark.parametrize(("classes", "null"), [(10, 10), (3, None)])
@torch.no_grad()
def test_a_class_model_of_ours(classes: int, null: int | None, tmp_path: Path) -> None:
    label = ClassSpec(classes=classes, width=32, null=null, port="vector", drop=0.1 if null else 0)
    stored = made(spec(conditioners=(label,)), names=Names(tuple("abcdefghij"[:classes])))
    said = save_folder(tmp_path / "folder", stored)
    assert "LDMPipeline gives no class to its U-Net" in said[0]
    left = ["which of its classes means none"] if null else []
    assert [each.removeprefix("left out: ") for each in said[1:]] == ["names of classes and categories", *left]
    unet = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "folder").unet
    labels, x, t = torch.tensor([2, 0]), noise(2, 3, 8, 8), torch.tensor([3, 300])
    mine = loaded(stored, tmp_path)
    all_close(mine.network(x, t, mine.condition(label=labels)), unet(x, t, class_labels=labels).sample)
    again = load_folder(tmp_path / "folder")
    assert again.spec.plain()["conditioners"] == stored.spec.plain()["conditioners"]
    assert all(torch.equal(again.state[key], stored.state[key]) for key in stored.state)


def test_a_first_stage_of_ours(tmp_path: Path) -> None:
    latents = LatentStatistics(mean=(0.0,) * 3, std=(2.0,) * 3, whole=2.0, pictures=9)
    card = {"data": {"size": 32}, "summary": "x"}
    said = save_folder(tmp_path / "folder", made(KL, latents=latents, card=card))
    assert said == ("left out: its card (data, summary)", "left out: how its latents are spread")
    config = diffusers.AutoencoderKL.from_pretrained(tmp_path / "folder").config
    assert (config["scaling_factor"], config["sample_size"]) == (0.5, 32)
    assert save_folder(tmp_path / "bare", made(VQ)) == (
        "nobody measured how its latents are spread: scaling_factor is 1",
    )
    assert diffusers.VQModel.from_pretrained(tmp_path / "bare").config["scaling_factor"] == 1.0


def test_a_folder_is_written_as_diffusers_writes_it(tmp_path: Path) -> None:
    save_folder(tmp_path / "ours", made(spec()))
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")
    pipeline.save_pretrained(tmp_path / "theirs")
    tops = (tmp_path / "ours", tmp_path / "theirs")
    mine, theirs = (sorted(path.relative_to(top) for path in top.rglob("*")) for top in tops)
    assert mine == theirs
    path = tmp_path / "theirs" / "model_index.json"
    index = json.loads(path.read_text())
    del index["_name_or_path"]
    assert (tmp_path / "ours" / path.name).read_text() == json.dumps(index, indent=2, sort_keys=True) + "\n"
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "theirs")
    assert same(pipeline.unet, again.unet)
    assert {name: pipeline.scheduler.config[name] for name in STEPS} == STEPS


def test_what_has_no_place_is_said(tmp_path: Path) -> None:
    objective = ObjectiveSpec(loss="l1", learn_log_variance=True)
    latents = LatentStatistics(mean=(0.0,) * 3, std=(1.0,) * 3, whole=1.0, pictures=9)
    first = VQ.model_copy(update={"dropout": 0.1})
    stored = made(
        spec(objective=objective, first_stage=first), card={"task": "x"}, names=Names(("a",)), latents=latents
    )
    assert save_folder(tmp_path / "folder", stored) == (
        "left out: its card (task)",
        "left out: names of classes and categories",
        "left out: how its latents are spread",
        "left out: what its first stage's training used",
        "left out: the objective it was trained with",
    )
    text = tokens()
    text["conditioners"] = (text["conditioners"][0].model_copy(update={"drop": 0.3}),)
    stored = made(spec(**text))
    stored.state["conditioning.by_field.caption.empty_ids"][5] = 9
    assert save_folder(tmp_path / "text", stored)[1:] == (
        "left out: which share of captions training dropped",
        "left out: the ids of its empty caption, for the tokenizer gives others",
    )


PIXELS = UNetSpec(in_channels=3, out_channels=3, channels=8, multipliers=(1,), heads=1, norm_groups=4)
LABEL = {
    "network": NETWORK.model_copy(update={"transformer_depth": 1, "context_width": 8}),
    "conditioners": (ClassSpec(classes=3, width=8, null=3),),
}
REFUSED: dict[str, tuple[Callable[[], StoredModel], str]] = {
    "pixels": (lambda: made(spec(first_stage=PixelsSpec(), network=PIXELS)), "a model on pixels"),
    "label": (lambda: made(spec(**LABEL)), "no latent diffusion pipeline steered by label"),
    "channels of codes": (lambda: made(spec(first_stage=VQ), scale=[1.0, 2.0, 3.0]), "the codebook cannot take it in"),
    "scale": (lambda: made(spec(), scale=float("nan")), "the scale of latents is not known"),
    "flow": (lambda: made(spec(schedule=CosineFlowSpec(), prediction="v")), "no DDIMScheduler for the schedule"),
    "regression": (
        lambda: made(spec(objective=ObjectiveSpec(times=NoisiestTimeSpec()), prediction="x0")),
        "answers in one step from pure noise",
    ),
    "stem": (lambda: made(KL.model_copy(update={"stem": "patch2"})), "a stem of squares"),
    "shortcut": (lambda: made(KL.model_copy(update={"shortcut": "linear"})), "a shortcut"),
    "tiny": (lambda: made(KL.model_copy(update={"tiny": TinyDecoderSpec()})), "a tiny decoder"),
    "plain": (lambda: made(KL.model_copy(update={"bottleneck": PlainSpec()})), "no bottleneck"),
    "length": (lambda: made(spec(**tokens(length=32))), "gives its text encoder 77 tokens, this one takes 32"),
    "dumb": (lambda: replace(made(spec(**tokens())), tokenizer=None), "needs a tokenizer, and this model has none"),
    "other words": (lambda: replace(made(spec(**tokens())), tokenizer=cased()), "needs a BERT tokenizer"),
    "waves": (
        lambda: made(spec(**{**tokens(), "network": tokens()["network"].model_copy(update={"places": "waves"})})),
        "waves that tell attention where it is",
    ),
    "squares": (
        lambda: made(spec(network=NETWORK.model_copy(update={"in_channels": 15}), conditioners=(SQUARES,))),
        "takes a small picture of the size and channels of latents",
    ),
    "transformers": (
        lambda: made(spec(network=tokens()["network"])),
        "LDMPipeline has a UNet2DModel, this network could only be a UNet2DConditionModel",
    ),
}
SQUARES = LowResSpec(channels=12, patch=2)


def cased() -> str:
    tokenizer = json.loads(Tokenizer.train(CAPTIONS, vocabulary=60, length=77).to_json())
    tokenizer["normalizer"]["lowercase"] = False
    return json.dumps(tokenizer)


@pytest.mark.parametrize("name", REFUSED)
def test_what_diffusers_has_no_words_for_is_refused(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ModelFileError, match=message) as caught:
        save_folder(tmp_path / "folder", make())
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    stored = made(spec())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file"):
        with pytest.raises(InputError, match="is there already, and is never written over"):
            save_folder(tmp_path / name, stored)
    (tmp_path / "empty").mkdir()
    save_folder(tmp_path / "empty", stored)
    save_folder(tmp_path / "a" / "b", stored)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o777 & ~umask


PAPER = [name for group, found in groups().items() if "latent models" in group for name in found]
WRITABLE = {
    "celeba256": "LDMPipeline",
    "ffhq256": "LDMPipeline",
    "lsun_beds256": "LDMPipeline",
    "bsr_sr": "LDMSuperResolutionPipeline",
    "text2img256": "LDMTextToImagePipeline",
    "txt2img-1p4b": "LDMTextToImagePipeline",
}


@pytest.mark.parametrize("name", PAPER)
def test_models_of_the_paper(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_of, part = recipe(name), recipe(name).denoiser
    keys = ("network", "conditioners", "schedule", "prediction", "objective")
    options = {key: getattr(part, key) for key in keys}
    of = ModelSpec(image_size=made_of.data.size, first_stage=made_of.first_stage.model, scale=1.0, **options)
    with torch.device("meta"):
        state = {**LatentDiffusion(of).state_dict(), "scale": torch.tensor(1.0, device="cpu")}
    tokenizer = Tokenizer.train(CAPTIONS, vocabulary=60, length=77)
    state = {key: tokenizer([""])[0] if key.endswith("empty_ids") else value for key, value in state.items()}
    stored = StoredModel("model", of, state, tokenizer=tokenizer.to_json())
    monkeypatch.setattr(to_diffusers, "_write", lambda *_, **__: None)  # configurations are made, weights are none
    try:
        save_folder(tmp_path / "folder", stored)
    except ModelFileError:
        assert name not in WRITABLE
        return
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    assert index["_class_name"] == WRITABLE[name]

"""Stable Diffusion 1 in diffusers' folders: the same numbers, there and back."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import darkroom
from darkroom.checkpoint.clip_text import clip_config, read_clip_tokenizer, write_clip_tokenizer
from darkroom.checkpoint.diffusers import load_folder
from darkroom.checkpoint.to_diffusers import save_folder
from darkroom.conditioning.text import SequenceEncoderSpec, Tokenizer
from darkroom.core.errors import ModelFileError, NotYetError
from pipelines import all_close, change, same, write
from stable import MERGES, NEGATIVE, PROMPTS, ids, pieces, pipeline, transformers, write_words

diffusers = pytest.importorskip("diffusers", reason="compares with diffusers")
TEXT = "conditioning.by_field.caption.encoder."


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder, and the pipeline in it."""
    top = tmp_path_factory.mktemp("stable")
    made = pipeline(top / "words")
    made.save_pretrained(top / "folder")
    return top / "folder", made


@pytest.fixture
def folder(saved: tuple[Path, Any], tmp_path: Path) -> Path:
    return shutil.copytree(saved[0], tmp_path / "folder")


@torch.no_grad()
def test_its_pictures(saved: tuple[Path, Any]) -> None:
    place, theirs = saved
    model = darkroom.load(place, device="cpu")
    assert (model.fields, model.spec.image_size, model.spec.scale) == (("caption",), 16, 0.7)
    captions = [*PROMPTS, "", "red " * 100]
    wanted = ids(theirs.tokenizer, captions)
    assert model.default("guidance", 1.0) == 7.5
    assert torch.equal(model.words.caption_ids(captions), wanted)
    hidden = theirs.text_encoder(wanted).last_hidden_state
    torch.testing.assert_close(model.condition(caption=captions).tokens, hidden, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.condition(caption_ids=wanted).tokens, hidden, rtol=0, atol=1e-5)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([3, 700])
    conditions, null = model.condition(caption=PROMPTS), model.condition(caption=[NEGATIVE] * 2)
    all_close(model.network(x, t, conditions), theirs.unet(x, t, hidden[:2]).sample)
    all_close(model.decode(x), theirs.vae.decode(x / 0.7).sample)
    assert torch.equal(model.null(conditions).tokens[0], model.condition(caption=[""]).tokens[0])
    for steer, options in ((null, {"negative_prompt": [NEGATIVE] * 2}), (model.null(conditions), {})):
        drawn = darkroom.sample_latents(
            model, x, conditions=conditions, null=steer, guidance=7.5, solver="ddim", steps=10, times="original"
        )
        sizes = {"height": 16, "width": 16, "num_inference_steps": 10, "guidance_scale": 7.5, "output_type": "pt"}
        all_close((model.decode(drawn) / 2 + 0.5).clamp(0, 1), theirs(PROMPTS, latents=x, **sizes, **options).images)


def test_it_goes_back(saved: tuple[Path, Any], tmp_path: Path) -> None:
    stored = load_folder(saved[0])
    assert stored.odd == ()
    assert save_folder(tmp_path / "back", stored) == ()
    again = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "back")
    for name in ("unet", "vae", "text_encoder"):
        assert same(getattr(saved[1], name), getattr(again, name)), name
    of, before = again.text_encoder.config.to_dict(), saved[1].text_encoder.config.to_dict()
    differ = {name for name in of if of[name] != before[name]}
    assert differ <= {"projection_dim", "architectures", "_name_or_path"}  # which a text model does not have or use
    captions = [*PROMPTS, "", "red " * 100]
    assert torch.equal(ids(again.tokenizer, captions), ids(saved[1].tokenizer, captions))
    assert (again.safety_checker, again.config["requires_safety_checker"]) == (None, False)
    again.set_progress_bar_config(disable=True)
    assert len(again("a cat", height=16, width=16, num_inference_steps=1).images) == 1
    twice = load_folder(tmp_path / "back")
    assert (twice.spec, twice.tokenizer) == (stored.spec, stored.tokenizer)
    assert all(torch.equal(twice.state[name], stored.state[name]) for name in stored.state)


def test_names_of_every_version(folder: Path) -> None:
    wanted = load_folder(folder)
    path = folder / "text_encoder" / "model.safetensors"
    held = {name.removeprefix("text_model."): tensor for name, tensor in load_file(path).items()}
    places = {"embeddings.position_ids": torch.arange(77)[None]}
    for before in ("", "text_model."):
        save_file({before + name: tensor for name, tensor in {**held, **places}.items()}, path)
        found = load_folder(folder)
        assert found.odd == ()
        assert all(torch.equal(found.state[name], wanted.state[name]) for name in wanted.state)


def test_the_tokenizer_in_two_files_or_one(folder: Path) -> None:
    wanted = load_folder(folder).tokenizer
    assert (folder / "tokenizer" / "tokenizer.json").is_file()
    write_words(folder / "tokenizer")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    assert load_folder(folder).tokenizer == wanted


def test_what_draws_nothing_is_left_and_said(folder: Path) -> None:
    (folder / "safety_checker").mkdir()
    named = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "image_encoder": [None, None]}
    change(folder / "model_index.json", **named, feature_extractor=["transformers", "CLIPImageProcessor"])
    assert load_folder(folder).odd == (
        "safety_checker and feature_extractor of the folder: not read, nothing is drawn with them",
    )


def test_a_pipeline_that_differs_in_what_is_asked_of_it(folder: Path) -> None:
    wanted = load_folder(folder)
    change(folder / "model_index.json", _class_name="StableDiffusionImg2ImgPipeline")
    change(folder / "text_encoder" / "config.json", architectures=None)
    found = load_folder(folder)
    assert (found.spec, found.card["family"]) == (wanted.spec, wanted.card["family"])


CONFIGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "openclip": ("text_encoder", {"hidden_act": "gelu"}, "OpenCLIP's text encoder .* Stable Diffusion 2, is not read"),
    "projection": (
        "text_encoder",
        {"architectures": ["CLIPTextModelWithProjection"]},
        "architectures .* not supported",
    ),
    "wide": ("text_encoder", {"intermediate_size": 97}, "intermediate_size '97' is not supported"),
    "heads": ("text_encoder", {"num_attention_heads": 5}, "does not divide into 5 attention heads"),
    "deep": ("text_encoder", {"num_hidden_layers": 3}, "missing, which its config.json needs"),
    "endless": ("text_encoder", {"num_hidden_layers": 10**6}, "more layers than its weights have tensors"),
    "planes": ("unet", {"in_channels": 9}, "conv_in.weight' has shape"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_not_read(name: str, folder: Path) -> None:
    part, values, message = CONFIGS[name]
    change(folder / part / "config.json", **values)
    with pytest.raises((ModelFileError, NotYetError), match=message):
        load_folder(folder)


ENCODER = SequenceEncoderSpec(vocabulary=len(pieces()), length=77, width=24, depth=2, heads=3, head_width=8)


def test_tokenizers_that_do_not_fit(tmp_path: Path) -> None:
    def refused(message: str, *, encoder: SequenceEncoderSpec = ENCODER) -> None:
        with pytest.raises(ModelFileError, match=message) as caught:
            read_clip_tokenizer(tmp_path, encoder=encoder)
        assert str(tmp_path) in str(caught.value)

    refused(r"holds no tokenizer \(vocab.json and merges.txt")
    write_words(tmp_path)
    for pad in ({"content": "<|endoftext|>"}, "<|endoftext|>", None):
        write(tmp_path / "tokenizer_config.json", {"pad_token": pad})
        assert read_clip_tokenizer(tmp_path, encoder=ENCODER).vocabulary == len(pieces())
    refused("has 521 pieces, the text encoder knows 5", encoder=ENCODER.model_copy(update={"vocabulary": 5}))
    write(tmp_path / "tokenizer_config.json", {"pad_token": "!"})
    refused("fills captions up with '!' is not supported")
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "merges.txt").write_text("zz zz")
    refused("merges do not fit its vocabulary")
    (tmp_path / "merges.txt").write_text("a b c")
    refused("a merge is two pieces, 'a b c' came")
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe")
    refused("cannot be read as a vocabulary")
    (tmp_path / "merges.txt").unlink()
    for text, message in (
        ("{}", "it has no vocabulary with merges"),
        ("[]", "no JSON object"),
        ('{"model": {"vocab": {"a": 1}, "merges": []}}', "number its 1 pieces from 0"),
        ('{"model": {"vocab": {"a": "x"}, "merges": []}}', "number its 1 pieces from 0"),
        ('{"model": {"vocab": {"a": 0}, "merges": []}}', "it lacks"),
        ('{"model": {"vocab": {"a": 0}, "merges": [["a"]]}}', "a merge is two pieces"),
        ("[" * 10**5, "not valid JSON"),
    ):
        (tmp_path / "tokenizer.json").write_text(text)
        refused(message)


def test_only_a_tokenizer_of_clip_is_written(tmp_path: Path) -> None:
    own = Tokenizer.from_pieces(pieces(), MERGES, length=77).to_json()
    write_clip_tokenizer(tmp_path, own)
    again = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert torch.equal(ids(again, PROMPTS), Tokenizer.from_json(own, length=77)(PROMPTS))
    other = json.loads(own)
    other["normalizer"] = None
    for text in (json.dumps(other), Tokenizer.train(PROMPTS, vocabulary=40, length=77).to_json()):
        with pytest.raises(ModelFileError, match="needs a tokenizer of CLIP's"):
            write_clip_tokenizer(tmp_path, text)


def test_sizes_that_a_folder_has_no_words_for() -> None:
    clip_config(ENCODER)
    for change_of in ({"length": 50}, {"heads": 2}):
        with pytest.raises(ModelFileError, match="a text encoder of 77 tokens whose heads make up its width"):
            clip_config(ENCODER.model_copy(update=change_of))


def test_inpainting_is_refused_by_name(folder: Path) -> None:
    change(folder / "model_index.json", _class_name="StableDiffusionInpaintPipeline")
    with pytest.raises(NotYetError, match=r"StableDiffusionInpaintPipeline .* is not read yet"):
        load_folder(folder)


@torch.no_grad()
def test_one_file_holds_words_too(saved: tuple[Path, Any], tmp_path: Path) -> None:
    from darkroom.checkpoint.store import save_model

    model = darkroom.load(save_model(tmp_path / "one.safetensors", load_folder(saved[0])), device="cpu")
    wanted: Tensor = saved[1].text_encoder(ids(saved[1].tokenizer, PROMPTS)).last_hidden_state
    torch.testing.assert_close(model.condition(caption=PROMPTS).tokens, wanted, rtol=0, atol=1e-5)
    (picture,) = model.sample("the red cat", steps=2, guidance=3.0, negative="a cat")
    assert picture.size == (16, 16)

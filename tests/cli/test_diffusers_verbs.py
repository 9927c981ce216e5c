"""Folders of diffusers on the command line."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from darkroom.checkpoint.store import load_model
from pipelines import save_text, super_resolution, text_parts, unconditional, write

Say = Callable[..., tuple[int, str, str]]
SHORT = ("denoiser.train.steps=2", "denoiser.train.batch=2", "denoiser.train.warmup=0", "denoiser.sample.steps=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders") / "pipeline"
    unconditional().save_pretrained(folder)
    return folder


def facts(say: Say, folder: Path) -> dict[str, object]:
    code, told, complaint = say("inspect", folder, "--json")
    assert code == 0, complaint
    return json.loads(told)


def test_what_a_pipeline_is(say: Say, folder: Path, tmp_path: Path) -> None:
    from darkroom.diffusion.model import count_parameters
    from darkroom.tasks.find import read_whole

    start = time.monotonic()
    found = facts(say, folder)
    assert time.monotonic() - start < 2
    assert {key: found[key] for key in ("kind", "name", "family", "task", "fields", "image_size", "factor")} == {
        "kind": "diffusers pipeline",
        "name": "pipeline",
        "family": "LDMPipeline",
        "task": "unconditional",
        "fields": [],
        "image_size": 16,
        "factor": 2,
    }
    spec = read_whole(folder).spec
    counted = count_parameters(spec)  # pyright: ignore[reportArgumentType]
    assert found["parameters"] == {name: counted[name] for name in ("first_stage", "network")}
    assert (found["precision"], found["odd"], found["spec"]) == (["float32"], [], spec.plain())
    super_resolution().to(torch.float16).save_pretrained(tmp_path / "sr", variant="fp16")
    found = facts(say, tmp_path / "sr")
    assert (found["task"], found["fields"], found["precision"]) == ("super-resolution", ["low_res"], ["float16"])
    found = facts(say, save_text(tmp_path / "text", text_parts()))
    assert (found["task"], found["fields"]) == ("text", ["caption"])
    assert set(found["parameters"]) == {"first_stage", "network", "conditioner"}  # pyright: ignore[reportArgumentType]
    (tmp_path / "text" / "tokenizer" / "vocab.txt").unlink()
    lacking = facts(say, tmp_path / "text")
    assert {**lacking, "odd": found["odd"]} == found
    missing = f"{tmp_path}/text/tokenizer: holds no tokenizer (vocab.txt, or tokenizer.json, is missing)"
    assert lacking["odd"] == [*found["odd"], f"draws nothing yet: {missing}"]  # pyright: ignore[reportGeneralTypeIssues]
    code, _, complaint = say("sample", "a", "--model", tmp_path / "text", "--out", tmp_path / "drawn")
    assert (code, complaint.strip()) == (2, f"darkroom: {missing}")


def test_what_a_part_is(say: Say, folder: Path) -> None:
    found = facts(say, folder / "vqvae")
    assert (found["kind"], found["family"], found["factor"]) == ("diffusers part", "AutoencoderKL", 2)
    found = facts(say, folder / "unet")
    assert (found["family"], found["factor"], list(found["parameters"])) == ("UNet2DModel", None, ["network"])  # pyright: ignore[reportArgumentType]
    code, told, _ = say("inspect", folder / "unet")
    assert code == 0
    assert "UNet2DModel" in told


def test_what_stable_diffusion_is(say: Say, tmp_path: Path) -> None:
    from stable import pipeline

    pipeline(tmp_path / "words").save_pretrained(tmp_path / "sd")
    found = facts(say, tmp_path / "sd")
    assert (found["family"], found["task"], found["factor"]) == ("StableDiffusionPipeline", "text", 2)
    assert (found["kind"], found["fields"], found["odd"]) == ("diffusers pipeline", ["caption"], [])
    code, _, complaint = say("convert", tmp_path / "sd", tmp_path / "one.safetensors")
    assert code == 0, complaint
    steered = ("the red cat", "--negative", "a cat", "--guidance", "7.5", "--steps", "2", "--device", "cpu")
    code, _, complaint = say("sample", *steered, "--model", tmp_path / "one.safetensors", "--out", tmp_path / "drawn")
    assert code == 0, complaint
    assert Image.open(tmp_path / "drawn" / "0000.png").size == (16, 16)


def test_pictures_and_reconstructions(say: Say, folder: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    words = ("--steps", "10", "--solver", "ddim", "--times", "original", "--count", "2")
    code, _, complaint = say("sample", "--model", folder, *words, "--out", drawn, "--device", "cpu")
    assert code == 0, complaint
    code, _, complaint = say("sample", "--model", folder, "--like", drawn / "0001.png", "--out", tmp_path / "again")
    assert code == 0, complaint
    code, told, complaint = say("reconstruct", folder / "vqvae", drawn / "0000.png", "--out", tmp_path / "back")
    assert code == 0, complaint
    assert "PSNR" in told


def test_training_goes_on_from_a_folder(say: Say, folder: Path, tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / "drawings" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (48, 40), (50 * number, 200, 90)).save(path)
    words = ("train", tmp_path / "drawings", "--from", folder, "--device", "cpu", *SHORT, "--out", tmp_path / "run")
    code, _, complaint = say(*words)
    assert code == 0, complaint
    stored = load_model(tmp_path / "run" / "model.safetensors")
    from darkroom.tasks.find import read_whole

    before = read_whole(folder)
    assert stored.spec == before.spec
    assert torch.equal(stored.state["first_stage.to_latent.weight"], before.state["first_stage.to_latent.weight"])
    assert not torch.equal(stored.state["network.head.weight"], before.state["network.head.weight"])
    code, _, complaint = say(*words)
    assert code == 0
    assert "finished" in complaint


def test_broken_folders_are_one_sentence(say: Say, folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "model_index.json", {"_class_name": "FluxPipeline"})
    Image.new("RGB", (16, 16)).save(tmp_path / "x.png")
    asked = (("inspect", tmp_path), ("sample", "--model", tmp_path), ("reconstruct", tmp_path, tmp_path / "x.png"))
    for words in asked:
        code, told, complaint = say(*words)
        assert (code, told) == (2, "")
        assert "pipelines of class 'FluxPipeline' are not read" in complaint
        assert complaint.count("\n") == 1


def test_training_on_the_first_stage_of_a_folder(say: Say, folder: Path, tmp_path: Path) -> None:
    few = ("data.count=12", "denoiser.sample.count=1", *SHORT)
    words = ("train", "tiny-uncond", "--first-stage", folder / "vqvae", "--device", "cpu", *few)
    code, _, complaint = say(*words, "--out", tmp_path / "run")
    assert code == 0, complaint
    stored = load_model(tmp_path / "run" / "model.safetensors")
    assert stored.spec.plain()["first_stage"]["channels"] == 32

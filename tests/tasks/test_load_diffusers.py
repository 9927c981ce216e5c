"""Folders of diffusers through the same door as all models."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from darkroom.autoencoder.model import Autoencoder
from darkroom.core.compute import sampling_compute
from darkroom.core.errors import ModelFileError
from darkroom.tasks.find import find, name_of, read_whole
from darkroom.tasks.first_stage import open_first_stage
from darkroom.tasks.load import load
from darkroom.tasks.parts import load_autoencoder, load_network
from pipelines import first_stage, save_text, text_parts, unconditional


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders") / "my.pipeline"
    unconditional().save_pretrained(folder)
    return folder


def test_a_pipeline_is_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder, device="cpu")
    assert (model.name, name_of(folder), find(folder)) == ("my.pipeline", "my.pipeline", folder)
    one, again = (model.sample(seed=3, steps=2) for _ in range(2))
    assert isinstance(one[0], Image.Image)
    assert one[0].size == (16, 16)
    assert one[0].tobytes() == again[0].tobytes()
    assert len(model.card["spec_hash"]) == 12
    assert read_whole(folder).card["family"] == "LDMPipeline"
    monkeypatch.chdir(folder)
    assert load(".", device="cpu").name == "my.pipeline"
    with pytest.raises(ModelFileError, match="says itself what it is; leave the YAML away"):
        load(folder, config=folder / "unet" / "config.json")


def test_the_parts_of_a_pipeline(folder: Path) -> None:
    assert isinstance(load_autoencoder(folder, device="cpu"), Autoencoder)
    network = load_network(folder / "unet", device="cpu", dtype="bfloat16")
    assert network(torch.randn(1, 3, 8, 8).bfloat16(), torch.tensor([1])).dtype == torch.bfloat16
    opened = open_first_stage(folder / "vqvae", compute=sampling_compute("cpu", "auto"))
    assert (opened.name, opened.size) == ("vqvae", 16)
    assert open_first_stage(folder, compute=sampling_compute("cpu", "auto")).name == "my.pipeline"


def test_weights_for_other_programs_beside_the_index(folder: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(folder, tmp_path / "both")
    shutil.copy(whole / "unet" / "diffusion_pytorch_model.safetensors", whole / "model.safetensors")
    assert find(whole) == whole
    assert read_whole(whole).card["family"] == "LDMPipeline"


def test_captions_in_words(tmp_path: Path) -> None:
    model = load(save_text(tmp_path / "text", text_parts()), device="cpu")
    assert len(model.sample("a red circle", count=2, steps=2, guidance=2.0)) == 2


def test_one_first_stage_fits_another_folder_of_it(folder: Path, tmp_path: Path) -> None:
    first_stage("kl").save_pretrained(tmp_path)
    assert load(folder, device="cpu").with_decoder(tmp_path).card["decoder"]["name"] == tmp_path.name

"""`darkroom train tiny-decoder` and `darkroom sample --decoder`, as a person sees them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.cli.main import main
from darkroom.recipes.given import pictures_of, with_first_stage
from darkroom.recipes.read import recipe
from darkroom.tasks.find import read_whole

STAGES = (
    "data.count=12",
    "first_stage.train.steps=2",
    "first_stage.train.batch=2",
    "first_stage.train.warmup=1",
)
WHOLE = ("denoiser.train.steps=1", "denoiser.train.batch=2", "denoiser.sample.count=1", "denoiser.sample.steps=1")
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model `words`, and a decoder for it, `quick`."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "tiny-text", *STAGES, *WHOLE, "--device", "cpu", "--out", str(folder / "words")]) == 0
    tiny = ["train", "tiny-decoder", "--first-stage", str(folder / "words"), *STAGES, "--device", "cpu"]
    assert main([*tiny, "--out", str(folder / "quick")]) == 0
    return folder


def note(path: Path) -> dict[str, Any]:
    with Image.open(path) as picture:
        return json.loads(picture.info["darkroom"])


def test_the_decoder_takes_the_size_of_its_model(say: Say, runs: Path) -> None:
    found = json.loads(say("inspect", runs / "quick" / "model.safetensors", "--json")[1])
    assert (found["kind"], found["card"]["data"]["size"], found["factor"]) == ("first stage", 32, 4)
    assert found["spec"]["tiny"]["shuffle"] == 1
    assert found["latents"] is not None
    report = json.loads(say("inspect", runs / "quick", "--json")[1])["stages"]["first_stage"]["report"]
    assert {"psnr", "full_psnr"} <= report.keys()


def test_a_sample_says_which_decoder_it_had(say: Say, runs: Path, tmp_path: Path) -> None:
    common = ("a star", "--model", runs / "words", "--steps", 2, "--out")
    quick = runs / "quick"
    assert say("sample", *common, tmp_path / "full")[0] == 0
    assert say("sample", *common, tmp_path / "tiny", "--decoder", quick)[0] == 0
    full, tiny = (tmp_path / name / "0000.png" for name in ("full", "tiny"))
    digits = json.loads(say("inspect", quick / "model.safetensors", "--json")[1])["hash"]
    assert note(tiny) == {**note(full), "decoder": {"name": "quick", "spec_hash": digits}}
    assert Image.open(full).tobytes() != Image.open(tiny).tobytes()
    own = runs / "words" / "first_stage" / "model.safetensors"
    assert say("sample", *common, tmp_path / "own", "--decoder", own)[0] == 0
    assert Image.open(full).tobytes() == Image.open(tmp_path / "own" / "0000.png").tobytes()


def test_like_needs_the_decoder_again(say: Say, refused: Callable[..., str], runs: Path, tmp_path: Path) -> None:
    words = ("--model", runs / "words", "--steps", 1, "--batch", 1, "--out")
    assert say("sample", "a star", *words, tmp_path / "one", "--decoder", runs / "quick")[0] == 0
    like = ("--like", tmp_path / "one" / "0000.png", *words, tmp_path / "two")
    assert "decoded by 'quick' (spec " in refused("sample", *like)
    assert say("sample", *like, "--decoder", runs / "quick")[0] == 0
    first, second = (tmp_path / name / "0000.png" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_decoders_that_do_not_fit(refused: Callable[..., str], runs: Path, tmp_path: Path) -> None:
    words = ("sample", "a star", "--model", "emoji", "--out", tmp_path / "out", "--decoder")
    assert "quick does not fit emoji: its encoder is another" in refused(*words, runs / "quick")
    assert "no such file, run folder or built-in model" in refused(*words, runs / "nowhere")
    assert not (tmp_path / "out").exists()


def test_runs_that_cannot_be_begun(refused: Callable[..., str], runs: Path, tmp_path: Path) -> None:
    for more in ((), ("--plan",)):
        told = refused("train", "tiny-decoder", *more, "--out", tmp_path / "run")
        assert "trains a decoder for a first stage that exists; say which with --first-stage MODEL" in told
    words = ("train", "tiny-decoder", "data.size=36", "--out", tmp_path / "run", "--first-stage")
    assert "decoder" in refused(*words, "emoji", "first_stage.model.tiny=null")
    assert not (tmp_path / "run").exists()


def test_what_would_train_nothing(refused: Callable[..., str], runs: Path, tmp_path: Path) -> None:
    words = ("train", "tiny-text", "--stage", "first", "--first-stage", runs / "words", "--out", tmp_path / "run")
    assert "leave one of them away" in refused(*words)
    assert not (tmp_path / "run").exists()


def test_a_decoder_learns_from_the_pictures_of_its_run(tmp_path: Path, runs: Path) -> None:
    copy = shutil.copytree(runs / "words", tmp_path / "copy")
    text = (copy / "recipe.yaml").read_text()
    assert "source: shapes\n" in text
    (copy / "recipe.yaml").write_text(text.replace("source: shapes\n", "source: 'shapes:single'\n"))
    assert pictures_of(str(copy)) == "shapes:single"
    assert pictures_of(str(copy / "model.safetensors")) is None
    made = with_first_stage(recipe("tiny-decoder"), read_whole(copy), source=pictures_of(str(copy)))
    assert made.data.source == "shapes:single"


def test_a_plan_of_a_decoder(say: Say, runs: Path, tmp_path: Path) -> None:
    words = ("train", "tiny-decoder", *STAGES, "--first-stage", runs / "words", "--out", tmp_path / "run")
    found = json.loads(say(*words, "--plan", "--json", "--device", "cpu")[1])
    assert list(found["stages"]) == ["first_stage"]
    assert found["data"]["size"] == 32
    assert found["parameters"]["network"] == 0
    assert not (tmp_path / "run").exists()

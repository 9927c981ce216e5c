"""`darkroom train --from`: fine-tuning in words."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from darkroom.checkpoint.store import load_model
from darkroom.cli.main import main

Say = Callable[..., tuple[int, str, str]]
FEW = ("first_stage.train.steps=2", "first_stage.train.batch=2", "first_stage.train.warmup=1", "data.count=12")
SHORT = (
    "denoiser.train.steps=2",
    "denoiser.train.batch=2",
    "denoiser.train.warmup=0",
    "denoiser.sample.count=1",
    "denoiser.sample.steps=1",
)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "parent"
    assert main(["train", "tiny-uncond", *FEW, *SHORT, "--device", "cpu", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    for number in range(5):
        path = tmp_path / "drawings" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (48, 40), (50 * number, 200, 90)).save(path)
    return tmp_path / "drawings"


def test_a_folder_goes_on_from_a_model(say: Say, parent: Path, drawings: Path, tmp_path: Path) -> None:
    words = ("train", drawings, "--from", parent, "--device", "cpu", *SHORT)
    code, told, _ = say(*words, "--plan", "--json")
    assert code == 0
    plan = json.loads(told)
    assert plan["why"][0].startswith("on from parent; an unconditional model")
    assert set(plan["stages"]) == {"denoiser"}
    code, told, err = say(*words, "--out", tmp_path / "run")
    assert code == 0, err
    spec = load_model(tmp_path / "run" / "model.safetensors").spec
    assert spec == load_model(parent / "model.safetensors").spec
    again = say(*words, "--out", tmp_path / "run")
    assert again[0] == 0
    assert "finished" in again[2]
    refused = say("train", drawings, *SHORT, "--device", "cpu", "--out", tmp_path / "run")
    assert refused[0] == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--stage", "first"), "leave --first-stage and --stage away"),
        (("--distill", "emoji"), "--from trains a model further and --distill makes one of few steps of it; give one"),
        (("--first-stage", "emoji"), "leave --first-stage and --stage away"),
        (("data.size=20",), "multiples of"),
    ],
)
def test_what_does_not_fit_is_one_sentence(say: Say, parent: Path, drawings: Path, words, sentence: str) -> None:
    code, _, err = say("train", drawings, "--from", parent, *words)
    assert code == 2
    assert sentence in err
    assert not Path("runs/drawings-0").exists()


def test_a_model_of_few_steps_is_made_of_another(say: Say, parent: Path, drawings: Path, tmp_path: Path) -> None:
    words = ("train", drawings, "--distill", parent, "--device", "cpu", *SHORT[:3], "denoiser.sample.count=1")
    code, told, _ = say(*words, "--plan", "--json")
    assert code == 0
    plan = json.loads(told)
    assert plan["why"][0].startswith("parent in few steps; an unconditional model")
    assert set(plan["stages"]) == {"denoiser"}
    code, told, err = say(*words, "--out", tmp_path / "few")
    assert code == 0, err
    code, told, err = say(
        "sample", "--model", tmp_path / "few", "--steps", 2, "--count", 2, "--out", tmp_path / "drawn"
    )
    assert (code, len(list((tmp_path / "drawn").glob("*.png")))) == (0, 2), err
    code, _, err = say("train", drawings, "--distill", tmp_path / "few")
    assert code == 2
    assert "few is distilled from parent" in err
    code, _, err = say("train", drawings, "--distill", parent, "--first-stage", "emoji")
    assert code == 2
    assert "--distill begins with a whole model" in err


def test_a_run_has_a_folder_of_its_own(say: Say, drawings: Path) -> None:
    code, _, err = say("train", drawings, "--out", drawings)
    assert code == 2
    assert "the pictures lie in this folder, and a run needs one of its own" in err
    assert not (drawings / "recipe.yaml").exists()


def test_the_yaml_of_a_given_first_stage_is_the_one_that_is_named(say: Say, drawings: Path, tmp_path: Path) -> None:
    (tmp_path / "stage.ckpt").touch()
    code, _, err = say("train", drawings, "--first-stage", tmp_path / "stage.ckpt", "--config", tmp_path / "none.yaml")
    assert code == 2
    assert "none.yaml: no such config file" in err


def test_a_model_that_is_not_there(say: Say, drawings: Path) -> None:
    code, _, err = say("train", drawings, "--from", "no-such-model")
    assert code == 2
    assert "no-such-model: no such file, run folder or built-in model" in err


def test_a_plan_refuses_weights_of_another_first_stage(say: Say, tmp_path: Path) -> None:
    words = ("train", "tiny-vq", *FEW, "first_stage.begin=pictures-f4", "--plan", "--out", tmp_path / "run")
    code, _, complaint = say(*words)
    assert code == 2
    assert "pictures-f4 is another first stage" in complaint


def test_a_recipe_whose_name_leads_elsewhere_is_given_a_folder(say: Say, tmp_path: Path) -> None:
    """A stranger's file shall not choose where on this disk it is carried out."""
    for name in ("../../elsewhere", "/elsewhere", "a/b", "a\\0b"):
        (tmp_path / "recipe.yaml").write_text(
            f'name: "{name}"\nsummary: s\ndata: {{source: shapes, size: 32}}\nfirst_stage: {{recipe: tiny-vq}}\n'
        )
        code, _, err = say("train", tmp_path / "recipe.yaml", "--plan")
        assert code == 2
        assert "no folder can have this name; choose one with --out, or give name=NAME" in err

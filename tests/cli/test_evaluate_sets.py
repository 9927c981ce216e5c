"""`darkroom evaluate` of sets: folders, models, cards that compare or are refused, kills."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from first_stages import store_first_stage
from PIL import Image

from darkroom.cli.evaluate_sets import Wanted, holds_pictures
from darkroom.data.sources import open_data
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run

Say = Callable[..., tuple[int, str, str]]
SMALL = (
    "data.count=8",
    "first_stage.train.steps=1",
    "first_stage.train.warmup=1",
    "denoiser.train.steps=1",
    "denoiser.train.batch=2",
    "denoiser.train.warmup=1",
    "denoiser.sample.count=1",
    "denoiser.sample.steps=1",
)


def pictures(folder: Path, *, seed: int, count: int) -> Path:
    folder.mkdir()
    source = open_data("shapes", seed=seed, size=32, limit=count).train
    for row in range(count):
        source.example(row).picture.save(folder / f"{row:03}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `made` and `real` pictures, and a model that nothing steers."""
    folder = tmp_path_factory.mktemp("sets")
    pictures(folder / "made", seed=1, count=24)
    pictures(folder / "real", seed=2, count=30)
    list(Run(recipe("tiny-uncond", overrides=SMALL), folder / "model", device="cpu").develop(page=False))
    return folder


def card(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "card.json").read_text())


def test_a_folder_of_pictures(say: Say, place: Path, tmp_path: Path) -> None:
    words = ("evaluate", place / "made", place / "real", "--device", "cpu", "--out", tmp_path / "card")
    code, table, _ = say(*words)
    assert code == 0
    found = card(tmp_path / "card")
    figures = {each["measure"]: each for each in found["figures"]}
    assert f"{figures['Fréchet distance']['value']:.5g}" in table
    assert found["subject"]["kind"] == "pictures"
    assert (found["protocol"]["count"], found["protocol"]["pictures"]["size"]) == (24, 32)
    assert found["protocol"]["reference"]["split"] == "all"
    assert found["protocol"]["sampling"] is None
    page = (tmp_path / "card" / "card.html").read_text()
    assert page.count("data:image/") == 2
    assert "Fréchet distance, judge" in (tmp_path / "card" / "card.md").read_text()
    told = json.loads(say(*words, "--json")[1])
    assert {**told, "time": 0} == {**found, "time": 0}


def test_a_model_that_nothing_steers(say: Say, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("evaluate", place / "model", place / "real", "--count", 6, "--steps", 2, "--device", "cpu")
    assert say(*words)[0] == 0
    own = tmp_path / "evaluations" / "model-on-real"
    found = card(own)
    assert found["protocol"]["sampling"]["steps"] == 2
    assert found["subject"]["weights_hash"]
    assert found["figures"][0]["count"] == 6
    code, text, _ = say(*words, "--against", own)
    assert (code, "the same" in text) == (0, True)
    code, text, sentence = say(*words, "--steps", 3, "--against", own / "card.json")
    assert (code, text) == (2, "")
    assert "sampling.steps (3 here, 2 there)" in sentence
    assert say("evaluate", place / "made", place / "real", "--count", 6, "--against", own)[0] == 0
    values = json.loads(say(*words, "--against", own, "--json")[1])
    assert values["against"][0]["better"] == "the same"


def test_reports_have_cards_too(say: Say, place: Path, tmp_path: Path) -> None:
    model = store_first_stage(tmp_path / "small.safetensors", codes=32)
    words = ("evaluate", model, place / "real", "--first-stage", "--split", "all", "--out", tmp_path / "card")
    assert say(*words)[0] == 0
    found = card(tmp_path / "card")
    assert found["protocol"]["kind"] == "first stage"
    assert found["time"]["seconds"] > 0
    assert any("biased upwards" in sentence for sentence in found["notes"])
    ways = {each["of"] for each in found["figures"]}
    assert ways == {"model", "bicubic x4"}
    assert "psnr" in say(*words, "--against", tmp_path / "card")[1]
    code, _, sentence = say(*words, "--count", 8, "--against", tmp_path / "card")
    assert code == 2
    assert "count (8 here, 30 there)" in sentence


def test_what_holds_pictures(place: Path, tmp_path: Path) -> None:
    assert holds_pictures(str(place / "made"))
    assert not holds_pictures(str(place / "model"))  # a run, whose pages have pictures too
    assert not holds_pictures(str(tmp_path))
    assert not holds_pictures("emoji")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("faces/", "m-on-faces"),
        ("shapes:single", "m-on-shapes-single"),
        ("https://me:word@example.org/cats/{000000..000199}.tar?sig=secret", "m-on-cats"),
    ],
)
def test_a_card_lies_in_a_folder_without_secrets(data: str, name: str) -> None:
    wanted = Wanted(
        data=data,
        features=(),
        split=None,
        count=None,
        batch=16,
        out=None,
        device="cpu",
        precision="auto",
        against=None,
    )
    assert wanted.folder("m") == Path("evaluations") / name


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("made", "--steps", "3"), "--steps does not fit"),
        (("made", "--masks", "x"), "--masks does not fit"),
        (("made", "--features", "nothing"), "no such feature network"),
        (("made", "--against", "nowhere.json"), "no card can be read"),
        (("made", "--size", "8"), "too small to compare"),
        (("model", "--match", "1"), "--match does not fit"),
        (("model", "--masks", "x"), "does not inpaint"),
        (("model", "--size", "32"), "--size does not fit"),
        (("model", "--first-stage", "--features", "judge"), "--features does not fit"),
    ],
)
def test_what_is_refused(
    refused: Callable[..., str], place: Path, tmp_path: Path, *, words: tuple[str, ...], sentence: str
) -> None:
    subject, *options = words
    found = refused("evaluate", place / subject, place / "real", "--out", tmp_path / "card", *options)
    assert sentence in found.splitlines()[-1]


def test_what_is_refused_leaves_no_folder(refused: Callable[..., str], place: Path, tmp_path: Path) -> None:
    for words in (("made", "--features", "nothing"), ("nowhere",), ("made", "--steps", "3")):
        refused("evaluate", place / words[0], place / "real", "--out", tmp_path / "deep" / "card", *words[1:])
    (tmp_path / "file").touch()
    found = refused("evaluate", place / "made", place / "real", "--out", tmp_path / "file" / "card")
    assert "choose another --out" in found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_picture_that_breaks_off_is_named(say: Say, place: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "bad").mkdir(exist_ok=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "bad" / f"{number}.bmp")
    broken = tmp_path / "bad" / "1.bmp"
    broken.write_bytes(broken.read_bytes()[:60])
    code, told, complaint = say("evaluate", tmp_path / "bad", place / "real", "--out", tmp_path / "card")
    assert (code, told) == (2, "")
    assert "1.bmp: the picture cannot be decoded" in complaint.splitlines()[-1]


def test_killed_at_any_moment_it_ends_with_the_same_card(place: Path, root: Path) -> None:
    tool = [sys.executable, root / "tools" / "measure_evaluate.py", "kills", "--kills", "2"]
    words = [place / "model", place / "real", "--count", "16", "--batch", "1", "--steps", "2"]
    done = subprocess.run([*map(str, tool), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 kills" in done.stdout

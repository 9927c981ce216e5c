"""`darkroom evaluate`: figures with their protocol, the same in table, JSON and file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from first_stages import store_first_stage
from PIL import Image

from darkroom.cli.evaluate_reports import _unknown
from darkroom.data.sources import open_data

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_first_stage(tmp_path_factory.mktemp("models") / "small.safetensors", codes=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of 40 x 44 pixels without a split of their own."""
    place = tmp_path_factory.mktemp("pictures")
    source = open_data("shapes", size=44, limit=40).train
    for row in range(40):
        source.example(row).picture.crop((0, 0, 40, 44)).save(place / f"{row:02}.png")
    return place


def test_a_table_a_file_and_json_agree(say: Say, model: Path, folder: Path, tmp_path: Path) -> None:
    words = ("evaluate", model, folder, "--first-stage", "--split", "all", "--device", "cpu")
    code, table, _ = say(*words, "--out", tmp_path / "new" / "quality.json")
    assert code == 0
    stored = json.loads((tmp_path / "new" / "quality.json").read_text())
    assert json.loads(say(*words, "--json")[1]) == stored
    rows = {line[:26].strip(): line[26:].split() for line in table.splitlines()}
    assert table.splitlines()[0].split() == ["small", "bicubic", "x4"]
    assert rows["PSNR (dB)"] == [f"{stored['figures']['psnr']:.2f}", f"{stored['bicubic']['x4']['psnr']:.2f}"]
    assert rows["SSIM"][0] == f"{stored['figures']['ssim']:.4f}"
    assert f"codes: {stored['codes']['used']} of 32 used" in table
    protocol = stored["protocol"]
    for told in (protocol["judge"]["hash"], protocol["data"]["fingerprint"], "32 x 32", "40 of all pictures", "f = 4"):
        assert told in table
    assert protocol["given"] == {"model": "small", "split": "all", "seed": 0, "count": None}


def test_splits_seeds_and_counts(say: Say, model: Path, folder: Path) -> None:
    def data(*words: object) -> dict[str, object]:
        told = say("evaluate", model, folder, "--first-stage", "--json", "--batch", 8, *words)[1]
        return json.loads(told)["protocol"]["data"]

    test, train = open_data(folder, seed=0).test, open_data(folder, seed=0).train
    assert data()["fingerprint"] == test.fingerprint()
    assert data("--split", "train")["fingerprint"] == train.fingerprint()
    assert data("--seed", 5)["fingerprint"] == open_data(folder, seed=5).test.fingerprint() != test.fingerprint()
    few = [data("--split", "train", "--count", 6, "--seed", seed) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    assert few[0]["pictures"] == 6
    assert data("--split", "all", "--count", 999)["pictures"] == 40


def test_the_split_is_that_of_the_models_training(say: Say, folder: Path, tmp_path: Path) -> None:
    path = store_first_stage(tmp_path / "moved" / "model.safetensors", seed=5)
    expected = open_data(folder, seed=5).test.fingerprint()
    code, told, notes = say("evaluate", path, folder, "--first-stage", "--json")
    protocol = json.loads(told)["protocol"]
    assert (code, protocol["data"]["fingerprint"], protocol["given"]["seed"]) == (0, expected, 5)
    assert "not known" not in notes
    silent = store_first_stage(tmp_path / "silent.safetensors")
    assert "which pictures this model learnt from is not known" in say("evaluate", silent, folder, "--first-stage")[2]


def test_a_report_that_cannot_be_written_is_told_before_measuring(
    say: Say, model: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "is.json").mkdir()
    (tmp_path / "file").touch()
    for name, sentence in (("is.json", "this is a folder"), ("file", "this is a file")):
        code, told, notes = say("evaluate", model, folder, "--first-stage", "--out", tmp_path / name)
        assert (code, told) == (2, "")
        assert sentence in notes


def test_the_size_is_asked_for_or_the_models_or_the_pictures(
    say: Say, model: Path, folder: Path, tmp_path: Path
) -> None:
    def size(place: Path, *words: object) -> int:
        words = ("evaluate", place, folder, "--first-stage", "--count", 2, "--json", *words)
        return json.loads(say(*words)[1])["protocol"]["preprocessing"]["size"]

    silent = store_first_stage(tmp_path / "silent.safetensors", size=None)
    assert (size(model), size(model, "--size", 16), size(silent)) == (32, 16, 40)


def test_built_in_scenes_and_a_whole_model(say: Say) -> None:
    code, told, said = say("evaluate", "emoji", "shapes", "--first-stage", "--count", 4, "--json")
    assert code == 0, said
    found = json.loads(told)
    assert found["protocol"]["preprocessing"]["size"] == 64
    assert found["codes"] is None
    assert found["figures"]["recall"] is not None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "a first stage alone, which draws nothing"),
        (("--first-stage", "--size", "30"), "size 30 does not fit: a multiple of 4 is needed"),
        (("--first-stage", "--size", "8"), "16 fits"),
        (("--first-stage", "--split", "middle"), "'--split'"),
        (("--first-stage", "--count", "0"), "'--count'"),
        (("--first-stage", "--device", "toaster"), "device 'toaster' is unknown"),
    ],
)
def test_what_is_refused(
    refused: Callable[..., str], model: Path, folder: Path, *, words: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused("evaluate", model, folder, *words)


def test_data_and_models_that_do_not_fit(
    refused: Callable[..., str], model: Path, *, folder: Path, tmp_path: Path
) -> None:
    assert "no such folder" in refused("evaluate", model, tmp_path / "nowhere", "--first-stage")
    assert "no pictures" in refused("evaluate", model, tmp_path, "--first-stage")
    assert "no such file" in refused("evaluate", tmp_path / "no.safetensors", folder, "--first-stage")
    odd = store_first_stage(tmp_path / "odd.safetensors", channels=2)
    assert "pictures of 2 channels" in refused("evaluate", odd, folder, "--first-stage")
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "x.json"
    assert "cannot be written" in refused("evaluate", model, folder, "--first-stage", "--out", out)


def test_a_picture_that_breaks_off_is_named(refused: Callable[..., str], model: Path, tmp_path: Path) -> None:
    for name in ("train/0.bmp", "test/0.bmp", "test/1.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])  # a whole header: told when it is decoded
    assert "1.bmp: the picture cannot be decoded" in refused("evaluate", model, tmp_path, "--first-stage")


@pytest.mark.parametrize("card", [{}, {"data": [1]}, {"data": {"source": "shapes"}}, {"data": {"source": 3}}])
def test_what_a_card_leaves_open(card: dict[str, object]) -> None:
    assert "is known" in _unknown(card)
    assert "not on `shapes`" in _unknown({"data": {"source": "emoji_64"}})

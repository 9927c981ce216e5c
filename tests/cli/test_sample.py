"""`darkroom sample` with the built-in model, on pictures of 16 pixels: options, files, folders, what is refused."""

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from darkroom.cli import sample as verb
from darkroom.tasks import load as loading
from darkroom.tasks.generate import Sampled, generate
from darkroom.tasks.model import Model

Say = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
SMALL = ("--size", 16, "--steps", 2, "--batch", 1)


@pytest.fixture(scope="module")
def default() -> Model:
    return loading.load(device="cpu")


@pytest.fixture(autouse=True)
def loaded_once(default: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read once, not for each command."""
    read = loading.load

    def load(name: str, **options: Any) -> Model:
        return default if name == loading.DEFAULT else read(name, **options)

    monkeypatch.setattr(loading, "load", load)


def note(path: Path) -> dict[str, Any]:
    with Image.open(path) as picture:
        return json.loads(picture.info["darkroom"])


def same(one: Path, other: Path) -> bool:
    with Image.open(one) as first, Image.open(other) as second:
        return (np.asarray(first) == np.asarray(second)).all()


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_python_offers_what_the_command_offers() -> None:
    command, python = (set(inspect.signature(each).parameters) for each in (verb.run, Model.sample))
    where = {
        "out",
        "grid",
        "as_json",
        "device",
        "precision",
        "engine",
        "model",
        "config",
        "decoder",
    }  # load, with_decoder
    named = {"semantic": "map"}  # in Python a word of its own would shade nothing
    assert {named.get(each, each) for each in command - where - {"prompts"}} == python - {"self", "on_step"}


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ("\ufeffman\r\n\r\n  woman \r\n".encode(), ["man", "woman"]),
        (b"man", ["man"]),
        (b"man\rwoman", ["man", "woman"]),
        ("# no comment\nman\u2028woman".encode(), ["# no comment", "man\u2028woman"]),
    ],
)
def test_prompts_from_a_file(say: Say, tmp_path: Path, *, content: bytes, prompts: list[str]) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    words = ("--prompts", tmp_path / "prompts.txt", "--count", 2, *SMALL, "--out", tmp_path)
    assert say("sample", *words)[0] == 0
    notes = [note(path) for path in sorted(tmp_path.glob("*.png"))]
    assert [each["prompt"] for each in notes] == [text for text in prompts for _ in range(2)]
    assert [each["index"] for each in notes] == list(range(2 * len(prompts)))


def test_a_file_that_is_not_utf8_says_what_to_do(refused: Refused, tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16"):
        (tmp_path / "prompts.txt").write_text("mädchen", encoding=encoding)
        assert "cannot be read as a text file of prompts; save it as UTF-8" in refused(
            "sample", "--prompts", tmp_path / "prompts.txt"
        )
    assert "cannot be read as a text file of prompts (Is a directory)" in refused("sample", "--prompts", tmp_path)


def test_negatives_for_all_or_for_each(say: Say, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("man\nwoman\n")
    words = ("--prompts", tmp_path / "prompts.txt", *SMALL)
    assert say("sample", *words, "--negative", "hand", "--out", tmp_path / "one")[0] == 0
    assert say("sample", *words, "--negative", "hand", "--negative", "face", "--out", tmp_path / "each")[0] == 0
    assert [note(tmp_path / "one" / name)["negative"] for name in ("0000.png", "0001.png")] == ["hand", "hand"]
    assert [note(tmp_path / "each" / name)["negative"] for name in ("0000.png", "0001.png")] == ["hand", "face"]
    assert same(tmp_path / "one" / "0000.png", tmp_path / "each" / "0000.png")
    assert not same(tmp_path / "one" / "0001.png", tmp_path / "each" / "0001.png")
    told = refused("sample", *words, *["--negative", "hand"] * 3, "--out", tmp_path / "three")
    assert "3 negative prompts came for 2; give one for all or one for each" in told


def test_a_way_between_prompts_and_seeds(say: Say, tmp_path: Path) -> None:
    way, plain, again = (tmp_path / name for name in ("way", "plain", "again"))
    words = ("man", "--to", "woman", "--seed", 3, "--to-seed", 4, "--first", 5)
    code, told, _ = say("sample", *words, "--count", 4, *SMALL, "--grid", "--out", way)
    assert (code, told) == (0, f"4 pictures in {way}, together on {way / 'grid.png'}\n")
    with Image.open(way / "grid.png") as sheet:
        assert sheet.size == (2 + 4 * 18, 2 + 18)  # one row
    for place, prompt, seed in ((0, "man", 3), (3, "woman", 4)):
        assert say("sample", prompt, "--seed", seed, "--first", 5, *SMALL, "--out", plain)[0] == 0
        assert same(plain / "0000.png", way / f"000{place}.png")
    told = note(way / "0001.png")
    assert {key: told[key] for key in ("to_prompt", "to_seed", "at", "index")} == {
        "to_prompt": "woman",
        "to_seed": 4,
        "at": 1 / 3,
        "index": 5,
    }
    assert say("sample", "--like", way / "0001.png", "--out", again)[0] == 0
    assert (again / "0000.png").read_bytes() == (way / "0001.png").read_bytes()
    assert say("sample", *words, "--at", 1 / 3, *SMALL, "--out", again)[0] == 0
    assert (again / "0000.png").read_bytes() == (way / "0001.png").read_bytes()
    words_of_it = say("inspect", way / "0001.png")[1]
    assert "prompt 'man' to 'woman', picture 5 of seed 3 to 4; 33.3 % of the way; " in words_of_it


def test_a_way_without_a_prompt_begins_with_one_of_the_card(say: Say, refused: Refused, tmp_path: Path) -> None:
    assert say("sample", "--to-seed", 1, "--count", 3, *SMALL, "--out", tmp_path)[0] == 0
    notes = [note(path) for path in sorted(tmp_path.glob("*.png"))]
    assert len({each["prompt"] for each in notes}) == 1
    assert [each["at"] for each in notes] == [0, 0.5, 1]
    assert "a prompt to go to and none to start from" in refused("sample", "--to", "man", "--count", 3)


def test_guidance_only_in_an_interval(say: Say, refused: Refused, tmp_path: Path) -> None:
    words = ("man", "--guidance", 5, *SMALL, "--out")
    assert say("sample", *words, tmp_path / "all")[0] == 0
    assert say("sample", *words, tmp_path / "some", "--guidance-interval", 3, "inf")[0] == 0
    told = note(tmp_path / "some" / "0000.png")
    assert told["guidance_interval"] == [3, None]  # plain JSON
    assert not same(tmp_path / "all" / "0000.png", tmp_path / "some" / "0000.png")
    assert say("sample", "--like", tmp_path / "some" / "0000.png", "--out", tmp_path / "again")[0] == 0
    assert same(tmp_path / "some" / "0000.png", tmp_path / "again" / "0000.png")
    assert "guidance_interval 2 to 1 does not fit" in refused(
        "sample", *words, tmp_path / "odd", "--guidance-interval", 2, 1
    )


@pytest.mark.parametrize("prompt", ["", "man"])
def test_like_repeats_also_what_says_nothing(say: Say, tmp_path: Path, prompt: str) -> None:
    assert say("sample", prompt, "--first", 2, "--count", 2, *SMALL, "--out", tmp_path / "one")[0] == 0
    assert say("sample", "--like", tmp_path / "one" / "0001.png", "--out", tmp_path / "two")[0] == 0
    assert (tmp_path / "two" / "0000.png").read_bytes() == (tmp_path / "one" / "0001.png").read_bytes()
    assert note(tmp_path / "two" / "0000.png")["index"] == 3


def test_like_takes_changes(say: Say, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    words = ("--negative", "hand", "--solver", "ddim", "--eta", 0.5)
    assert say("sample", "man", *words, *SMALL, "--out", one)[0] == 0
    like = ("--like", one / "0000.png", "--out", two)
    for changes, key, expected in (
        (("--solver", "euler"), "eta", 0),
        (("--guidance", 1), "negative", None),
        (("--negative", ""), "negative", None),
        (("--first", 4), "index", 4),
    ):
        assert say("sample", *like, *changes)[0] == 0, changes
        assert note(two / "0000.png")[key] == expected
        assert not same(one / "0000.png", two / "0000.png")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--guidance", "nan"), "'guidance': input should be a finite number"),
        (("--guidance", "inf"), "'guidance': input should be a finite number"),
        (("--eta", "inf"), "'eta': input should be a finite number"),
        (("--seed", 2**63), "'seed': input should be less than 9223372036854775808"),
        (("--to-seed", 2**70), "'to_seed': input should be less than"),
        (("--size", "99999968"), "99999968x99999968 is too large for a model of 64x64 to draw as a whole"),
        (("--size", "64000000000000", "--window", "64"), "pictures have at most 67 million pixels"),
        (("--size", "0x" + "9" * 400), "size '0x999"),
        (("--size", "9" * 5000), "write HEIGHTxWIDTH"),
        (("--count", 10**7), "'count': input should be less than or equal to 1000000"),
        (("--at", 0.5), "`at` is a place between two ends"),
        (("--at", 2), "--at"),
        (("--to", "woman"), "a way from one end to the other is a count of 2 pictures or more"),
        (("--guidance", 1, "--guidance-rescale", 0.5), "guidance_rescale works through guidance"),
        (("--grid", "--count", 1_000_000), "leave --grid out"),
        (("--like", "nowhere.png"), "nowhere.png: no such picture"),
    ],
)
def test_what_does_not_fit(refused: Refused, tmp_path: Path, words: tuple[object, ...], sentence: str) -> None:
    assert sentence in refused("sample", "man", "--steps", 1, *words, "--out", tmp_path / "out")
    assert not list(tmp_path.rglob("*.png"))


def test_bytes_that_are_no_text(refused: Refused, tmp_path: Path) -> None:
    told = refused("sample", "man \udcff", "--out", tmp_path / "out")
    assert "'prompts.0': this is no UTF-8 text ('man \\udcff' came)" in told
    assert not (tmp_path / "out").exists()


def test_sheets_have_a_row_for_each_prompt(say: Say, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("man\nwoman\n")
    words = ("--steps", 1, "--size", "16x32", "--grid", "--out", tmp_path)
    for more, across, down in (
        (("--prompts", tmp_path / "prompts.txt", "--count", 3), 3, 2),
        (("man", "--count", 5), 3, 2),
        (("man",), 1, 1),
    ):
        assert say("sample", *more, *words)[0] == 0
        with Image.open(tmp_path / "grid.png") as sheet:
            assert sheet.size == (2 + across * 34, 2 + down * 18)
    code, told, _ = say("sample", "man", *words, "--json")
    assert (code, json.loads(told)["grid"]) == (0, str(tmp_path / "grid.png"))
    assert note(tmp_path / "grid.png")["sheet_of"] == 1


def test_a_folder_with_pictures_of_before(say: Say, tmp_path: Path) -> None:
    words = ("man", *SMALL, "--out", tmp_path)
    assert say("sample", *words, "--count", 3)[0] == 0
    (tmp_path / "holiday.png").write_bytes(b"")
    code, _, told = say("sample", *words, "--seed", 1)
    assert (code, f"note: {tmp_path} also holds 0001.png to 0002.png (2 pictures) of an earlier command" in told) == (
        0,
        True,
    )
    assert [note(tmp_path / f"000{place}.png")["seed"] for place in range(3)] == [1, 0, 0]
    assert "also holds" not in say("sample", *words, "--count", 3)[2]


def test_pictures_of_others_are_not_written_over(refused: Refused, tmp_path: Path) -> None:
    mine = tmp_path / "0001.png"
    Image.new("RGB", (4, 4)).save(mine)
    before = mine.read_bytes()
    told = refused("sample", "man", "--count", 2, *SMALL, "--out", tmp_path)
    assert "0001.png: this is there already and not from Darkroom; choose another --out" in told
    assert (mine.read_bytes(), names(tmp_path)) == (before, ["0001.png"])
    mine.rename(tmp_path / "grid.png")
    assert "grid.png: this is there already" in refused("sample", "man", "--grid", *SMALL, "--out", tmp_path)


def test_the_picture_to_repeat_is_not_written_over(say: Say, refused: Refused, tmp_path: Path) -> None:
    assert say("sample", "man", "--count", 2, *SMALL, "--out", tmp_path)[0] == 0
    told = refused("sample", "--like", tmp_path / "0001.png", "--out", tmp_path)
    assert "the picture to repeat is in this folder; choose another --out" in told


def test_folders_that_cannot_be_written(
    say: Say, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert "file: cannot be written (File exists)" in refused("sample", "man", *SMALL, "--out", tmp_path / "file")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("darkroom.core.pictures.save_png", full)
    code, out, told = say("sample", "man", *SMALL, "--out", tmp_path / "full")
    assert (code, out) == (2, "")
    assert told.splitlines()[-1].endswith("0000.png: cannot be written (No space left on device)")


def test_ctrl_c_between_pictures_keeps_those_written(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: Any, **options: Any) -> Iterator[Sampled]:
        for place, sampled in enumerate(generate(*given, **options)):
            if place == 2:
                raise KeyboardInterrupt
            yield sampled

    monkeypatch.setattr("darkroom.tasks.generate.generate", stopped)
    code, out, told = say("sample", "man", "--count", 4, *SMALL, "--grid", "--out", tmp_path)
    assert (code, out) == (130, "")
    assert told.endswith(f"2 of 4 pictures are in {tmp_path}\ndarkroom: stopped; what was written is kept\n")
    assert names(tmp_path) == ["0000.png", "0001.png"]
    assert note(tmp_path / "0001.png")["index"] == 1


def test_ctrl_c_while_writing_leaves_no_half_picture(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Image.Image.save

    def torn(picture: Image.Image, path: Path, **options: Any) -> None:
        whole(picture, path, **options)
        if json.loads(picture.info["darkroom"])["index"] == 1:
            path.write_bytes(path.read_bytes()[:50])
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", torn)
    assert say("sample", "man", "--count", 3, *SMALL, "--out", tmp_path)[0] == 130
    assert names(tmp_path) == ["0000.png"]


def test_a_prompt_longer_than_the_model_reads_is_told(say: Say, tmp_path: Path) -> None:
    code, _, told = say("sample", "man " * 200, *SMALL, "--out", tmp_path)
    assert code == 0
    assert "note: the prompt is longer than the " in told


def test_a_mask_that_paints_nothing_is_told(say: Say, tmp_path: Path) -> None:
    """As one of 0 and 1 is, which somebody meant to be black and white."""
    for name, level in (("photo", 90), ("mask", 1)):
        Image.new("L", (16, 16), level).save(tmp_path / f"{name}.png")
    words = ("--image", tmp_path / "photo.png", "--mask", tmp_path / "mask.png", "--out", tmp_path / "out")
    code, _, told = say("sample", "man", *words, *SMALL)
    assert (code, "note: a mask has nothing white in it, so that nothing is painted" in told) == (0, True)


def test_a_prompt_that_is_the_name_of_a_file_is_told(say: Say, tmp_path: Path) -> None:
    (tmp_path / "cats.txt").write_text("a cat")
    code, _, told = say("sample", tmp_path / "cats.txt", "--steps", 1, "--out", tmp_path / "out")
    assert code == 0
    assert "is taken as words; --prompts reads a file" in told


def test_after_a_while_it_is_said_what_is_faster(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(number: int) -> bool:
        _, _, complained = say("sample", "a red heart", *SMALL, "--out", tmp_path / str(number))
        return "note: --precision bfloat16 takes about half the time on this machine" in complained

    monkeypatch.setattr("darkroom.core.compute.native_bfloat16", lambda _: True)
    assert not told(0)
    monkeypatch.setattr("darkroom.cli.sample_pictures.LONG", -1.0)
    assert told(1)
    monkeypatch.setattr("darkroom.core.compute.native_bfloat16", lambda _: False)
    assert not told(2)

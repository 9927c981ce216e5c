"""`darkroom reconstruct`: what lies in the folder afterwards, what is said, what is left out or refused."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from first_stages import store_first_stage
from PIL import Image

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_first_stage(tmp_path_factory.mktemp("models") / "small.safetensors")


def noise(path: Path, size: tuple[int, int] = (20, 13), *, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(len(str(path))).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(levels).convert(mode).save(path)
    return path


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def test_each_picture_comes_back_at_its_own_size(say: Say, model: Path, tmp_path: Path) -> None:
    one, folder, out = noise(tmp_path / "one.jpg", (33, 18)), tmp_path / "more", tmp_path / "out"
    noise(folder / "b.png", (8, 8), mode="RGBA")
    noise(folder / "deep" / "a.bmp", (21, 40), mode="L")
    code, told, _ = say("reconstruct", model, one, folder, "--out", out, "--json")
    assert code == 0
    found = json.loads(told)
    assert {each.name: opened(each).size for each in out.iterdir()} == {
        "one.png": (33, 18),
        "b.png": (8, 8),
        "a.png": (21, 40),
    }
    assert [(each["width"], each["height"]) for each in found["pictures"]] == [(33, 18), (8, 8), (21, 40)]
    assert [each["ssim"] is None for each in found["pictures"]] == [False, True, False]
    decibels = [each["psnr"] for each in found["pictures"]]
    assert found["mean"]["psnr"] == pytest.approx(sum(decibels) / 3)
    assert (found["model"], found["left_out"], found["grid"]) == ("small", [], None)


def test_the_figure_is_that_of_the_file(say: Say, model: Path, tmp_path: Path) -> None:
    source = noise(tmp_path / "a.png")
    told = say("reconstruct", model, source, "--out", tmp_path / "out")[1]
    before, after = (np.asarray(opened(path), dtype=float) for path in (source, tmp_path / "out" / "a.png"))
    expected = 10 * np.log10(255**2 / ((before - after) ** 2).mean())
    assert f"PSNR {expected:6.2f} dB" in told.splitlines()[0]
    assert "13x20" in told.splitlines()[0]
    assert told.splitlines()[1].startswith("mean of 1")


def test_names_never_collide(say: Say, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    paths = [noise(tmp_path / name) for name in ("a.png", "a.jpg", "x/A.png", "a-2.bmp", "grid.png", "y.tar.png")]
    assert say("reconstruct", model, *paths, paths[0], "--out", out, "--grid")[0] == 0
    names = {"a.png", "a-2.png", "A-3.png", "a-2-2.png", "grid-2.png", "y.tar.png", "grid.png"}
    assert {each.name for each in out.iterdir()} == names
    notes = [json.loads(opened(out / name).info["darkroom"]) for name in sorted(names - {"grid.png"})]
    assert sorted(note["reconstruction_of"] for note in notes) == sorted(path.name for path in paths)
    long = noise(tmp_path / f"{'ü' * 120}.png")
    assert say("reconstruct", model, long, "--out", tmp_path / "long")[0] == 0
    assert [each.name for each in (tmp_path / "long").iterdir()] == [f"{'ü' * 100}.png"]


def test_the_pictures_given_are_never_touched(
    refused: Callable[..., str], say: Say, model: Path, tmp_path: Path
) -> None:
    source = noise(tmp_path / "a.png")
    before = source.read_bytes()
    for given in (tmp_path, source):
        assert "choose another --out" in refused("reconstruct", model, given, "--out", tmp_path)
    inside = tmp_path / "out"
    for _ in range(2):  # what the first run made is not taken up by the second
        assert say("reconstruct", model, tmp_path, "--out", inside)[0] == 0
        assert [each.name for each in inside.iterdir()] == ["a.png"]
    assert source.read_bytes() == before
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "a.png").symlink_to(source)
    assert "a.png: this is there already and not from" in refused("reconstruct", model, source, "--out", linked)
    assert source.read_bytes() == before


def test_pictures_of_others_are_not_written_over(
    refused: Callable[..., str], say: Say, model: Path, tmp_path: Path
) -> None:
    source, out = noise(tmp_path / "in" / "a.png"), tmp_path / "out"
    for name in ("a.png", "grid.png"):
        other = noise(out / name)
        before = other.read_bytes()
        assert f"{name}: this is there already" in refused("reconstruct", model, source, "--out", out, "--grid")
        assert other.read_bytes() == before
        other.unlink()
    for _ in range(2):  # its own it makes anew
        assert say("reconstruct", model, source, "--out", out, "--grid")[0] == 0


def test_links_that_lead_to_themselves(say: Say, refused: Callable[..., str], model: Path, tmp_path: Path) -> None:
    noise(tmp_path / "in" / "a.png")
    loop = tmp_path / "in" / "loop.png"
    loop.symlink_to(loop)
    code, _, said = say("reconstruct", model, tmp_path / "in", "--out", tmp_path / "out")
    assert (code, [each.name for each in (tmp_path / "out").iterdir()]) == (0, ["a.png"])
    assert "loop.png" in said
    assert "cannot be written" in refused("reconstruct", model, tmp_path / "in" / "a.png", "--out", loop)


def test_the_sheet_has_originals_above(say: Say, model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for number in range(9):
        noise(folder / f"{number}.png", (16, 12))
    noise(folder / "large.png", (300, 20))
    code, told, _ = say("reconstruct", model, folder, "--out", out, "--grid")
    assert code == 0
    assert f"all on {out / 'grid.png'}" in told
    sheet = np.asarray(opened(out / "grid.png"))
    assert sheet.shape == (2 + 4 * (17 + 2), 2 + 8 * (256 + 2), 3)  # the large one fits 256 x 17
    left = 2 + (256 - 16) // 2
    cell = np.asarray(opened(folder / "0.png")), np.asarray(opened(out / "0.png"))
    for row, picture in enumerate(cell):
        top = 2 + row * 19 + (17 - 12) // 2
        assert np.array_equal(sheet[top : top + 12, left : left + 16], picture)
    assert (sheet[2 + 2 * 19 :, 2 + 2 * 258 :] == 255).all()  # ten pictures: the second pair of rows has two


def test_a_broken_picture_among_others_is_left_out(say: Say, model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    whole = noise(folder / "whole.png", (64, 64))
    (folder / "cut.png").write_bytes(whole.read_bytes()[:3000])
    (folder / "text.jpg").write_text("hello")
    (folder / "notes.txt").write_text("not looked at")
    code, told, said = say("reconstruct", model, folder, "--out", out, "--json")
    assert code == 0
    assert [each.name for each in out.iterdir()] == ["whole.png"]
    assert [Path(each["source"]).name for each in json.loads(told)["left_out"]] == ["cut.png", "text.jpg"]
    assert said.count("note: left out: ") == 2
    assert "mend or remove it" in said


def test_nothing_but_broken_pictures(say: Say, model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    code, out, said = say("reconstruct", model, tmp_path / "a.png", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "nothing could be reconstructed" in said
    assert not (tmp_path / "out").exists()


def test_what_only_looks_like_a_picture_file(say: Say, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    noise(folder / "whole.png")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "nowhere.png").symlink_to(tmp_path / "absent.png")
    code, _, said = say("reconstruct", model, folder, "--out", tmp_path / "out")
    assert (code, [each.name for each in (tmp_path / "out").iterdir()]) == (0, ["whole.png"])
    assert said.count("note: left out") == 1
    assert "nowhere.png" in said
    assert "pipe.png: not a file or folder" in say("reconstruct", model, folder / "pipe.png")[2]


def test_a_name_that_is_no_text(say: Say, model: Path, tmp_path: Path) -> None:
    good = noise(tmp_path / "in" / "good.png")
    try:
        os.rename(good, os.fsencode(tmp_path / "in") + b"/\xff\xfe.png")
        Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.png")).write_text("broken")
    except OSError:
        pytest.skip("this file system takes no such name")
    code, told, _ = say("reconstruct", model, tmp_path / "in", "--out", tmp_path / "out", "--json")
    assert code == 0
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["picture-2.png"]  # the broken one took the first
    assert "\\xff" in json.loads(told)["pictures"][0]["source"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nowhere.png",), "nowhere.png: no such picture or folder"),
        (("empty",), "empty: no pictures in this folder"),
        (("a.png", "--size", "0"), "--size"),
        (("a.png", "--size", "9" * 400), "--size"),
        (("a.png", "--size", "5000"), "a.png: 7692 x 5000 pixels are more than 2097152 together"),
        (("a.png", "--device", "toaster"), "device 'toaster' is unknown"),
        (("a.png", "--precision", "int8"), "precision 'int8' is unknown"),
        (("a.png", "--out", "a.png"), "a.png: cannot be written"),
        ((), "pictures"),
    ],
)
def test_what_is_refused(
    say: Say, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, words: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    noise(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    code, out, said = say("reconstruct", model, *words)
    assert (code, out) == (2, "")
    assert sentence.lower() in said.lower()
    assert not (tmp_path / "reconstructions").exists()


def test_models_that_do_not_fit(refused: Callable[..., str], tmp_path: Path) -> None:
    picture = noise(tmp_path / "a.png")
    assert "no such file" in refused("reconstruct", "emojii", picture)
    odd = store_first_stage(tmp_path / "odd.safetensors", channels=2)
    assert "pictures of 2 channels" in refused("reconstruct", odd, picture)
    (tmp_path / "broken.safetensors").write_bytes(b"hello")
    assert "broken.safetensors" in refused("reconstruct", tmp_path / "broken.safetensors", picture)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
def test_pictures_become_what_the_model_takes(say: Say, tmp_path: Path, channels: int, mode: str) -> None:
    model = store_first_stage(tmp_path / "m.safetensors", channels=channels)
    noise(tmp_path / "in" / "a.png")
    assert say("reconstruct", model, tmp_path / "in", "--out", tmp_path / "out", "--grid")[0] == 0
    assert opened(tmp_path / "out" / "a.png").mode == mode


def test_stopping_keeps_what_is_done(say: Say, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from darkroom.tasks import first_stage

    for number in range(5):
        noise(tmp_path / "in" / f"{number}.png")
    once = first_stage.reconstruct_file

    def interrupted(path: Path, *args: object, **options: object) -> object:
        if path.stem == "1":
            signal.raise_signal(signal.SIGINT)
        return once(path, *args, **options)

    monkeypatch.setattr(first_stage, "reconstruct_file", interrupted)
    code, told, said = say("reconstruct", model, tmp_path / "in", "--out", tmp_path / "out", "--grid", "--json")
    assert code == 130
    assert "what was written is kept" in said
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "grid.png"]
    assert len(json.loads(told)["pictures"]) == 2


def test_inspect_tells_and_sample_does_not_repeat_it(say: Say, model: Path, tmp_path: Path) -> None:
    noise(tmp_path / "a.png")
    assert say("reconstruct", model, tmp_path / "a.png", "--out", tmp_path / "out", "--size", 16)[0] == 0
    made_by = json.loads(say("inspect", tmp_path / "out" / "a.png", "--json")[1])["made_by"]
    assert (made_by["model"], made_by["reconstruction_of"]) == ("small", "a.png")
    code, _, said = say("sample", "--like", tmp_path / "out" / "a.png", "--out", tmp_path / "again")
    assert code == 2
    assert "does not say how it was made" in said

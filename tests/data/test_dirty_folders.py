"""A folder as people have it: what can be read is read right, the rest is left out with a reason, nothing crashes."""

import os
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from dirty_pictures import BROKEN, READ, cut, scene
from picture_folders import annotate, fill
from PIL import Image

from darkroom.core.errors import DataError
from darkroom.core.record import read_json, write_json
from darkroom.data import examine as examining
from darkroom.data.decode import check, decode, printable
from darkroom.data.examine import examine
from darkroom.data.examples import Source
from darkroom.data.folder import Folder
from darkroom.data.sources import ShapesSource, Splits, Subset, open_data

CLEAN = [f"clean-{number}.png" for number in range(1, 6)]


class Dirty(NamedTuple):
    folder: Path
    opened: Splits
    splits: Splits
    remarks: list[str]
    progress: list[tuple[int, int]]


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Dirty:
    """Clean, strange and broken pictures to train on, a few to measure on, and what became of them."""
    folder = tmp_path_factory.mktemp("dirty")
    (folder / "train").mkdir()
    for number, name in enumerate(CLEAN, start=1):
        scene(number).save(folder / "train" / name)
    for name, (make, *_) in (*READ.items(), *BROKEN.items()):
        make(folder / "train" / name)
    fill(folder / "test", ["own.png", "other.jpg"], size=(64, 48))
    scene(2).save(folder / "test" / "seen.png")
    cut("GIF")(folder / "test" / "cut.gif")
    progress: list[tuple[int, int]] = []
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        opened = open_data(folder)
        splits = examine(opened, progress=lambda done, of: progress.append((done, of)))
    return Dirty(folder, opened, splits, [str(each.message) for each in remarks], progress)


def names(source: Source) -> list[str]:
    return [source.example(row).name for row in range(len(source))]


def reasons(source: Source) -> dict[str, str]:
    found = dict(source.left_out)
    assert len(found) == len(source.left_out)  # each is told once
    return found


@pytest.mark.parametrize("name", READ)
def test_strange_pictures_are_read_right(dirty: Dirty, name: str):
    _, seen, tolerance = READ[name]
    path = dirty.folder / "train" / name
    twin = re.fullmatch(r"the same picture as (.*)", reasons(dirty.splits.train).get(printable(Path(name)), ""))
    assert printable(Path(twin[1] if twin else name)) in names(dirty.splits.train)
    picture = decode(path)
    assert picture.mode == "RGB"
    assert check(path) == picture.size
    if name != "flat.jpg":
        difference = np.abs(np.array(picture, int) - np.array(seen(scene()), int))
        assert difference.mean() <= tolerance


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ones_are_left_out_with_a_reason(dirty: Dirty, name: str):
    reason = reasons(dirty.splits.train)[printable(Path(name))]
    assert re.search(BROKEN[name][1], reason)
    assert reason.isprintable()
    assert str(dirty.folder) not in reason


def test_everything_is_told_once_and_all_that_is_left_can_be_trained_on(dirty: Dirty):
    train, test = dirty.splits
    everything = {printable(Path(name)) for name in (*CLEAN, *READ, *BROKEN)}
    assert sorted((*names(train), *reasons(train))) == sorted(everything)
    assert {*CLEAN} <= set(names(train))
    assert sorted(names(test)) == ["other.jpg", "own.png"]
    assert reasons(test)["seen.png"] == "also in the training pictures, clean-2.png"
    assert set(reasons(test)) == {"seen.png", "cut.gif"}
    for source in (train, test):
        for row in range(len(source)):
            assert source.example(row).picture.size == source.size(row)


def test_nothing_is_said_on_the_terminal_and_progress_is(dirty: Dirty):
    assert dirty.remarks == []
    count = len(dirty.opened.train) + len(dirty.opened.test)
    assert dirty.progress == [(done, count) for done in range(1, count + 1)]


def test_the_verdict_does_not_depend_on_threads(dirty: Dirty, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(examining, "_THREADS", 1)
    monkeypatch.setattr(examining, "_TOGETHER", 3)
    monkeypatch.setattr(examining, "_LARGE", 1)
    assert examine(open_data(dirty.folder)) == dirty.splits
    assert examine(dirty.splits) == dirty.splits  # nothing is left to leave out


@pytest.mark.parametrize(
    "error",
    [
        struct.error("unpack requires"),
        zlib.error("incorrect header"),
        KeyError(42),
        IndexError("index out of range"),
        OverflowError(),
        RecursionError("maximum recursion depth"),
        MemoryError(),
        AssertionError(),
        ZeroDivisionError("division by zero"),
        PermissionError(13, "Permission denied"),
        NotImplementedError("a\nb"),
        Image.DecompressionBombError("bomb"),
        UserWarning("a remark made an error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_reader_raises_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception):
    fill(tmp_path, ["a.png", "b.png"])

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    reason = check(tmp_path / "a.png")
    assert isinstance(reason, str)
    assert reason.isprintable()
    with pytest.raises(DataError, match=r"a\.png: the picture cannot be decoded"):
        decode(tmp_path / "a.png")
    with pytest.raises(DataError, match="none of 2 pictures can be read; first: a"):
        open_data(tmp_path)


def test_pixels_may_fail_where_the_header_did_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = open_data(fill(tmp_path, [f"{number}.png" for number in range(4)]))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: 1 // 0)
    with pytest.raises(DataError, match=r"none of 3 training pictures .* cannot be decoded \(ZeroDivisionError"):
        examine(opened)


def test_copies_are_told_by_bytes_and_annotations(tmp_path: Path):
    fill(tmp_path / "test", ["t.png"])
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "train").mkdir(exist_ok=True)
        scene().save(tmp_path / "train" / name)
    annotate(tmp_path / "train", [{"file_name": f"{name}.png", "caption": name.strip("c")} for name in "abc"])
    train, test = examine(open_data(tmp_path))
    assert (names(train), names(test), train.left_out) == (["a.png", "b.png", "c.png"], ["t.png"], ())
    annotate(tmp_path / "train", [{"file_name": f"{name}.png", "caption": "one"} for name in "abc"])
    assert reasons(examine(open_data(tmp_path)).train) == dict.fromkeys(("b.png", "c.png"), "the same picture as a.png")
    scene().save(tmp_path / "test" / "t.png")
    with pytest.raises(DataError, match=r"none of 1 test pictures .* t\.png: also in the training pictures, a\.png"):
        examine(open_data(tmp_path))


def test_a_training_picture_takes_the_place_of_test_pictures_drawn_in_vain(tmp_path: Path):
    fill(tmp_path / "data", [f"{number}.png" for number in range(6)])
    (victim,) = names(open_data(tmp_path / "data").test)
    data = bytearray((tmp_path / "data" / victim).read_bytes())
    data[100:200] = bytes(100)
    (tmp_path / "data" / victim).write_bytes(data)
    opened = open_data(tmp_path / "data")
    assert names_of_rows(opened.test) == [victim]
    train, test = examine(opened, memo=tmp_path / "memo.json")
    assert (len(train), len(test)) == (4, 1)
    assert set(reasons(test)) == {victim}
    assert train.left_out == ()
    assert examine(opened, memo=tmp_path / "memo.json") == (train, test)


def names_of_rows(source: Source) -> list[str]:
    assert isinstance(source, Folder)
    return [row.name for row in source.rows]


def test_one_picture_many_times_is_one_picture(tmp_path: Path):
    for number in range(5):
        scene().save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match="only 1 picture can be used"):
        examine(open_data(tmp_path))


def test_maps_must_fit_their_pictures(tmp_path: Path):
    pictures = ["a.png", "b.png", "c.png", "d.png"]
    for part in ("train", "test"):
        fill(tmp_path / part, pictures)
        for name, size in (("a", (20, 24)), ("b", (24, 20)), ("c", (20, 24)), ("d", (20, 24))):
            Image.fromarray(np.full(size, 3, np.uint8)).save(tmp_path / part / f"map-{name}.png")
        scene(5 if part == "test" else 6).resize((24, 20)).save(tmp_path / part / "map-c.png")
        os.unlink(tmp_path / part / "map-d.png")
        scene(7 if part == "test" else 8).save(tmp_path / part / "a.png")
        scene(9 if part == "test" else 10).resize((24, 20)).save(tmp_path / part / "a.png")
        annotate(tmp_path / part, [{"file_name": name, "map_file_name": f"map-{name}"} for name in pictures])
    for source in examine(open_data(tmp_path)):
        found = reasons(source)
        assert names(source) == ["a.png"]
        assert found["b.png"] == "its map is 20 x 24 pixels, the picture 24 x 20"
        assert re.match("its map: cannot be decoded .a map holds one class id per pixel", found["c.png"])
        assert found["d.png"] == "no such map as map-d.png"


def test_a_box_beside_its_picture_is_a_reason(tmp_path: Path):
    """One of no size is no object, and one that is cut by the edge shows something."""
    fill(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    boxes = {"a": [24, 2, 9, 9], "b": [-9, 2, 9, 9], "c": [30, 2, 0, 0], "d": [-5, -5, 10, 10]}
    annotate(
        tmp_path,
        [
            {"file_name": f"{each}.png", "objects": {"bbox": [box], "categories": ["star"]}}
            for each, box in boxes.items()
        ],
    )
    found = {name: why for source in examine(open_data(tmp_path)) for name, why in reasons(source).items()}
    assert found == {
        "a.png": "a box of 'star' lies outside it: x 24, y 2, 9 x 9 pixels",
        "b.png": "a box of 'star' lies outside it: x -9, y 2, 9 x 9 pixels",
    }


def test_a_memo_answers_the_same_rows_without_looking(dirty: Dirty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    memo = tmp_path / "pictures.json"
    assert examine(dirty.opened, memo=memo) == dirty.splits
    told = read_json(memo)
    assert {each["name"] for each in told["test"]["left_out"]} == {"seen.png", "cut.gif"}
    monkeypatch.setattr(examining, "check_pixels", None)
    again = examine(open_data(dirty.folder), memo=memo)
    assert again == dirty.splits
    assert again.train.fingerprint() == dirty.splits.train.fingerprint()


def test_a_changed_folder_is_refused_with_what_changed(tmp_path: Path):
    data, memo = tmp_path / "data", tmp_path / "memo.json"
    fill(data / "train", [f"{number}.png" for number in range(6)])
    fill(data / "test", ["0.png"], size=(30, 30))
    examine(open_data(data), memo=memo)
    (data / "train" / "0.png").unlink()
    fill(data / "train", ["new.png", "1.png"], size=(40, 40))
    with pytest.raises(DataError, match=r"\(1 came, 1 went, 1 changed\); it can go on with the same ones only"):
        examine(open_data(data), memo=memo)
    for foreign in ([], {"version": 0}, {"version": 1}):
        write_json(memo, foreign)
        with pytest.raises(DataError, match=r"memo\.json: not a verdict on pictures"):
            examine(open_data(data), memo=memo)
    memo.write_bytes(b"\xff")
    with pytest.raises(DataError, match="begin another run"):
        examine(open_data(data), memo=memo)


def test_parts_of_folders_and_other_sources(tmp_path: Path):
    fill(tmp_path, [f"{number}.png" for number in range(12)])
    opened = open_data(tmp_path, limit=5)
    assert isinstance(opened.train, Subset)
    assert examine(opened) == opened
    broken = names(opened.train)[2]
    (tmp_path / broken).write_bytes((tmp_path / broken).read_bytes()[:-30] + b"IEND")
    train = examine(open_data(tmp_path, limit=5)).train
    assert broken not in names(train)
    assert (len(train), set(reasons(train))) == (4, {broken})
    drawn = Splits(ShapesSource(count=2), ShapesSource(count=1))
    assert examine(drawn, memo=tmp_path / "none.json") is drawn
    assert not (tmp_path / "none.json").exists()


def test_metadata_and_folder_may_disagree(tmp_path: Path):
    fill(tmp_path, ["a.png", "b.png", "c.png", "extra.png", "deep/more.jpg"])
    cut("PNG")(tmp_path / "b.png")
    (tmp_path / "raw.dng").write_bytes(b"")
    rows = [{"file_name": "a.png", "caption": "one"}, {"file_name": "a.png", "caption": "one"}]
    rows += [{"file_name": "a.png", "caption": "two"}, {"file_name": "gone.png", "caption": "x"}]
    annotate(tmp_path, [*rows, *({"file_name": f"{name}.png", "caption": "y"} for name in "bc")])
    train, test = open_data(tmp_path)
    assert sorted((*names(train), *names(test))) == ["a.png", "a.png", "c.png"]
    assert sorted(train.left_out) == [
        ("a.png", "named twice in metadata.jsonl with the same annotations"),
        ("b.png", "truncated"),
        ("deep/more.jpg", "not named in metadata.jsonl"),
        ("extra.png", "not named in metadata.jsonl"),
        ("gone.png", "no such file"),
        ("raw.dng", ".dng pictures cannot be read, PNG and JPEG can"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "\\ud800.png"}', "line 1: 'file_name' must be the name of a file"),
        ('{"file_name": "a.png", "label": ' + "9" * 5000 + "}", "line 1: not valid JSON"),
        ('{"file_name": "' + "a" * 5000 + '.png"}', "names 1 of 1 files that are not there"),
    ],
    ids=["half a character", "a number of 5000 digits", "a name of 5000 letters"],
)
def test_metadata_made_to_confuse(tmp_path: Path, line: str, message: str):
    fill(tmp_path, ["a.png"])
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path)


def test_half_an_emoji_in_a_caption_becomes_a_sign_that_can_be_written(tmp_path: Path):
    fill(tmp_path, ["a.png", "b.png"])
    lines = ['{"file_name": "a.png", "caption": "cat \\ud83d"}', '{"file_name": "b.png", "caption": "\\ud83d\\ude00"}']
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert {source.caption(0) for source in open_data(tmp_path)} == {"cat \ufffd", "\U0001f600"}


def test_captions_beside_the_pictures(tmp_path: Path):
    fill(tmp_path, [f"{kind}/{name}.png" for kind in ("cat", "dog") for name in "abc"])
    (tmp_path / "cat" / "a.txt").write_text("  a cat,\nasleep \n", encoding="utf-8-sig")
    (tmp_path / "cat" / "b.txt").write_bytes(b"caf\xe9")
    (tmp_path / "dog" / "a.txt").write_text("ä" * 50_000, encoding="utf-8")
    (tmp_path / "dog" / "c.txt").mkdir()
    (tmp_path / "dog" / "c.caption").write_text("a dog")
    (tmp_path / "dog" / "a.caption").write_text("not this one")
    (tmp_path / "dog" / "b.txt").write_text("3 0.5 0.25 0.1 0.2\n0 0.1 .2 0.05 0.05\n")
    train, test = open_data(tmp_path)
    found = {
        source.example(row).name: (source.caption(row), source.classes[source.label(row) or 0])
        for source in (train, test)
        for row in range(len(source))
        if "caption" in source.fields
    }
    assert found["cat/a.png"] == ("a cat,\nasleep", "cat")
    assert found["dog/a.png"] == ("ä" * 10_000, "dog")
    assert found["dog/c.png"] == ("a dog", "dog")
    assert {found[name] for name in found.keys() - {"cat/a.png", "dog/a.png", "dog/c.png"}} <= {("", "cat")}
    assert train.left_out == (
        ("cat/b.png", "its caption is not UTF-8 text"),
        (
            "dog/b.png",
            "the text beside it is boxes as YOLO writes them, and those of other pictures are captions",
        ),
    )


def test_the_fingerprint_sees_captions_maps_and_tables(tmp_path: Path):
    fill(tmp_path, ["a.png", "b.png"])
    seen = [open_data(tmp_path).train.fingerprint()]
    for caption in ("one", "two"):
        for name in "ab":
            (tmp_path / f"{name}.txt").write_text(caption)
        seen.append(open_data(tmp_path).train.fingerprint())
    annotate(tmp_path, [{"file_name": f"{name}.png", "map_file_name": "m.png", "label": "x"} for name in "ab"])
    for value in (1, 200):
        levels = np.random.default_rng(0).integers(0, value, (20, 24)).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / "m.png")
        seen.append(open_data(tmp_path).train.fingerprint())
    (tmp_path / "classes.json").write_text('["x", "y"]')
    seen.append(open_data(tmp_path).train.fingerprint())
    assert len(set(seen)) == len(seen)
    (tmp_path / "m.png").unlink()
    with pytest.raises(DataError, match="names 1 of 3 files that are not there: m"):
        open_data(tmp_path)

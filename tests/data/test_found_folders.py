"""Data sets as they are found: tables, other names of the same, splits and masks as others lay them out."""

from pathlib import Path

import numpy as np
import pytest
from picture_folders import annotate, fill
from PIL import Image

from darkroom.core.errors import DataError
from darkroom.data.examples import Source
from darkroom.data.sources import open_data


def names(source: Source) -> set[str]:
    return {source.example(row).name for row in range(len(source))}


def test_a_table_says_what_lines_of_json_would(tmp_path: Path):
    """Captions with commas and over several lines, numbers as labels, empty cells."""
    fill(tmp_path, ["a.png", "b.png", "c.png"])
    table = 'file_name,text,label,map_file_name\r\na.png,"red, and\n""blue""",2,\r\nb.png,,10,\r\nc.png,plain,2,\r\n'
    (tmp_path / "metadata.csv").write_text(table, encoding="utf-8-sig")
    told = {
        source.example(row).name: (source.caption(row), source.classes[source.label(row) or 0])
        for source in open_data(tmp_path)
        for row in range(len(source))
    }
    assert told == {"a.png": ('red, and\n"blue"', "2"), "b.png": ("", "10"), "c.png": ("plain", "2")}
    assert open_data(tmp_path).train.classes == ("2", "10")
    fill(tmp_path, ["d.png"])
    assert open_data(tmp_path).left_out == (("d.png", "not named in metadata.csv"),)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"file_name;caption\na.png;x\n", "no comma but ';'; columns are separated by commas"),
        (b"", "names no column 'file_name'; add it"),
        (b"image,label\na.png,cat\n", "but 'image', 'label'; call the one with the names of pictures so"),
        (b"file_name,caption\na.png,x,y\n", "line 2: more cells than the 2 of the first line"),
        (b"file_name,caption\na.png,caf\xe9\n", "not valid CSV in UTF-8"),
        (b'file_name,caption\na.png,"x\n', "not valid CSV in UTF-8"),
        (b"file_name,caption\n,x\n", r"line 2: 'file_name' is missing \(known: caption\)"),
        (b"file_name,objects\na.png,car\n", "line 2: 'objects' must be"),
        (b"file_name\n../a.png\n", "must lie inside the folder"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path: Path, table: bytes, message: str):
    fill(tmp_path, ["a.png"])
    (tmp_path / "metadata.csv").write_bytes(table)
    with pytest.raises(DataError, match=message) as error:
        open_data(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_captions_that_are_called_text_are_captions(tmp_path: Path):
    """As the examples of Hugging Face call them, unless something is called caption, or another key is asked for."""
    fill(tmp_path, ["a.png", "b.png"])
    annotate(tmp_path, [{"file_name": f"{name}.png", "text": name, "words": "x"} for name in "ab"])
    assert {source.caption(0) for source in open_data(tmp_path)} == {"a", "b"}
    assert {source.caption(0) for source in open_data(tmp_path, caption_field="words")} == {"x"}
    annotate(tmp_path, [{"file_name": "a.png", "text": "a", "caption": "c"}, {"file_name": "b.png", "text": "b"}])
    assert {source.caption(0) for source in open_data(tmp_path)} <= {"c", "", None}


@pytest.mark.parametrize(("own", "apart"), [("Train", "Test"), ("Training", "Testing"), ("TRAIN", "Valid")])
def test_split_folders_in_any_case(tmp_path: Path, own: str, apart: str):
    """And no classes, which two folders with pictures would be."""
    fill(tmp_path / own, [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(2)])
    fill(tmp_path / apart, ["cat/9.png"])
    train, test = open_data(tmp_path)
    assert (len(train), len(test), train.classes) == (4, 1, ("cat", "dog"))


def test_a_few_pictures_beside_class_folders_take_no_classes_away(tmp_path: Path):
    fill(tmp_path, [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(20)], size=(8, 8))
    fill(tmp_path, ["all.png", "grid.png"], size=(16, 16))
    train, test = open_data(tmp_path)
    assert (len(train) + len(test), train.classes) == (40, ("cat", "dog"))
    assert [name for name, reason in train.left_out if "in no folder of a class" in reason] == ["all.png", "grid.png"]
    fill(tmp_path, ["third.png"])
    assert open_data(tmp_path).train.fields == frozenset()


@pytest.mark.parametrize("ends", ["", "_mask"])
def test_pictures_and_their_masks_in_two_folders(tmp_path: Path, ends: str):
    """As segmentations are published, and no classes `images` and `masks`."""
    fill(tmp_path / "Images", [f"{place}/{number}.jpg" for place in "ab" for number in range(3)])
    fill(tmp_path, ["all.png"])
    (tmp_path / "masks" / "a").mkdir(parents=True)
    (tmp_path / "masks" / "b").mkdir()
    for name in ("a/0", "a/1", "a/2", "b/0", "b/1"):
        Image.fromarray(np.full((20, 24), 2, np.uint8)).save(tmp_path / "masks" / f"{name}{ends}.png")
    train, test = open_data(tmp_path)
    assert train.fields == test.fields == {"map"}
    assert (len(train) + len(test), train.classes) == (5, ())
    assert train.left_out == (
        ("Images/b/2.jpg", "without a map of its name, which the others have"),
        ("all.png", "neither in the folder of pictures nor in that of maps"),
    )
    ids = train.map(0)
    assert ids is not None
    assert set(ids.flat) == {2}
    for path in (tmp_path / "masks").rglob("*.png"):
        path.rename(path.with_suffix(".jpg"))
    with pytest.raises(DataError, match="its map is a JPEG, which blurs class ids"):
        open_data(tmp_path)
    (tmp_path / "all.png").unlink()
    fill(tmp_path / "other", ["c.png"])  # then they are folders like any other
    assert open_data(tmp_path).train.classes == ("Images", "masks", "other")


@pytest.mark.parametrize("parted", [False, True])
def test_maps_in_a_folder_of_another_name(tmp_path: Path, parted: bool):
    """`labels` is no class beside `images`; and splits may lie in both."""
    parts = ["training/", "validation/"] if parted else [""]
    names_of = [f"{part}{number}" for part in parts for number in range(3)]
    fill(tmp_path / "images", [f"{name}.jpg" for name in names_of])
    for name in names_of:
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 24), 1, np.uint8)).save(tmp_path / "labels" / f"{name}.png")
    train, test = open_data(tmp_path)
    assert train.fields == test.fields == {"map"}
    assert (len(train), len(test)) == ((3, 3) if parted else (2, 1))
    if parted:
        assert names(test) == {f"images/validation/{number}.jpg" for number in range(3)}


def test_maps_beside_their_pictures_are_no_pictures(tmp_path: Path):
    fill(tmp_path, [f"{number}.jpg" for number in range(4)])
    for number in range(3):
        Image.fromarray(np.full((20, 24), number, np.uint8)).save(tmp_path / f"{number}_mask.png")
    train, test = open_data(tmp_path)
    assert (names(train) | names(test), train.fields) == ({f"{number}.jpg" for number in range(3)}, {"map"})
    assert train.left_out == (("3.jpg", "without a map of its name, which the others have"),)
    for number in (1, 2):
        (tmp_path / f"{number}_mask.png").unlink()
    assert open_data(tmp_path).train.fields == frozenset()


def test_what_may_tell_of_pictures_and_is_not_read_is_said(tmp_path: Path):
    fill(tmp_path / "images", ["a.png", "b.png"])
    (tmp_path / "train.csv").write_text("image,label\na.png,cat\nb.png,dog\n")
    (tmp_path / "classes.json").write_text('["cat", "dog"]')
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "a.txt").write_text("a cat")
    assert open_data(tmp_path).train.left_out == (
        ("train.csv", "is not read; metadata.jsonl is, and metadata.csv with the column file_name"),
        ("captions", "its texts are not read; captions lie beside their pictures"),
    )
    (tmp_path / "images" / "a.txt").write_text("a cat")
    assert open_data(tmp_path).train.left_out == ()
    (tmp_path / "train.csv").rename(tmp_path / "metadata.csv")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,cat\nb.png,dog\n")
    with pytest.raises(
        DataError, match=r"a\.png, b\.png; images/a\.png is there: file_name is a file's whole name, from"
    ):
        open_data(tmp_path)


def test_a_folder_around_the_data_set_says_nothing(tmp_path: Path):
    """As archives unpack: what lies within counts, unless that is one folder of pictures."""
    place = tmp_path / "archive"
    fill(place / "animals" / "animals", [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(2)])
    (place / "README.txt").write_text("animals")
    assert open_data(place).train.classes == ("cat", "dog")
    fill(place / "runs" / "animals-0" / "denoiser", ["samples.png"])
    (place / "runs" / "animals-0" / "recipe.yaml").write_text("name: run")
    assert open_data(place).train.classes == ("cat", "dog")
    fill(tmp_path / "split" / "v1" / "Train", ["cat/1.png", "dog/2.png"])
    fill(tmp_path / "split" / "v1" / "Test", ["cat/3.png"])
    assert [len(source) for source in open_data(tmp_path / "split")] == [2, 1]
    fill(tmp_path / "told" / "v1", ["a.png", "b.png"])
    annotate(tmp_path / "told" / "v1", [{"file_name": f"{name}.png", "label": name} for name in "ab"])
    assert open_data(tmp_path / "told").train.classes == ("a", "b")
    fill(tmp_path / "photos" / "holiday", ["a.png", "b.png"])
    train, test = open_data(tmp_path / "photos")
    assert names(train) | names(test) == {"holiday/a.png", "holiday/b.png"}
    fill(place, ["c.png"])
    assert "animals/animals/cat/0.png" in names(open_data(place).train) | names(open_data(place).test)


def test_what_lies_beside_a_split_and_holds_no_data(tmp_path: Path):
    """A run with what it drew, and what other programs hide, make no classes of `train` and `test`."""
    fill(tmp_path / "train", ["a.png", "b.png"])
    fill(tmp_path / "test", ["c.png"])
    fill(tmp_path / "run" / "denoiser", ["samples.png"])
    (tmp_path / "run" / "recipe.yaml").write_text("name: run")
    fill(tmp_path / ".thumbs", ["a.png"])
    train, test = open_data(tmp_path)
    assert (names(train), names(test)) == ({"a.png", "b.png"}, {"c.png"})


def test_test_pictures_without_the_classes_of_the_others(tmp_path: Path):
    fill(tmp_path / "train", [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(2)])
    fill(tmp_path / "test", ["1.png", "2.png"])
    with pytest.raises(DataError, match="test: these pictures have no class, and those in train have one; move"):
        open_data(tmp_path)


def test_whole_numbers_may_be_written_with_a_point(tmp_path: Path):
    fill(tmp_path, ["a.png", "b.png"])
    annotate(tmp_path, [{"file_name": "a.png", "label": 3.0}, {"file_name": "b.png", "label": 11.0}])
    assert open_data(tmp_path).train.classes == ("3", "11")

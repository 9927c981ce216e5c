"""Folders in every accepted form, their splits, and what is wrong with them said in one sentence."""

from pathlib import Path

import numpy as np
import pytest
from picture_folders import annotate, fill
from PIL import Image

from darkroom.core.errors import DataError, InputError
from darkroom.data.examples import Source
from darkroom.data.sources import Joined, ShapesSource, Subset, Thing, open_data
from darkroom.data.summary import summary

TEN = [f"{number}.png" for number in range(10)]


def names(source: Source) -> set[str]:
    return {source.example(row).name for row in range(len(source))}


def test_a_bare_folder_is_read_recursively(tmp_path: Path):
    fill(tmp_path, [*TEN, "deep/er/x.jpg", ".hidden.png", "__MACOSX/y.png"])
    train, test = open_data(tmp_path)
    assert names(train) | names(test) == {*TEN, "deep/er/x.jpg"}
    assert not names(train) & names(test)
    assert train.fields == frozenset()
    assert isinstance(train, Source)
    example = train.example(0)
    assert (example.caption, example.label, example.objects, example.map) == (None, None, None, None)
    assert example.picture.size == train.size(0) == (24, 20)


def test_what_a_run_drew_is_no_data(tmp_path: Path):
    fill(tmp_path, [*TEN, "runs/mine-0/first_stage/reconstructions.png", "runs/kept.png"])
    (tmp_path / "runs" / "mine-0" / "recipe.yaml").touch()
    train, test = open_data(tmp_path)
    assert names(train) | names(test) == {*TEN, "runs/kept.png"}


def test_class_folders_give_labels(tmp_path: Path):
    fill(tmp_path, [f"{kind}/{number}.png" for kind in ("dog", "cat") for number in range(5)])
    train, test = open_data(tmp_path)
    assert train.classes == test.classes == ("cat", "dog")
    for row in range(len(train)):
        assert train.classes[train.label(row) or 0] == train.example(row).name.split("/")[0]
    assert sum(summary(train)["classes"].values()) == len(train)


@pytest.mark.parametrize(
    ("names", "classes"), [(["10", "9"], ("9", "10")), (["²", "1"], ("1", "²")), (["--1", "2"], ("--1", "2"))]
)
def test_classes_are_sorted_by_number_where_all_are_numbers(names: list[str], classes: tuple[str, ...], tmp_path: Path):
    fill(tmp_path, [f"{kind}/{number}.png" for kind in names for number in range(2)])
    assert open_data(tmp_path).train.classes == classes


def test_metadata_gives_every_field(tmp_path: Path):
    fill(tmp_path / "train", ["a.png", "b.png"])
    fill(tmp_path / "test", ["a.png"])
    Image.fromarray(np.full((20, 24), 2, np.uint8)).save(tmp_path / "train" / "map.png")
    row = {
        "file_name": "a.png",
        "caption": "an A",
        "label": "x",
        "objects": {"bbox": [[6, 5, 12, 100], [30, 0, 5, 5]], "categories": ["car", "tree"]},
        "map_file_name": "map.png",
        "licence": {"unknown": ["fields", "are", "ignored"]},
    }
    annotate(tmp_path / "train", [row, {"file_name": "b.png", "label": "y", "map_file_name": "map.png"}])
    annotate(tmp_path / "test", [{"file_name": "a.png", "label": "w"}])
    with pytest.raises(DataError, match="'map_file_name' is missing in 1 of 3 rows"):
        open_data(tmp_path)
    annotate(tmp_path / "test", [])
    (tmp_path / "test" / "metadata.jsonl").unlink()
    (tmp_path / "test").rename(tmp_path / "other")
    (train, test) = open_data(tmp_path)
    both = [source.example(0) for source in (train, test)]
    assert train.fields | test.fields == {"caption", "label", "objects", "map"}
    assert train.classes == ("x", "y")
    first = next(example for example in both if example.name == "a.png")
    assert first.caption == "an A"
    assert first.objects == (Thing(0, (0.25, 0.25, 0.5, 0.75)),)  # clipped; the one outside is gone
    assert first.map is not None
    assert first.map.shape == (20, 24)
    assert set(first.map.flat) == {2}


def test_numbers_as_labels(tmp_path: Path):
    fill(tmp_path, TEN)
    annotate(tmp_path, [{"file_name": name, "label": place + 5} for place, name in enumerate(TEN)])
    assert open_data(tmp_path).train.classes == tuple(str(number) for number in range(5, 15))
    (tmp_path / "classes.json").write_text('[{"id": 0, "name": "zero"}, {"id": 1, "name": "one"}]')
    with pytest.raises(DataError, match=r"not in classes\.json"):
        open_data(tmp_path)
    annotate(tmp_path, [{"file_name": name, "label": place % 2} for place, name in enumerate(TEN)])
    train = open_data(tmp_path).train
    assert train.classes == ("zero", "one")
    assert [train.label(row) for row in range(len(train))].count(None) == 0
    (tmp_path / "classes.json").write_text('{"zero": 0}')
    with pytest.raises(DataError, match="a list of"):
        open_data(tmp_path)


def test_one_metadata_file_for_all_splits(tmp_path: Path):
    fill(tmp_path, ["train/a.png", "train/b.png", "val/c.png"])
    annotate(tmp_path, [{"file_name": f, "caption": f} for f in ("train/a.png", "train/b.png", "val/c.png")])
    train, test = open_data(tmp_path)
    assert names(train) == {"train/a.png", "train/b.png"}
    assert names(test) == {"val/c.png"}


@pytest.mark.parametrize("part", ["test", "val", "validation"])
def test_split_folders_are_honoured(tmp_path: Path, part: str):
    fill(tmp_path / "train", ["a.png", "b.png"])
    fill(tmp_path / part, ["c.png"])
    train, test = open_data(tmp_path)
    assert (names(train), names(test)) == ({"a.png", "b.png"}, {"c.png"})


def test_adding_pictures_does_not_reshuffle_the_split(tmp_path: Path):
    many = [f"{number:03}.png" for number in range(200)]
    fill(tmp_path, many, size=(8, 8))
    before = names(open_data(tmp_path).test)
    assert 1 <= len(before) <= 25
    fill(tmp_path, [f"new{number}.png" for number in range(40)], size=(8, 8))
    assert before == names(open_data(tmp_path).test) & set(many)
    assert names(open_data(tmp_path, seed=1).test) & set(many) != before


def test_limit_takes_from_the_whole_folder(tmp_path: Path):
    fill(tmp_path, [f"{kind}/{number}.png" for kind in "ab" for number in range(30)], size=(8, 8))
    train = open_data(tmp_path, limit=20).train
    assert isinstance(train, Subset)
    assert len(train) == 20
    labels = [train.label(row) for row in range(20)]
    assert {0, 1} == set(labels)
    assert [train.example(row).label for row in range(20)] == labels
    assert train.fingerprint() != open_data(tmp_path).train.fingerprint()
    assert (train.name, train.fields, train.left_out) == (tmp_path.name, {"label"}, ())
    assert (train.categories, train.map_classes, train.caption(0), train.size(0)) == ((), (), None, (8, 8))
    with pytest.raises(InputError, match="at least 1"):
        open_data(tmp_path, limit=0)


def test_the_fingerprint_sees_names_sizes_and_metadata(tmp_path: Path):
    fill(tmp_path, TEN)
    plain = open_data(tmp_path).train.fingerprint()
    assert plain == open_data(str(tmp_path)).train.fingerprint()
    annotate(tmp_path, [{"file_name": name, "caption": "x"} for name in TEN])
    captioned = open_data(tmp_path).train.fingerprint()
    fill(tmp_path, TEN, size=(30, 20))
    assert len({plain, captioned, open_data(tmp_path).train.fingerprint()}) == 3


def test_the_caption_field_is_a_choice(tmp_path: Path):
    fill(tmp_path, ["a.png", "b.png"])
    annotate(tmp_path, [{"file_name": "a.png", "text": ["one", "two"]}, {"file_name": "b.png", "text": "b"}])
    train, test = open_data(tmp_path, caption_field="text")
    assert {train.caption(0), test.caption(0)} == {"one", "b"}
    with pytest.raises(DataError, match=r"no field 'txt' \(did you mean 'text'\?\)"):
        open_data(tmp_path, caption_field="txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "a.png"}\n{"file_name": ', "line 2: not valid JSON"),
        ('{"file_name": "a.png"}\n\n[1]', "line 3: an object"),
        ('{"caption": "x"}', "line 1: 'file_name' is missing"),
        ('{"file_name": 7}', "'file_name' must be the name of a file"),
        ('{"file_name": "../a.png"}', "must lie inside the folder"),
        ('{"file_name": "/etc/passwd"}', "must lie inside the folder"),
        ('{"file_name": "a\\u0000.png"}', "must be the name of a file"),
        ('{"file_name": "a.png", "caption": 3}', "'caption' must be text"),
        ('{"file_name": "a.png", "label": 1.5}', "'label' must be a name or a whole number"),
        ('{"file_name": "a.png", "label": true}', "'label' must be a name or a whole number"),
        ('{"file_name": "a.png", "objects": []}', "'objects' must be"),
        ('{"file_name": "a.png", "objects": {"bbox": [[1,2,3,4]], "categories": []}}', "of equal length"),
        ('{"file_name": "a.png", "objects": {"bbox": [[1,2,3]], "categories": [0]}}', "a bbox is"),
        ('{"file_name": "a.png", "objects": {"bbox": [[1,2,NaN,4]], "categories": [0]}}', "a bbox is"),
        ('{"file_name": "a.png", "objects": {"bbox": [[1,2,-3,4]], "categories": [0]}}', "a bbox is"),
        ('{"file_name": "a.png", "objects": {"bbox": [[1,2,3,4]], "categories": [null]}}', "names or whole"),
        (
            '{"file_name": "b.png"}\n{"file_name": "c.png"}',
            "names 2 of 2 files .*b.png, c",
        ),
        ('{"file_name": "a.png", "map_file_name": "m.png"}', "not there: m.png"),
        ("[" * 100_000, "line 1: not valid JSON"),
        ("", "no pictures here"),
    ],
)
def test_hostile_metadata_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str):
    fill(tmp_path, ["a.png"])
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        open_data(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_metadata_in_another_encoding_is_refused(tmp_path: Path):
    fill(tmp_path, ["a.png"])
    (tmp_path / "metadata.jsonl").write_bytes('{"file_name": "é.png"}'.encode("latin-1"))
    with pytest.raises(DataError, match="line 1"):
        open_data(tmp_path)


def test_places_that_hold_nothing(tmp_path: Path):
    with pytest.raises(DataError, match="no such folder"):
        open_data(tmp_path / "absent")
    with pytest.raises(DataError, match="did you mean 'shapes'"):
        open_data("shape")
    with pytest.raises(DataError, match="the data set has no name"):  # and not the folder one stands in
        open_data("")
    with pytest.raises(DataError, match="no pictures here"):
        open_data(tmp_path)
    (tmp_path / "one.png").write_bytes(b"")
    with pytest.raises(DataError, match="this is a file"):
        open_data(tmp_path / "one.png")
    fill(tmp_path, ["one.png"])
    with pytest.raises(DataError, match="only 1 picture"):
        open_data(tmp_path)
    (tmp_path / "one.png").write_bytes(b"")
    (tmp_path / "two.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of 2 pictures can be read"):
        open_data(tmp_path)
    for name in ("x.tar", "y.json"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError):
            open_data(tmp_path / name)


def test_shapes_as_a_source():
    train, test = open_data("shapes", seed=4, size=32, limit=50)
    assert isinstance(train, ShapesSource)
    assert (len(train), len(test), train.size(0)) == (50, 50, (32, 32))
    first, again = train.example(3), train.example(3)
    assert first.caption == train.caption(3) == again.caption
    assert np.array_equal(np.array(first.picture), np.array(again.picture))
    assert not np.array_equal(np.array(first.picture), np.array(test.example(3).picture))
    assert train.label(3) is None
    single = open_data("shapes:single", limit=5).train
    assert single.classes[single.label(0) or 0] in (single.caption(0) or "")
    assert summary(single)["fields"] == ["caption", "label", "map", "objects"]
    assert train.fingerprint() != test.fingerprint()
    assert train.map_classes[1:] == train.categories
    with pytest.raises(IndexError):
        train.example(50)


def test_real_pictures(shared: Path):
    folder = shared / "data" / "emoji_64"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/emoji_64")
    train, test = open_data(folder)
    told = summary(train)
    assert (told["count"], told["fields"], told["left_out"]) == (3323, ["caption"], [])
    assert told["width"] == {"min": 64, "median": 64, "max": 64}
    assert len(test) == 242
    assert train.example(1).caption == "asterisk"


def test_a_class_called_train_is_no_split(tmp_path: Path):
    fill(tmp_path, [f"{kind}/{number}.png" for kind in ("train", "bus") for number in range(4)])
    train, test = open_data(tmp_path)
    assert train.classes == ("bus", "train")
    assert len(train) + len(test) == 8


def test_a_split_may_hold_a_single_class(tmp_path: Path):
    fill(tmp_path / "train", [f"{kind}/{number}.png" for kind in ("a", "b") for number in range(3)])
    fill(tmp_path / "test", ["a/9.png"])
    train, test = open_data(tmp_path)
    assert train.classes == test.classes == ("a", "b")
    assert test.label(0) == 0


def test_two_splits_joined() -> None:
    train, test = open_data("shapes:single", limit=5)
    whole = Joined(train, test)
    assert isinstance(whole, Source)
    assert (len(whole), whole.name, whole.classes, whole.fields) == (10, train.name, train.classes, train.fields)
    assert (whole.categories, whole.map_classes, whole.left_out) == (train.categories, train.map_classes, ())
    for row, (part, place) in ((0, (train, 0)), (4, (train, 4)), (5, (test, 0)), (9, (test, 4))):
        assert whole.example(row).name == part.example(place).name
        assert (whole.size(row), whole.caption(row)) == (part.size(place), part.caption(place))
        assert whole.label(row) == part.label(place)
    assert whole.fingerprint() not in (train.fingerprint(), Joined(test, train).fingerprint())


def test_captions_beside_labels_are_counted_by_class(tmp_path: Path):
    fill(tmp_path / "train", [f"{kind}/{number}.png" for kind in ("a", "b") for number in range(4)])
    for number in range(4):
        (tmp_path / "train" / "a" / f"{number}.txt").write_text(f"number {number % 3}" if number else "")
    told = summary(open_data(tmp_path).train)
    assert (told["captioned"], told["captions"], told["captions_of_a_class"]) == (3, 3, 4)


def test_real_captions_that_say_what_labels_say(shared: Path):
    folder = shared / "data" / "sign_digits_64"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/sign_digits_64")
    told = summary(open_data(folder).train)
    assert (told["captions"], told["captions_of_a_class"], len(told["classes"])) == (10, 1, 10)

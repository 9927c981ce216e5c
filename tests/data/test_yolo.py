"""Boxes in the texts that YOLO learns from: wherever they lie, whatever is wrong in them."""

from pathlib import Path

import pytest
from PIL import Image

from darkroom.core.errors import DataError
from darkroom.data.sources import Splits, open_data

BOXES = "1 0.5 0.5 0.5 0.5\n0 0.1 0.1 0.2 0.2\n"
FOUND = [("dog", (0.25, 0.25, 0.5, 0.5)), ("cat", (0.0, 0.0, 0.2, 0.2))]


def annotated(pictures: Path, labels: Path, *, text: str = BOXES) -> None:
    """Four pictures, of which the last has no text."""
    for place in (pictures, labels):
        place.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        Image.new("RGB", (40, 20), (20 * number, 90, len(pictures.name))).save(pictures / f"{number}.png")
        if number < 3:
            (labels / f"{number}.txt").write_text(text)


def found(splits: Splits) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    return {
        source.example(row).name: [
            (source.categories[each.category], tuple(round(side, 4) for side in each.box))
            for each in source.objects(row) or ()
        ]
        for source in splits
        for row in range(len(source))
    }


@pytest.mark.parametrize("where", ["flat", "splits inside", "splits around", "beside", "darknet"])
def test_wherever_texts_lie(tmp_path: Path, where: str) -> None:
    match where:
        case "flat":
            annotated(tmp_path / "images", tmp_path / "labels")
            (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\n")
        case "splits inside":
            for part in ("train", "val"):
                annotated(tmp_path / "images" / part, tmp_path / "labels" / part)
            (tmp_path / "data.yaml").write_text("path: ../set\ntrain: images/train\nnames:\n  0: cat\n  1: dog\n")
        case "splits around":
            for part in ("train", "valid"):
                annotated(tmp_path / part / "images", tmp_path / part / "labels")
            (tmp_path / "data.yaml").write_text("nc: 2\nnames: ['cat', 'dog']\n")
        case "beside":
            annotated(tmp_path, tmp_path)
            (tmp_path / "classes.txt").write_text("cat\ndog\n")
        case _:
            annotated(tmp_path / "obj_train_data", tmp_path / "obj_train_data")
            (tmp_path / "obj.names").write_text("cat\ndog\n")
    splits = open_data(tmp_path)
    assert [len(source) for source in splits] == ([4, 4] if "splits" in where else [3, 1])
    assert splits.train.fields == splits.test.fields == {"objects"}
    assert splits.left_out == ()
    boxes = found(splits)
    for name, objects in boxes.items():
        assert objects == ([] if name.endswith("3.png") else FOUND)


def test_without_names_classes_are_numbers_and_outlines_are_boxes(tmp_path: Path) -> None:
    outline = "7 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n"
    annotated(tmp_path / "images", tmp_path / "labels", text=outline)
    assert found(open_data(tmp_path))["images/0.png"] == [("7", (0.25, 0.25, 0.5, 0.5))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 0.5 0.5 20 10", "line 1 of its text is no box: class, middle x and y"),
        ("0 0.5 0.5 0.1 0.1\n0 0.5 nan 0.1 0.1", "line 2 of its text is no box"),
        ("0 0.5 0.5 0.1", "line 1 of its text is no box"),
        ("1234567890 0.5 0.5 0.1 0.1", "line 1 of its text is no box"),
        ("2 0.5 0.5 0.1 0.1", "line 1 of its text is of class 2, which has no name among 2"),
        (b"\xff\xfe", "the text with its boxes cannot be read"),
    ],
)
def test_a_text_that_is_no_list_of_boxes_costs_its_picture(tmp_path: Path, text: str | bytes, reason: str) -> None:
    annotated(tmp_path / "images", tmp_path / "labels")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    (tmp_path / "labels" / "2.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    (lost,) = open_data(tmp_path).left_out
    assert lost[0] == "images/2.png"
    assert lost[1].startswith(reason)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [("names: [cat", "data.yaml: not valid YAML"), ("names: {a: cat}", "data.yaml: 'names' must be a list of names")],
)
def test_a_table_of_names_that_cannot_be_read_is_one_sentence(tmp_path: Path, table: str, sentence: str) -> None:
    annotated(tmp_path / "images", tmp_path / "labels")
    (tmp_path / "data.yaml").write_text(table)
    with pytest.raises(DataError, match=sentence):
        open_data(tmp_path)


def test_captions_with_numbers_are_captions(tmp_path: Path) -> None:
    annotated(tmp_path / "images", tmp_path / "labels", text="1 2 3 4 5 6 counting")
    assert open_data(tmp_path).train.fields == frozenset()
    annotated(tmp_path / "images", tmp_path / "images", text="3 0.5 0.25 0.1 0.2 litres of paint")
    assert open_data(tmp_path).train.fields == {"caption"}

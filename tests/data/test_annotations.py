"""COCO and Pascal VOC files as data sets: boxes, names, what is missing, what is hostile."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.core.errors import DataError
from darkroom.data.sources import Splits, open_data


def pictures(place: Path, count: int = 4) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (40, 20), (20 * number, 90, 90)).save(place / f"{number}.png")
    return place


def coco(count: int = 4, **changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 100 + n, "file_name": f"{n}.png", "width": 40, "height": 20} for n in range(count)],
        "annotations": [
            {"id": 1, "image_id": 100, "category_id": 7, "bbox": [10, 5, 20, 10], "iscrowd": 0},
            {"id": 2, "image_id": 100, "category_id": 3, "bbox": [0, 0, 8, 4]},
            {"id": 3, "image_id": 101, "category_id": 3, "bbox": [0, 0, 40, 20], "iscrowd": 1},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        **changes,
    }


def found(splits: Splits) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    return {
        source.example(row).name: [(source.categories[each.category], each.box) for each in source.objects(row) or ()]
        for source in splits
        for row in range(len(source))
    }


@pytest.mark.parametrize("where", ["beside", "subfolder", "named", "roboflow"])
def test_coco_wherever_pictures_lie(tmp_path: Path, where: str) -> None:
    place: Path = tmp_path
    match where:
        case "beside":
            pictures(tmp_path)
            (tmp_path / "_annotations.coco.json").write_text(json.dumps(coco()))
        case "subfolder":
            pictures(tmp_path / "images")
            (tmp_path / "annotations").mkdir()
            (tmp_path / "annotations" / "instances_all.json").write_text(json.dumps(coco()))
        case "named":
            pictures(tmp_path / "train2017")
            (tmp_path / "annotations").mkdir()
            place = tmp_path / "annotations" / "instances_train2017.json"
            place.write_text(json.dumps(coco()))
        case _:
            for part in ("train", "valid"):
                pictures(tmp_path / part)
                (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(coco()))
    splits = open_data(place)
    boxes = found(splits)
    assert boxes["0.png"] == [("dog", (0.25, 0.25, 0.5, 0.5)), ("cat", (0.0, 0.0, 0.2, 0.2))]
    assert boxes["1.png"] == []
    assert "objects" in splits.train.fields
    assert (len(splits.train), len(splits.test)) == ((4, 4) if where == "roboflow" else (3, 1))


def test_coco_captions(tmp_path: Path) -> None:
    pictures(tmp_path)
    notes = [{"image_id": 100 + n, "caption": f"picture {n}\n"} for n in range(4)]
    (tmp_path / "captions.json").write_text(json.dumps(coco(annotations=notes)))
    splits = open_data(tmp_path)
    assert splits.train.fields == {"caption"}
    assert splits.train.caption(0) in {f"picture {n}" for n in range(4)}


def test_a_picture_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "coco.json").write_text(json.dumps(coco(count=5)))
    assert open_data(tmp_path).left_out == (("4.png", "no such file"),)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "a COCO file is an object"),
        ("{", "cannot be read as a COCO file"),
        (json.dumps(coco(annotations=[{"image_id": 100, "category_id": 9, "bbox": [0, 0, 1, 1]}])), "category 9"),
        (json.dumps(coco(annotations=[{"image_id": 100, "category_id": 7, "bbox": [0, 0, 1]}])), "a bbox is"),
        (json.dumps(coco(images=[{"id": 1, "file_name": "../../etc/passwd"}])), "must lie inside"),
        (json.dumps(coco(images=[{"file_name": "0.png"}])), "objects with an id"),
        (json.dumps(coco(annotations=3)), "'annotations' must be a list"),
        (
            json.dumps(coco(annotations=[{"image_id": "100", "category_id": 7}])),
            "no annotation is of .* image_id '100'",
        ),
        (
            json.dumps(coco(annotations=[{"image_id": 100, "category_id": 7, "bbox": [0, 0, -1, 1]}])),
            "json, 0.png: a bb",
        ),
        (json.dumps(coco(categories=[{"id": [1], "name": "x"}])), "'id of categories' must be a whole number"),
        (json.dumps(coco(images=[{"id": {}, "file_name": "0.png"}])), "'id of images' must be a whole number"),
        (json.dumps(coco(annotations=[{"image_id": []}])), "'image_id' must be a whole number"),
        (json.dumps(coco(annotations=[{"image_id": 100, "category_id": {}, "bbox": [0, 0, 1, 1]}])), "'category_id'"),
    ],
)
def test_a_broken_coco_file_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    pictures(tmp_path)
    (tmp_path / "coco.json").write_text(content)
    with pytest.raises(DataError, match=sentence):
        open_data(tmp_path / "coco.json")


def voc(*things: tuple[str, int, int, int, int]) -> str:
    parts = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for name, a, b, c, d in things
    )
    return f"<annotation><size><width>40</width></size>{parts}</annotation>"


@pytest.mark.parametrize("inside", [(".", "."), ("Annotations", "JPEGImages"), ("annotations", "Images")])
def test_voc(tmp_path: Path, inside: tuple[str, str]) -> None:
    notes = tmp_path / inside[0]
    pictures(tmp_path / inside[1])
    notes.mkdir(exist_ok=True)
    for number in range(3):
        (notes / f"{number}.xml").write_text(voc(("dog", 11, 6, 30, 15)) if number == 0 else voc())
    splits = open_data(tmp_path)
    boxes = found(splits)
    name = "0.png" if inside[1] == "." else f"{inside[1]}/0.png"
    assert boxes[name] == [("dog", (0.25, 0.25, 0.5, 0.5))]
    assert len(boxes) == 3
    assert [reason for _, reason in splits.left_out] == ["has no annotation file"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("<annotation>", "cannot be read as XML"),
        ("", "UTF-8 without a document type"),
        ("<annotation/>\0", "UTF-8 without a document type"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "without a document type"),
        ("<annotation><object><name>x</name></object></annotation>", "needs a name and a bndbox"),
        (voc(("x", 9, 9, 3, 3)), "ends before it begins"),
        (voc(("x", 9, 9, 30, 30)).replace("<xmax>30</xmax>", "<xmax>wide</xmax>"), "needs xmin"),
    ],
)
def test_a_broken_voc_file_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    pictures(tmp_path)
    (tmp_path / "0.xml").write_text(content)
    with pytest.raises(DataError, match=sentence):
        open_data(tmp_path)


def test_several_coco_files_are_named(tmp_path: Path) -> None:
    pictures(tmp_path / "train2017")
    (tmp_path / "annotations").mkdir()
    for name in ("instances_a.json", "instances_b.json"):
        (tmp_path / "annotations" / name).write_text(json.dumps(coco()))
    with pytest.raises(DataError, match=r"instances_a.json, annotations/instances_b.json\); name the one"):
        open_data(tmp_path)


@pytest.mark.parametrize("there", ["train2017 val2017", "val2017"])
def test_coco_as_its_own_archives_unpack(tmp_path: Path, there: str) -> None:
    """Also where the larger archive was left away, as it often is."""
    (tmp_path / "annotations").mkdir()
    for part in ("train2017", "val2017"):
        images = [{"id": 100 + n, "file_name": f"{part}-{n}.png"} for n in range(4)]
        (tmp_path / "annotations" / f"instances_{part}.json").write_text(json.dumps(coco(images=images)))
        (tmp_path / "annotations" / f"captions_{part}.json").write_text(json.dumps(coco(annotations=[])))
    for part in there.split():
        for picture in [*pictures(tmp_path / part).iterdir()]:
            picture.rename(picture.with_name(f"{part}-{picture.name}"))
    splits = open_data(tmp_path)
    assert [len(source) for source in splits] == ([4, 4] if "train" in there else [3, 1])
    assert splits.train.fields == {"objects"}
    lost = ("instances_train2017.json", "none of the pictures that it names is there")
    assert (lost in splits.train.left_out) == ("train" not in there)


@pytest.mark.parametrize(
    ("name", "place"),
    [("result.json", "images"), ("labels.json", "data"), ("annotations/x_default.json", "images/default")],
)
def test_a_coco_file_is_known_by_what_stands_in_it(tmp_path: Path, name: str, place: str) -> None:
    """As tools export it: Label Studio, FiftyOne, CVAT."""
    pictures(tmp_path / place)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps({"info": {"year": 2024}, **coco()}))
    (tmp_path / "settings.json").write_text('{"images": 4, "annotations": []}')
    assert found(open_data(tmp_path))["0.png"] == [("dog", (0.25, 0.25, 0.5, 0.5)), ("cat", (0.0, 0.0, 0.2, 0.2))]


@pytest.mark.parametrize("content", ["<urlset/>", "<annotation/>"])
def test_other_xml_says_nothing(tmp_path: Path, content: str) -> None:
    pictures(tmp_path)
    (tmp_path / ("sitemap.xml" if "ann" in content else "0.xml")).write_text(content)
    splits = open_data(tmp_path)
    assert len(splits.train) + len(splits.test) == 4
    assert splits.train.fields == frozenset()


@pytest.mark.parametrize("inside", ["annotations", "."])
def test_coco_files_beside_the_folders_of_the_splits(tmp_path: Path, inside: str) -> None:
    """Each file finds the pictures of its own split, also where others are called alike."""
    for part, shade in (("train", 0), ("val", 200)):
        pictures(tmp_path / part)
        for number in range(4):
            Image.new("RGB", (40, 20), (number, shade, 9)).save(tmp_path / part / f"{number}.png")
        (tmp_path / inside).mkdir(exist_ok=True)
        (tmp_path / inside / f"instances_{part}.json").write_text(json.dumps(coco()))
    splits = open_data(tmp_path)
    for source, shade in zip(splits, (0, 200), strict=True):
        assert (len(source), source.fields) == (4, {"objects"})
        assert source.example(0).picture.getpixel((0, 0)) == (0, shade, 9)


def test_one_coco_file_for_all_splits(tmp_path: Path) -> None:
    names = ["train/0.png", "train/1.png", "train/2.png", "test/3.png"]
    for part in ("train", "test"):
        pictures(tmp_path / part)
    images = [{"id": 100.0 + n, "file_name": name} for n, name in enumerate(names)]  # as tables with gaps are exported
    (tmp_path / "annotations.json").write_text(json.dumps(coco(images=images)))
    splits = open_data(tmp_path)
    assert [len(source) for source in splits] == [3, 1]
    assert len(found(splits)["train/0.png"]) == 2


@pytest.mark.parametrize("listed", ["coco", "lines"])
def test_boxes_in_shares_are_refused(tmp_path: Path, listed: str) -> None:
    pictures(tmp_path)
    boxes = [[0.1, 0.2, 0.5, 0.25], [0, 0, 1, 1]]
    if listed == "coco":
        notes = [{"image_id": 100, "category_id": 7, "bbox": box} for box in boxes]
        (tmp_path / "coco.json").write_text(json.dumps(coco(annotations=notes)))
    else:
        row = {"file_name": "0.png", "objects": {"bbox": boxes, "categories": ["dog", "cat"]}}
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + '\n{"file_name": "1.png"}')
    with pytest.raises(DataError, match=r"first pixel, as \[0.1, 0.2, 0.5, 0.25\] does not; boxes are .* in pixels"):
        open_data(tmp_path)

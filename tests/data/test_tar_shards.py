"""Shards as a data set: what is read, what is left out and why, in which order, from where."""

import json
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_folders import annotate, fill, picture
from shard_files import png, shard, spoil

from darkroom.core.errors import DataError, InputError
from darkroom.core.parallel import WHOLE, Share
from darkroom.core.record import read_json
from darkroom.data.examine import examine
from darkroom.data.loader import batches
from darkroom.data.order import Order
from darkroom.data.sources import Source, Splits, open_data
from darkroom.data.transforms import TransformSpec
from darkroom.data.write_shards import write_shards

SPEC = TransformSpec(size=16, crop="random", flip=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine pictures with captions, boxes and maps."""
    names = [f"{number}.png" for number in range(9)]
    rows = [
        {
            "file_name": name,
            "caption": f"picture {number}",
            "label": f"class {number % 2}",
            "objects": {"bbox": [[2, 4, 6, 5]], "categories": ["cell"]},
            "map_file_name": f"maps/{name}",
        }
        for number, name in enumerate(names)
    ]
    fill(tmp_path / "pictures", names)
    (tmp_path / "pictures" / "maps").mkdir()
    for number, name in enumerate(names):
        picture(number).convert("L").point([level % 3 for level in range(256)]).save(tmp_path / "pictures/maps" / name)
    return annotate(tmp_path / "pictures", rows)


def told(source: Source) -> set[tuple[Any, ...]]:
    """All that a source says of each of its examples."""
    examples = [source.example(row) for row in range(len(source))]
    return {
        (
            each.picture.tobytes(),
            each.caption,
            source.classes[each.label] if each.label is not None else None,
            tuple((source.categories[thing.category], thing.box) for thing in each.objects or ()),
            None if each.map is None else each.map.tobytes(),
        )
        for each in examples
    }


def everything(splits: Splits) -> set[tuple[Any, ...]]:
    return told(splits.train) | told(splits.test)


def test_what_is_written_is_read_back(folder: Path, tmp_path: Path) -> None:
    plain = open_data(folder)
    written = write_shards(plain, tmp_path / "shards", samples=4)
    assert [path.name for path in written] == ["000000.tar", "000001.tar", "000002.tar"]
    found = open_data(tmp_path / "shards")
    assert found.train.name == "shards"
    assert found.train.fields == {"caption", "label", "objects", "map"}
    assert everything(found) == everything(plain)
    assert everything(open_data(f"{tmp_path}/shards/{{000000..000002}}.tar")) == everything(plain)
    assert found.train.fingerprint() == open_data(tmp_path / "shards").train.fingerprint()  # from the index this time
    again = write_shards(plain, tmp_path / "again", samples=4)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]
    with pytest.raises(InputError, match="is there already"):
        write_shards(plain, tmp_path / "shards")


def test_own_splits_stay_apart(tmp_path: Path) -> None:
    fill(tmp_path / "own/train", ["a.png", "b.png", "c.png"])
    fill(tmp_path / "own/test", ["d.png"])
    written = write_shards(open_data(tmp_path / "own"), tmp_path / "shards")
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "shards/test/000000.tar",
        "shards/train/000000.tar",
    ]
    plain, found = open_data(tmp_path / "own"), open_data(tmp_path / "shards")
    assert (len(found.train), len(found.test)) == (3, 1)
    assert told(found.test) <= told(plain.train) | told(plain.test)


def test_samples_of_other_writers(tmp_path: Path) -> None:
    files = {
        "000/a.jpg.png": png(1),  # its kind is what follows the first dot
        "b.png": png(2),
        "b.txt": b"a cell",
        "b.cls": b"3",
        "c.png": png(3),
        "c.json": json.dumps({"caption": "more", "text": "other", "label": 4, "status": "success"}).encode(),
        "c.txt": b"not asked for",
        "k.png": png(8),
        "k.cls": b"4",
        "k.json": b'{"caption": ""}',
        "k.txt": b"beside nothing",
        "d.json": b"{}",
        "e.png": png(5),
        "e.json": b"[1, 2",
        "f.png": png(6)[:-30],
        "g.png": png(7),
        "g.cls": b"0",
        "__pycache__/.h.png": b"",
        "i.mp4": b"",
    }
    files["000/a.cls"] = b"0"
    shard(tmp_path / "x.tar", files)
    train, test = open_data(tmp_path / "x.tar")
    assert sorted(source.caption(row) or "" for source in (train, test) for row in range(len(source))) == [
        "",
        "",
        "a cell",
        "beside nothing",
        "more",
    ]
    assert train.classes == ("0", "3", "4")
    reasons = dict(train.left_out)
    assert set(reasons) == {"x.tar/d", "x.tar/e.png", "x.tar/f.png", "x.tar/i"}
    assert reasons["x.tar/d"] == "a sample without a picture"
    assert "annotations cannot be read" in reasons["x.tar/e.png"]
    assert reasons["x.tar/f.png"] == "truncated"
    assert reasons["x.tar/i"] == "a video"
    other = open_data(tmp_path / "x.tar", caption_field="text")
    assert "other" in {source.caption(row) for source in other for row in range(len(source))}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 shards of five samples; ten of the shards and three of the samples are damaged, each in its own way."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(200):
        names = [f"{5 * number + each:05}" for each in range(5)]
        shard(folder / f"{number:03}.tar", {f"{name}.png": png(int(name)) for name in names})
    for number in range(0, 80, 20):
        spoil(folder / f"{number:03}.tar", 3, cut=True)
    for number in range(80, 140, 20):
        spoil(folder / f"{number:03}.tar", 1, header=bytes(range(256)) * 2)
    (folder / "140.tar").write_bytes(b"")
    (folder / "160.tar").write_bytes(b"<html>no such key</html>" * 100)
    (folder / "180.tar").unlink()
    for number, place in ((3, 0), (55, 2), (111, 4)):
        spoil(folder / f"{number:03}.tar", place, bit=True)
    return folder


def test_every_good_sample_once_an_epoch_and_bad_ones_listed(many: Path, tmp_path: Path) -> None:
    place = f"{many}/{{000..199}}.tar"
    splits = examine(open_data(place), memo=tmp_path / "pictures.json")
    lost = 4 * 2 + 3 * 5 + 3 * 5 + 3  # a single sample before noise may have had other files
    assert len(splits.train) + len(splits.test) == 1000 - lost
    reasons = dict(splits.left_out)
    assert {name: words.split(":")[0] for name, words in reasons.items() if name.endswith(".tar")} == {
        **{f"{number:03}.tar": "truncated shard" for number in range(0, 80, 20)},
        **{f"{number:03}.tar": "damaged shard" for number in (80, 100, 120, 140, 160)},
        "180.tar": "a shard that cannot be read (No such file or directory)",
    }
    assert sum("checksum does not fit" in words or "decoded" in words for words in reasons.values()) == 3
    listed = read_json(tmp_path / "pictures.json")
    assert {each["name"] for each in listed["train"]["unread"]} == {name for name in reasons if name.endswith(".tar")}
    assert {each["name"] for each in listed["train"]["left_out"] + listed["test"]["left_out"]} == {
        "003.tar/00015.png",
        "055.tar/00277.png",
        "111.tar/00559.png",
    }
    count, each = len(splits.train), 16
    steps = -(-2 * count // each)
    seen = Counter[int]()
    for number in range(2):  # two ranks; what a rank prepares ahead it prepares in two threads
        stream = batches(splits.train, SPEC, batch_size=each, seed=3, memory=0, share=Share(number, 2))
        for batch in islice(stream, steps):
            seen.update({row: 1 for row, index in zip(batch.rows, batch.indices, strict=True) if index < count})
            seen.update({count + row: 1 for row, at in zip(batch.rows, batch.indices, strict=True) if at // count == 1})
    assert seen == Counter(range(2 * count))


def test_resume_and_ranks_see_the_same_samples(many: Path) -> None:
    train, _ = open_data(f"{many}/{{004..015}}.tar")
    whole = list(islice(batches(train, SPEC, batch_size=8, seed=3, memory=0), 9))
    later = list(islice(batches(train, SPEC, batch_size=4, seed=3, start=24, share=WHOLE), 12))
    assert [row for batch in later for row in batch.rows] == [row for batch in whole[3:] for row in batch.rows]
    assert torch.equal(torch.cat([each.images for each in later]), torch.cat([each.images for each in whole[3:]]))


def test_shards_come_in_a_new_order_and_few_at_a_time() -> None:
    shards = [7, 5, 9, 6, 8, 5]
    order = Order(40, seed=1, shards=shards, mixed=12)
    epochs = [[order.row(40 * epoch + place) for place in range(40)] for epoch in range(2)]
    assert all(sorted(rows) == list(range(40)) for rows in epochs)
    assert epochs[0] != epochs[1]
    owner = np.repeat(np.arange(6), shards)
    for rows in epochs:
        seen = [owner[row] for row in rows]
        spans = [(seen.index(each), len(seen) - 1 - seen[::-1].index(each)) for each in range(6)]
        assert all(last - first < 12 + max(shards) for first, last in spans)
        assert seen != sorted(seen)
    assert Order(40, seed=1, shards=shards, mixed=40).row(3) == Order(40, seed=1).row(3)


def test_a_changed_shard_is_indexed_anew(many: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(many / "001.tar", tmp_path / "one.tar"))
    assert sum(map(len, open_data(path))) == 5
    shard(path, {f"{name}.png": png(name) for name in range(3)})
    assert sum(map(len, open_data(path))) == 3
    path.write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(DataError, match=r"damaged shard.*compressed"):
        open_data(path)

"""Shards as a data set: what is read, what is left out and why, in which order, from where."""

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from picture_folders import annotate, fill, picture

from darkroom.core.errors import DataError, InputError
from darkroom.core.parallel import WHOLE, Share
from darkroom.core.record import read_json
from darkroom.data import remote
from darkroom.data.examine import examine
from darkroom.data.loader import Order, batches
from darkroom.data.parts import part_of
from darkroom.data.place import called, patterned
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


def png(number: int) -> bytes:
    data = io.BytesIO()
    picture(number).save(data, "png")
    return data.getvalue()


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def spoil(path: Path, number: int, *, header: bytes = b"", bit: bool = False, cut: bool = False) -> None:
    """Damage one file of a shard: its header, a bit among its pixels, or the shard ends within it."""
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        info = tar.getmembers()[number]
    data[info.offset : info.offset + len(header)] = header
    data[info.offset_data + 700] ^= 16 * bit
    path.write_bytes(data[: info.offset_data + 700] if cut else data)


def test_samples_of_other_writers(tmp_path: Path) -> None:
    files = {
        "000/a.jpg.png": png(1),  # its kind is what follows the first dot
        "b.png": png(2),
        "b.txt": b"a cell",
        "b.cls": b"3",
        "c.png": png(3),
        "c.json": json.dumps({"caption": "more", "text": "other", "label": 4, "status": "success"}).encode(),
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
        "more",
    ]
    assert train.classes == ("0", "3", "4")
    reasons = dict(train.skipped)
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
    reasons = dict(splits.skipped)
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


class Busy(SimpleHTTPRequestHandler):
    """Answers ranges; every third answer is that it is busy, and some break off in the middle."""

    asked: ClassVar[int] = 0
    ranges: ClassVar[bool] = True

    def do_GET(self) -> None:
        kind = type(self)
        kind.asked += 1
        if kind.asked % 3 == 1:
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.end_headers()
            return
        path = Path(self.translate_path(self.path))
        if not path.exists() or not kind.ranges:
            super().do_GET()
            return
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        data = path.read_bytes()[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if kind.asked % 5 == 0 else data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def host(many: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(remote, "PAUSES", (0.0,) * 6)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Busy, directory=str(many)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_shards_behind_http(host: str, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = (open_data(f"{place}/{{178..182}}.tar") for place in (many, host))
    assert everything(here) == everything(there)
    assert [name for name, _ in there.train.skipped] == ["180.tar"]
    assert "the server answers 404" in dict(there.train.skipped)["180.tar"]
    part = part_of(there.train)
    assert part is not None
    assert part.remote
    found, plain = (next(batches(each.train, SPEC, batch_size=8, seed=1)) for each in (there, here))
    assert torch.equal(found.images, plain.images)
    monkeypatch.setattr(Busy, "ranges", False)
    with pytest.raises(DataError, match="answers no ranges"):
        there.train.example(0)


def test_a_host_that_is_gone_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = list[float]()
    monkeypatch.setattr(remote, "sleep", pauses.append)
    with pytest.raises(remote.Unreachable, match="does not answer"):
        open_data("http://127.0.0.1:9/0.tar")
    assert tuple(filter(None, pauses)) == remote.PAUSES  # threads of the test before may still be at it, without pause
    with pytest.raises(DataError, match="cannot be reached here"):
        open_data("nowhere://bucket/{0..1}.tar")


def test_any_file_system_that_fsspec_knows(many: Path) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for number in range(4, 7):
        system.pipe(f"/bucket/{number:03}.tar", (many / f"{number:03}.tar").read_bytes())
    found, plain = open_data("memory://bucket/{004..006}.tar"), open_data(f"{many}/{{004..006}}.tar")
    assert everything(found) == everything(plain)


def test_names_of_places() -> None:
    assert patterned("a/{08..11}/x{0..1}.tar")[:3] == ["a/08/x0.tar", "a/08/x1.tar", "a/09/x0.tar"]
    assert patterned("a.tar") == ["a.tar"]
    places = ["s3://bucket/cats/{000..199}.tar", "shards/{0..9}.tar", "x/dogs.tar", "x/pictures"]
    assert [called(place) for place in places] == ["cats", "shards", "dogs", "pictures"]


def test_a_changed_shard_is_indexed_anew(many: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(many / "001.tar", tmp_path / "one.tar"))
    assert sum(map(len, open_data(path))) == 5
    shard(path, {f"{name}.png": png(name) for name in range(3)})
    assert sum(map(len, open_data(path))) == 3
    path.write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(DataError, match=r"damaged shard.*compressed"):
        open_data(path)

"""Tar files of strangers: headers that lie, names that lead outside, links, holes, and files that are no samples."""

import gzip
import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from picture_folders import annotate, fill, picture
from shard_files import header, listed, png, records, shard

from darkroom.core.errors import DataError
from darkroom.core.fetch import cache
from darkroom.data import shards
from darkroom.data.decode import check
from darkroom.data.place import MOST_SHARDS, Member, called, opened, patterned
from darkroom.data.remote import Unreachable
from darkroom.data.samples import samples_in
from darkroom.data.shards import are_shards
from darkroom.data.sources import open_data
from darkroom.data.tar import Entry, entries
from darkroom.data.write_shards import write_shards

END = bytes(1024)
NAMES = ["a.png", "d/" + "x" * 90 + "/" + "y" * 60 + ".png", "e/ü.txt", "f.json"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_lies_where_is_what_pythons_reader_says(kind: int) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        names = NAMES if kind == tarfile.USTAR_FORMAT else [*NAMES, "k" * 300 + ".png"]
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 700 * number
            tar.addfile(info, io.BytesIO(bytes(info.size)))
        link, folder = tarfile.TarInfo("link"), tarfile.TarInfo("folder")
        link.type, link.linkname, folder.type = tarfile.SYMTYPE, "l" * 200 if kind else "a.png", tarfile.DIRTYPE
        tar.addfile(link)
        tar.addfile(folder)
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        theirs = [(each.name, each.offset_data, each.size, each.isreg()) for each in tar if not each.isdir()]
    assert [(each.name, each.offset, each.size, each.plain) for each in entries(file)] == theirs


LYING = {
    "negative": (header(size=b"\xff" * 12), "a size that cannot be"),
    "endless": (header(size=b"\x80" + b"\xff" * 11), "a size that cannot be"),
    "words": (header(size=b"12 34"), "a size that cannot be"),
    "backwards": (records(b"size=-1024") + header(), "a size that cannot be"),
    "astronomic": (records(b"size=" + b"9" * 40) + header(), "a size that cannot be"),
    "heavy": (header(size=b"%011o" % 2**30, kind=b"x"), "a header that goes on for 1073741824 bytes"),
    "heavy name": (header(size=b"%011o" % 2**20, kind=b"L"), "a header that goes on for 1048576 bytes"),
    "mute": (header(size=b"%011o" % 9, kind=b"x") + b"9" * 512, "a header that cannot be read"),
    "circular": (header(size=b"%011o" % 9, kind=b"x") + b"0 path=a\n".ljust(512, b"\0"), "a header that cannot be"),
    "cut": (header(size=b"%011o" % 900, kind=b"x") + bytes(100), "it ends within a header"),
    "noise": (header() + b"x" * 512, "what follows is no header"),
    "endlessly": (header(), "its end is missing"),
    "zeros": (END, "nothing is in it"),
    "packed": (gzip.compress(header() + END).ljust(512, b"\1"), "compressed ones are not read"),
    "nothing": (b"", "an empty file"),
    "short": (b"ustar", "no tar"),
}


@pytest.mark.parametrize("name", LYING)
def test_headers_that_lie_end_the_list_and_cost_nothing(name: str) -> None:
    data, message = LYING[name]
    began = time.monotonic()
    with pytest.raises(DataError, match=message):
        list(entries(io.BytesIO(data + (b"" if name in ("endlessly", "nothing", "short", "cut") else END))))
    assert time.monotonic() - began < 1


def test_a_chain_of_headers_is_followed_step_by_step() -> None:
    long = header(b"././@LongLink", size=b"%011o" % 9, kind=b"L") + b"long.png\0".ljust(512, b"\0")
    file = io.BytesIO(long * 20_000 + header() + END)
    assert list(entries(file)) == [Entry("long.png", 20_000 * 1024 + 512, 0, plain=True)]


def test_only_plain_files_are_samples_whatever_they_are_called(tmp_path: Path) -> None:
    def file(name: bytes, data: bytes) -> bytes:
        return header(name, size=b"%011o" % len(data)) + data.ljust(-(-len(data) // 512) * 512, b"\0")

    holes = records(b"GNU.sparse.major=1", b"GNU.sparse.name=holes.png", b"GNU.sparse.realsize=99999999999")
    path = tmp_path / "x.tar"
    path.write_bytes(
        file(b"/etc/a.png", png(1))
        + file(b"../../b.png", png(2))
        + file(b"c\x1b[2J\n\xff.png", png(3))
        + file(b"d.png", b"")
        + file(b"d.png", png(4))
        + file(b"e.jpg", png(5))
        + file(b"e.png", png(6))
        + file(b"e.depth.png", png(7))
        + file(b"v.1.png", png(8))
        + file(b"v.2.png", png(9))
        + file(b"__MACOSX/._a.png", b"x")
        + b"".join(header(b"link%d.png" % kind, kind=b"%d" % kind) for kind in (1, 2, 3, 4, 6))
        + holes
        + file(b"GNUSparseFile.0/holes.png", b"1\n0\n512\n")
        + END
    )
    rows = {row.name: row.fault for row in samples_in(listed(path), caption_field="caption")}
    assert [name for name, fault in rows.items() if fault is None] == [
        "/etc/a.png",
        "../../b.png",
        "c\\x1b[2J\\n\\xff.png",
        "e.jpg",
        "v.1.png",
    ]
    assert rows["d.png"] == "there twice in this shard; the first is used"  # that is told last
    assert "e.depth.png" not in rows
    assert rows["e.png"] == "of the sample of e.jpg: names up to the first dot are equal, and the first is used"
    assert "of the sample of v.1.png" in str(rows["v.2.png"])
    odd = [name for name, fault in rows.items() if "link, a device or a file with holes" in str(fault)]
    assert odd == [*(f"link{kind}.png" for kind in (1, 2, 3, 4, 6)), "holes.png"]
    assert not (tmp_path.parent / "b.png").exists()


def test_annotations_that_are_too_much(tmp_path: Path) -> None:
    files = {
        "a.png": png(1),
        "a.txt": b"word " * 10_000,
        "b.png": png(2),
        "b.json": b"[" * 100_000,
        "c.png": png(3),
        "c.txt": b" " * (2**20 + 1),
        "d.png": png(4),
        "d.json": b'{"label": [1]}',
    }
    rows = samples_in(listed(shard(tmp_path / "x.tar", files)), caption_field="caption")
    assert [len(row.caption or "") for row in rows] == [10_000, 0, 0, 0]
    assert rows[0].fault is None
    assert all("annotations" in str(row.fault) for row in rows[1:])


def test_a_file_of_gigabytes_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(1))
    os.truncate(path, 2**31)  # zeros that take no room
    assert check(path) == "2.1 GB in one file"


def test_pictures_with_a_tar_beside_them_are_a_folder_of_pictures(tmp_path: Path) -> None:
    fill(tmp_path / "cells", ["a.png", "b.png", "c.png"])
    shard(tmp_path / "cells" / "backup.tar", {"x.png": png(1)})
    assert sum(map(len, open_data(tmp_path / "cells"))) == 3
    shard(tmp_path / "shards" / "0.tar", {f"{number}.png": png(number) for number in range(4)})
    (tmp_path / "shards" / "._0.tar").write_bytes(b"what some systems write beside each file")
    os.mkfifo(tmp_path / "shards" / "1.tar")
    train, test = open_data(tmp_path / "shards")
    assert len(train) + len(test) == 4
    assert train.left_out == (("1.tar", "a shard that cannot be read (not a file)"),)
    assert not are_shards(str(tmp_path / "cells"))


def test_a_shard_that_changes_is_no_damage_of_its_pictures(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", {f"{number}.png": png(number) for number in range(4)})
    train, _ = open_data(path)
    assert train.example(0).picture.size == picture(0).size
    os.utime(path, ns=(1, 1))
    with pytest.raises(Unreachable, match=r"x\.tar: has changed since it was listed"):
        train.example(0)
    path.unlink()
    with pytest.raises(Unreachable, match=r"x\.tar: was there and cannot be opened any more"):
        train.example(0)


def test_closing_a_part_closes_its_shard(tmp_path: Path) -> None:
    place = samples_in(listed(shard(tmp_path / "x.tar", {"a.png": png(1)})), caption_field="caption")[0].path
    assert isinstance(place, Member)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(5):
        with opened(place) as file:
            file.seek(-4, 2)
            assert file.read() == png(1)[-4:]
            file.seek(0)
            assert file.read() == png(1)
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_what_this_machine_lacks_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: str) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(shards, "facts_of", full)
    with pytest.raises(DataError, match=r"no index can be made of it here \(Too many open files\)"):
        open_data(tmp_path / "x.tar")


def test_few_samples_without_a_label_are_left_out(tmp_path: Path) -> None:
    files = {f"{number:02}.png": png(number) for number in range(40)}
    labels = {f"{number:02}.cls": b"%d" % (number % 2) for number in range(40)}
    train, test = open_data(shard(tmp_path / "x.tar", files | labels | {"zz.png": png(41)}))
    assert len(train) + len(test) == 40
    assert train.left_out == (("x.tar/zz.png", "without a label, which the others have"),)
    some = dict(list(labels.items())[::2])
    with pytest.raises(DataError, match="'label' is missing in 20 of 40 rows"):
        open_data(shard(tmp_path / "y.tar", files | some))


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", {f"{number}.png": png(number) for number in range(4)})
    wanted = open_data(path).train.fingerprint()
    (index,) = cache("shards").iterdir()
    for text in ("[[1, 2]]", "{", "[3]", "null", '[["a", ["b"], null, null, null, null, null, null]]'):
        index.write_text(text, encoding="utf-8")
        assert open_data(path).train.fingerprint() == wanted


def test_patterns() -> None:
    assert patterned("a/{08..11}/x{0..1}.tar")[:3] == ["a/08/x0.tar", "a/08/x1.tar", "a/09/x0.tar"]
    assert patterned("a.tar") == ["a.tar"]
    with pytest.raises(DataError, match="counts down"):
        patterned("{5..2}.tar")
    with pytest.raises(DataError, match=f"more than {MOST_SHARDS} shards"):
        patterned("{0..99999}{0..99999}{0..99999}.tar")
    places = ["s3://bucket/cats/{000..199}.tar", "shards/{0..9}.tar", "x/dogs.tar", "x/pictures", "x/boxes.json"]
    assert [called(place) for place in places] == ["cats", "shards", "dogs", "pictures", "boxes"]


def test_shards_keep_names_of_maps_and_pictures_without_an_ending(tmp_path: Path) -> None:
    fill(tmp_path / "cells", ["a.png", "b.png", "c.png"])
    (tmp_path / "cells" / "a.png").rename(tmp_path / "cells" / "scan")
    (tmp_path / "cells" / "classes.json").write_text('["background", "cell"]')
    for name in ("scan", "b", "c"):
        picture(3).convert("L").point([level % 2 for level in range(256)]).save(tmp_path / "cells" / f"{name}.map.png")
    files = {"scan": "scan.map.png", "b.png": "b.map.png", "c.png": "c.map.png"}
    annotate(tmp_path / "cells", [{"file_name": name, "map_file_name": each} for name, each in files.items()])
    write_shards(open_data(tmp_path / "cells"), tmp_path / "shards")
    train, test = open_data(tmp_path / "shards")
    assert (len(train) + len(test), train.map_classes, train.left_out) == (3, ("background", "cell"), ())


def test_a_picture_that_vanishes_is_not_blamed_on_the_shards(tmp_path: Path) -> None:
    fill(tmp_path / "cells", ["a.png", "b.png"])
    splits = open_data(tmp_path / "cells")
    (tmp_path / "cells" / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: was there and cannot be read \(No such file"):
        write_shards(splits, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()

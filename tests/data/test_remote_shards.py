"""Shards that lie elsewhere: hosts that are busy, break off, send us on, stall, change their files or refuse."""

import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import torch
from hosts import Asked, Files, Host, serving
from shard_files import png, shard
from test_tar_shards import SPEC, everything

from darkroom.core.errors import DataError
from darkroom.data import remote
from darkroom.data.examine import examine
from darkroom.data.loader import batches
from darkroom.data.parts import part_of
from darkroom.data.place import called
from darkroom.data.remote import Facts, Unreachable, find, read, shown
from darkroom.data.shards import are_shards
from darkroom.data.sources import open_data

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for, without waiting."""
    found = list[float]()
    monkeypatch.setattr(remote, "sleep", found.append)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in (0, 1, 3):
        shard(folder / f"{number}.tar", {f"{5 * number + each}.png": png(5 * number + each) for each in range(5)})
    (folder / "empty.tar").write_bytes(b"")
    return folder


@pytest.fixture
def host(folder: Path) -> Iterator[Host]:
    with serving(folder) as host:
        yield host


def test_a_busy_host_that_breaks_off_gives_what_a_folder_gives(
    host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LISTING", "READING"):
        monkeypatch.setattr(remote, name, (0.0,) * 30)  # threads share the host's numbers, and one may be unlucky

    def odd(files: Files, asked: Asked) -> bool:
        if asked.number % 3 == 1:
            files.refuse(503, Retry_After="0")
        elif asked.number % 5 == 0:
            files.part(kept=100)
        elif asked.number % 7 == 0:
            files.part(shifted=1)
        return asked.number % 3 == 1 or asked.number % 5 == 0 or asked.number % 7 == 0

    host.odd = odd
    here, there = (examine(open_data(f"{place}/{{0..3}}.tar")) for place in (folder, host.place))
    assert everything(here) == everything(there)
    assert [name for name, _ in there.train.left_out] == ["2.tar"]
    assert "the server answers 404 Not Found" in dict(there.train.left_out)["2.tar"]
    part = part_of(there.train)
    assert part is not None
    assert part.remote
    found, plain = (next(batches(each.train, SPEC, batch_size=8, seed=1)) for each in (there, here))
    assert torch.equal(found.images, plain.images)


def test_a_host_without_ranges_says_so_at_once(host: Host) -> None:
    def odd(files: Files, asked: Asked) -> bool:
        files.refuse(200)
        return True

    host.odd = odd
    with pytest.raises(DataError, match="answers no ranges"):
        open_data(f"{host.place}/0.tar")
    assert len(host.asked) == 1


def test_an_index_is_kept_where_the_host_tells_one_file_from_another(host: Host) -> None:
    open_data(f"{host.place}/0.tar")
    before = len(host.asked)
    open_data(f"{host.place}/0.tar")
    assert len(host.asked) == before + 1
    host.tag = ""
    for _ in range(2):
        before = len(host.asked)
        open_data(f"{host.place}/0.tar")
        assert len(host.asked) > before + 1


def test_a_file_that_changes_or_goes_is_told_and_not_read(host: Host) -> None:
    train, _ = open_data(f"{host.place}/0.tar")
    host.tag = '"two"'
    with pytest.raises(Unreachable, match=r"0\.tar: has changed since it was listed"):
        train.example(0)
    with pytest.raises(Unreachable):  # and is no reason to leave pictures out
        examine(open_data(f"{host.place}/0.tar")._replace(train=train))
    host.tag = '"one"'
    for code in (403, 404, 416):
        host.odd = lambda files, asked, code=code: files.refuse(code) or True
        with pytest.raises(Unreachable, match=rf"was there and is not any more \(the server answers {code}"):
            train.example(0)


def test_a_file_that_changes_while_it_is_listed(host: Host) -> None:
    def odd(files: Files, asked: Asked) -> bool:
        host.tag = '"one"' if asked.number < 3 else '"two"'
        return False

    host.odd = odd
    with pytest.raises(Unreachable, match="has changed"):
        open_data(f"{host.place}/0.tar")


def test_an_empty_file_is_a_damaged_shard(host: Host) -> None:
    host.odd = lambda files, asked: asked.path == "/empty.tar" and (files.refuse(416) or True)
    with pytest.raises(DataError, match=r"empty\.tar: a shard that cannot be read \(the server answers 416"):
        open_data(f"{host.place}/empty.tar")


def test_secrets_in_addresses_are_told_to_their_host_alone(host: Host) -> None:
    port = host.place.rpartition(":")[2]

    def odd(files: Files, asked: Asked) -> bool:
        if asked.name.startswith("localhost"):
            files.refuse(302, Location=f"http://127.0.0.1:{port}{asked.path}")
            return True
        return False

    host.odd = odd
    place = f"http://me:{SECRET}@localhost:{port}/{{0..1}}.tar?sig={SECRET}"
    assert are_shards(place)
    train, test = open_data(place)
    assert len(train) + len(test) == 10
    assert {asked.authorization is None for asked in host.asked if asked.name.startswith("localhost")} == {False}
    assert {asked.authorization for asked in host.asked if asked.name.startswith("127")} == {None}
    assert all(SECRET in asked.path for asked in host.asked)
    assert SECRET not in train.name + str([train.example(row).name for row in range(len(train))])
    for code in (401, 404, 500):
        host.odd = lambda files, asked, code=code: files.refuse(code) or True
        with pytest.raises(DataError) as caught:
            open_data(place)
        assert SECRET not in str(caught.value)
        with pytest.raises(DataError) as caught:
            train.example(0)
        assert SECRET not in str(caught.value)


def test_how_addresses_are_shown() -> None:
    assert shown("https://a:b@host/x/{0..1}.tar?sig=c/d#e") == "https://host/x/{0..1}.tar"
    assert shown("simplecache::s3://key:word@bucket/x.tar") == "simplecache::s3://bucket/x.tar"
    assert shown("zip://x.tar::https://a:b@host/y.zip?t=1") == "zip://x.tar::https://host/y.zip"
    assert shown("what? a folder/x@y.tar") == "what? a folder/x@y.tar"
    assert called("https://a:b@host/{0..1}.tar?c") == "host"


def test_a_host_that_stalls_or_drips(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def stall(files: Files, asked: Asked) -> bool:
        time.sleep(0.3)
        return False

    monkeypatch.setattr(remote, "LISTING", (0.0,))
    monkeypatch.setattr(remote, "SECONDS", 0.1)
    host.odd = stall
    with pytest.raises(Unreachable, match=r"does not answer \(.*timed out"):
        open_data(f"{host.place}/0.tar")
    monkeypatch.setattr(remote, "SECONDS", 20)
    host.odd = lambda files, asked: False
    facts = find(f"{host.place}/0.tar")
    monkeypatch.setattr(remote, "READING", ())
    monkeypatch.setattr(remote, "monotonic", iter(range(0, 10**6, 1000)).__next__)
    with pytest.raises(Unreachable, match=r"of 9000 bytes came in 21 s"):
        read(f"{host.place}/0.tar", start=0, size=9000, facts=facts)


def test_how_long_hosts_are_asked(pauses: list[float]) -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        open_data("http://127.0.0.1:9/0.tar")
    assert tuple(pauses) == remote.LISTING
    pauses.clear()
    with pytest.raises(Unreachable, match="does not answer"):
        read("http://127.0.0.1:9/0.tar", start=0, size=1, facts=Facts(1, ""))
    assert tuple(pauses) == remote.READING


@pytest.mark.parametrize(
    ("said", "low", "high"),
    [("7", 7, 7), ("in half a minute", 15, 30), ("soon", 0, 0), ("²", 0, 0), ("9" * 400, 60, 60)],
)
def test_a_host_says_when_it_wants_to_be_asked_again(said: str, low: float, high: float) -> None:
    from email.message import Message

    headers = Message()
    headers["Retry-After"] = formatdate(time.time() + 30) if said == "in half a minute" else said
    assert low <= remote._asked_for(HTTPError("http://x", 503, "busy", headers, None)) <= high


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere://bucket/{0..1}.tar", "cannot be reached here"),
        ("http://host:port/0.tar", "is no address"),
        ("http://[half/0.tar", "is no address"),
        ("s3://bucket/pictures/", "has to be shards"),
    ],
)
def test_addresses_that_lead_nowhere(place: str, message: str, pauses: list[float]) -> None:
    with pytest.raises(DataError, match=message):
        open_data(place)
    assert pauses == []


def test_addresses_in_other_letters(host: Host, folder: Path) -> None:
    shard(folder / "ä b" / "0.tar", {f"{each}.png": png(each) for each in range(3)})
    assert sum(map(len, open_data(f"{host.place}/ä b/0.tar"))) == 3


def test_any_file_system_that_fsspec_knows(folder: Path) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for number in range(2):
        system.pipe(f"/bucket/{number}.tar", (folder / f"{number}.tar").read_bytes())
    found, plain = open_data("memory://bucket/{0..1}.tar"), open_data(f"{folder}/{{0..1}}.tar")
    assert everything(found) == everything(plain)
    system.rm("/bucket/0.tar")
    with pytest.raises(Unreachable, match="was there and is not any more"):
        [found.train.example(row) for row in range(len(found.train))]


def test_errors_of_other_packages_are_sentences(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    class Odd(Exception):
        pass

    class System:
        error: Exception = Odd("no credentials for s3://key:s3cret@bucket\nTraceback")

        def info(self, path: str) -> dict[str, Any]:
            raise self.error

    monkeypatch.setattr(remote, "_system", lambda url: (System(), url))
    with pytest.raises(Unreachable, match=r"does not answer \(Odd: no credentials for s3://bucket\)"):
        open_data("s3://bucket/0.tar")
    assert tuple(pauses) == remote.LISTING
    monkeypatch.setattr(System, "error", PermissionError(13, "Forbidden"))
    with pytest.raises(DataError, match=r"0\.tar: a shard that cannot be read \(Forbidden\)"):
        open_data("s3://bucket/0.tar")
    assert tuple(pauses) == remote.LISTING

"""Downloads: whole and right, or not there at all."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from darkroom.core.errors import InputError
from darkroom.core.fetch import PublishedFile, fetch

BYTES = bytes(range(256)) * 300


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Tests print no access log."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A server of one file on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "weights.pth").write_bytes(BYTES)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def published(
    host: str, *, digest: str | None = None, limit: int = 1 << 20, name: str = "weights.pth"
) -> PublishedFile:
    return PublishedFile(f"{host}/{name}", digest or f"sha256:{hashlib.sha256(BYTES).hexdigest()}", limit)


def test_a_file_arrives_whole(host: str, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "deep" / "weights.pth"
    assert fetch(published(host), path=path) == path
    assert path.read_bytes() == BYTES
    assert [each.name for each in path.parent.iterdir()] == ["weights.pth"]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_the_first_digits_of_a_digest_are_enough(host: str, tmp_path: Path, kind: str) -> None:
    digest = hashlib.new(kind, BYTES).hexdigest()[:8]
    assert fetch(published(host, digest=f"{kind}:{digest}"), path=tmp_path / "weights.pth").is_file()


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"mine")
    assert fetch(published("http://127.0.0.1:9"), path=path).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"digest": "sha256:00000000"}, "is not the file that is known: sha256:"),
        ({"limit": 1000}, "more than 1000 bytes"),
        ({"name": "other.pth"}, "answers 404"),
    ],
)
def test_a_wrong_download_leaves_nothing(host: str, tmp_path: Path, changes: dict, complaint: str) -> None:
    path = tmp_path / "cache" / "weights.pth"
    with pytest.raises(InputError, match=complaint):
        fetch(published(host, **changes), path=path)
    assert list(path.parent.iterdir()) == []


def test_a_host_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be fetched"):
        fetch(published("http://127.0.0.1:9"), path=tmp_path / "weights.pth")


def test_where_nothing_can_be_kept_it_is_told_what_names_another_place(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(InputError, match=r"cache: cannot be written \(File exists\); DARKROOM_CACHE can name another"):
        fetch(published("http://127.0.0.1:9"), path=tmp_path / "cache" / "weights.pth")

"""Bytes that lie elsewhere: ranges of files behind `http(s)://`, and behind any other scheme that fsspec knows.

A host that is busy, or does not answer, is asked again after growing pauses; not so one that knows no such file.
"""

import email.utils
import errno
import io
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from time import sleep, time
from typing import Any, Final, TypeVar, cast, final

import fsspec

from darkroom.core.errors import DataError, first_line

T = TypeVar("T")
SECONDS: Final = 30  # without a byte, before an answer counts as lost
PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between two tries
LONGEST_PAUSE: Final = 60.0  # that a host may ask for
PIECE: Final = 2**23  # bytes asked for at once of a whole file
_BUSY: Final = (408, 425, 429, 500, 502, 503, 504)
_NONE: Final = (403, 404, 410)  # object stores answer 403 for what is not there and may not be listed


class Unreachable(DataError):
    """A host did not answer, however often it was asked; nothing is known of the file."""


@final
@dataclass(frozen=True)
class Found:
    """What is known of a file without reading it: bytes, and a tag that changes with them."""

    size: int
    tag: str


def is_remote(place: str) -> bool:
    """Is a place named by a scheme, as in `https://...`?"""
    return "://" in place


def find(url: str) -> Found:
    """What is known of a file; `FileNotFoundError` where there is none, `Unreachable` when the host does not answer."""
    return _patiently(lambda: _found_by_http(url) if _is_http(url) else _found_by_fsspec(url), url=url)


def read(url: str, *, start: int, size: int) -> bytes:
    """Just these bytes; `FileNotFoundError` where there is no such file, `Unreachable` where they do not come."""

    def once() -> bytes:
        data = _read_http(url, start, size) if _is_http(url) else _read_fsspec(url, start, size)
        if len(data) != size:
            raise ConnectionError(f"{len(data)} of {size} bytes came")
        return data

    return _patiently(once, url=url) if size else b""


def whole(url: str, *, size: int) -> Iterator[bytes]:
    """All bytes of a file of this size, piece by piece; a piece that is lost on the way is fetched again."""
    for start in range(0, size, PIECE):
        yield read(url, start=start, size=min(PIECE, size - start))


def _patiently(once: Callable[[], T], *, url: str) -> T:
    """What one try answers, after as many as it takes."""
    for pause in PAUSES:
        try:
            return once()
        except urllib.error.HTTPError as error:
            _give_up(error, url=url)
            sleep(max(pause, _asked_for(error)))
        except FileNotFoundError:
            raise
        except (OSError, HTTPException):
            sleep(pause)
    try:
        return once()
    except FileNotFoundError:
        raise
    except (OSError, HTTPException) as error:
        raise Unreachable(f"{url}: does not answer ({first_line(error)}); run again when it does") from None


def _give_up(error: urllib.error.HTTPError, *, url: str) -> None:
    """Raise what an answer means, unless it is to ask again."""
    if error.code in _NONE:
        raise FileNotFoundError(errno.ENOENT, f"the server answers {error.code}") from None
    if error.code not in _BUSY:
        raise Unreachable(f"{url}: the server answers {error.code} {error.reason}") from None


def _asked_for(error: urllib.error.HTTPError) -> float:
    """Seconds that a busy host wants to be left alone, by number or by date."""
    wanted = error.headers.get("Retry-After", "")
    try:
        date = None if wanted.isdigit() else email.utils.parsedate_to_datetime(wanted)
        seconds = float(wanted) if date is None else date.timestamp() - time()
    except ValueError:
        seconds = 0.0
    return min(LONGEST_PAUSE, max(0.0, seconds))


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _found_by_http(url: str) -> Found:
    with cast("HTTPResponse", urllib.request.urlopen(_request(url, method="HEAD"), timeout=SECONDS)) as answer:
        size, tag = answer.headers.get("Content-Length"), answer.headers.get("ETag", "")
    if size is None:
        raise DataError(f"{url}: the server does not say how long the file is")
    return Found(int(size), tag or answer.headers.get("Last-Modified", ""))


def _read_http(url: str, start: int, size: int) -> bytes:
    request = _request(url, method="GET", range_=f"bytes={start}-{start + size - 1}")
    with cast("HTTPResponse", urllib.request.urlopen(request, timeout=SECONDS)) as answer:
        if answer.status != 206:
            raise DataError(f"{url}: the server answers no ranges of bytes, which reading shards needs")
        return answer.read(size)


def _request(url: str, *, method: str, range_: str | None = None) -> urllib.request.Request:
    headers = {} if range_ is None else {"Range": range_}
    return urllib.request.Request(url, method=method, headers=headers)


def _found_by_fsspec(url: str) -> Found:
    system, path = _system(url)
    about = system.info(path)
    tag = next((str(about[key]) for key in ("ETag", "etag", "mtime", "LastModified", "created") if key in about), "")
    return Found(int(about["size"]), tag)


def _read_fsspec(url: str, start: int, size: int) -> bytes:
    system, path = _system(url)
    return io.BytesIO(system.cat_file(path, start=start, end=start + size)).read()


def _system(url: str) -> tuple[Any, str]:
    """The file system of a scheme; `DataError` for one that is unknown, or whose package is missing."""
    try:
        return cast("Any", fsspec).core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url}: cannot be reached here ({first_line(error)})") from None

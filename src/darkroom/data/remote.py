"""Bytes that lie elsewhere: ranges of files behind `http(s)://`, and behind any other scheme that fsspec knows.

A host that is busy, or does not answer, is asked again after growing pauses; not so one that knows no such file. What
was looked at once and is another file afterwards is an error and no picture.
"""

import base64
import contextlib
import email.utils
import errno
import http.client
import re
import ssl
import string
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from time import monotonic, sleep, time
from typing import Any, Final, TypeVar, cast, final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import fsspec

from darkroom.core.errors import DataError, first_line

T = TypeVar("T")
SECONDS: Final = 30  # without a byte, before an answer counts as lost
SLOWEST: Final = 2**14  # bytes a second, below which it counts as lost too
LISTING: Final = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between two tries while somebody waits for a first answer
READING: Final = (*LISTING, 16.0, 32.0, 60.0, 60.0, 60.0)  # and later, when an outage should not end days of work
LONGEST_PAUSE: Final = 60.0  # that a host may ask for
PIECE: Final = 2**23  # bytes asked for at once of a whole file
_BUSY: Final = (408, 425, 429, 500, 502, 503, 504)
_NONE: Final = (403, 404, 410, 416)  # object stores answer 403 for what is not there, all 416 for an empty file
_CLOSED: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PART: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")
_SECRETS: Final = re.compile(r"(?<=://)[^/]*@|\?.*?(?=::|$)")


class Unreachable(DataError):
    """What was listed does not come as it was: nothing is known of the picture, so nothing is wrong with it."""


@final
@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a file without reading it: bytes, and a tag that changes with them (empty: none is told)."""

    size: int
    tag: str


def is_remote(place: str) -> bool:
    """Is a place named by a scheme, as in `https://...`?"""
    return "://" in place


def shown(place: str) -> str:
    """A place as it may be told and kept: without the password or the signature that a URL may have in it."""
    return _SECRETS.sub("", place) if is_remote(place) else place


def find(url: str) -> Facts:
    """What is known of a file; `OSError` where there is none, `Unreachable` when the host does not answer."""
    return _patiently(lambda: _found_by_http(url) if _is_http(url) else _found_by_fsspec(url), url=url, pauses=LISTING)


def read(url: str, *, start: int, size: int, facts: Facts) -> bytes:
    """Just these bytes of a file that was found to be so; `Unreachable` where they do not come."""

    def once() -> bytes:
        found, data = _read_http(url, start, size) if _is_http(url) else (facts, _read_fsspec(url, start, size))
        if found != facts:
            raise Unreachable(f"{shown(url)}: has changed since it was listed; run again with what is there now")
        if len(data) != size:
            raise ConnectionError(f"{len(data)} of {size} bytes came")
        return data

    try:
        return _patiently(once, url=url, pauses=READING) if size else b""
    except OSError as error:
        raise Unreachable(f"{shown(url)}: was there and is not any more ({_reason(error)})") from None


def whole(url: str, *, facts: Facts) -> Iterator[bytes]:
    """All bytes of a file, piece by piece; a piece that is lost on the way is fetched again."""
    for start in range(0, facts.size, PIECE):
        yield read(url, start=start, size=min(PIECE, facts.size - start), facts=facts)


def _patiently(once: Callable[[], T], *, url: str, pauses: Sequence[float]) -> T:
    """What one try answers, after as many as it takes."""
    left = iter(pauses)
    while True:
        try:
            return once()
        except (OSError, HTTPException, ValueError) as error:
            _give_up(error, url=url)
            pause, wanted = next(left, None), _asked_for(error)
            if pause is None:
                reason = _reason(error)
                raise Unreachable(f"{shown(url)}: does not answer ({reason}); run again when it does") from None
        sleep(max(pause, wanted))


def _give_up(error: Exception, *, url: str) -> None:
    """Raise what an error means, unless it is to try again."""
    match error:
        case urllib.error.HTTPError(code=code):
            error.close()
            answer = f"the server answers {code} {http.client.responses.get(code, '')}".rstrip()
            if code in _NONE:
                raise FileNotFoundError(errno.ENOENT, answer) from None
            if code not in _BUSY:
                raise Unreachable(f"{shown(url)}: {answer}") from None
        case urllib.error.URLError(reason=ssl.SSLCertVerificationError()):
            raise Unreachable(f"{shown(url)}: its certificate is not trusted ({_reason(error)})") from None
        case http.client.InvalidURL() | ValueError():
            raise DataError(f"{shown(url)}: is no address ({_reason(error)})") from None
        case _ if isinstance(error, _CLOSED):
            raise FileNotFoundError(errno.ENOENT, _reason(error)) from None
        case _:
            return


def _reason(error: Exception) -> str:
    """What an error says, without what is secret in the addresses that it names."""
    said = error.strerror if isinstance(error, OSError) else None
    return shown(said or first_line(error) or type(error).__name__)


def _asked_for(error: Exception) -> float:
    """Seconds that a busy host wants to be left alone, by number or by date."""
    wanted = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    try:
        date = None if wanted.isdigit() else email.utils.parsedate_to_datetime(wanted)
        seconds = float(wanted) if date is None else date.timestamp() - time()
    except ValueError:
        seconds = 0.0
    return min(LONGEST_PAUSE, max(0.0, seconds))


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _found_by_http(url: str) -> Facts:
    """Asked for by its first byte: addresses that were signed for reading answer nothing else."""
    return _read_http(url, 0, 1)[0]


def _read_http(url: str, start: int, size: int) -> tuple[Facts, bytes]:
    """Bytes of a file, and what the answer says of the whole."""
    request = _request(url, range_=f"bytes={start}-{start + size - 1}")
    with cast("HTTPResponse", urllib.request.urlopen(request, timeout=SECONDS)) as answer:
        part = _PART.fullmatch(answer.headers.get("Content-Range", ""))
        if answer.status != 206 or part is None:
            raise DataError(f"{shown(url)}: the server answers no ranges of bytes, which reading shards needs")
        if int(part[1]) != start:
            raise ConnectionError(f"bytes from {part[1]} on came, {start} was asked for")
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified", "")
        return Facts(int(part[2]), tag), _all(answer, size)


def _all(answer: HTTPResponse, size: int) -> bytes:
    """At most so many bytes, as they come; `TimeoutError` when that is by drops."""
    data, until = bytearray(), monotonic() + SECONDS + size / SLOWEST
    while len(data) < size:
        if monotonic() > until:
            raise TimeoutError(f"{len(data)} of {size} bytes came in {SECONDS + size / SLOWEST:.0f} s")
        piece = answer.read1(min(2**16, size - len(data)))
        if not piece:
            break
        data += piece
    return bytes(data)


def _request(url: str, *, range_: str) -> urllib.request.Request:
    """For a range of bytes; a name and password in the address are told to its host alone, wherever that sends us."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    plain = quote(urlunsplit(parts._replace(netloc=host, fragment="")), safe=string.punctuation)
    request = urllib.request.Request(plain, headers={"Range": range_})
    if user:
        words = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {words}")
    return request


def _found_by_fsspec(url: str) -> Facts:
    with _of_strangers():
        system, path = _system(url)
        about = system.info(path)
    tags = ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified", "last_modified", "created")
    if about.get("size") is None:
        raise DataError(f"{shown(url)}: nobody says how long the file is")
    return Facts(int(about["size"]), next((str(about[key]) for key in tags if about.get(key)), ""))


def _read_fsspec(url: str, start: int, size: int) -> bytes:
    with _of_strangers():
        system, path = _system(url)
        return bytes(system.cat_file(path, start=start, end=start + size))


@contextlib.contextmanager
def _of_strangers() -> Iterator[None]:
    """Packages for other schemes have errors of their own; to us they are connections that failed."""
    try:
        yield
    except (OSError, DataError):
        raise
    except Exception as error:
        raise ConnectionError(f"{type(error).__name__}: {first_line(error)}") from None


def _system(url: str) -> tuple[Any, str]:
    """The file system of a scheme; `DataError` for one that is unknown, or whose package is missing."""
    try:
        return cast("Any", fsspec).core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{shown(url)}: cannot be reached here ({first_line(error)})") from None

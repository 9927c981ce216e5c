"""Downloads of published files: checked, whole or not there at all."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from io import BufferedWriter
from pathlib import Path
from typing import final

from darkroom.core.errors import InputError
from darkroom.core.record import atomic, writable_folder

SECONDS = 30  # without a byte, before a download counts as stuck
PIECE = 1 << 20


@final
@dataclass(frozen=True)
class PublishedFile:
    """A published file: where it is, how the digest of its bytes begins, and the most bytes it can have.

    digest: `sha256:...` or `md5:...`, whole or as many digits as its publisher gives.
    """

    url: str
    digest: str
    limit: int


def cache(folder: str) -> Path:
    """Where what can be had again is kept: in this folder of `$DARKROOM_CACHE`, else of `~/.cache/darkroom`."""
    given = os.environ.get("DARKROOM_CACHE")
    return (Path(given) if given else Path.home() / ".cache" / "darkroom") / folder


def fetch(published: PublishedFile, *, path: Path) -> Path:
    """The file at `path`, downloaded if it is not there; a broken or wrong download leaves nothing behind.

    `InputError` when the host does not answer, the file is far too large or its checksum differs.
    """
    if path.is_file():
        return path
    folder = writable_folder(path.parent, instead="DARKROOM_CACHE can name another folder")
    with atomic(folder / path.name) as temporary:
        try:
            with urllib.request.urlopen(published.url, timeout=SECONDS) as answer, temporary.open("wb") as file:
                found = _copy(iter(partial(answer.read, PIECE), b""), file, published=published)
        except (OSError, HTTPException, ValueError) as error:
            raise InputError(f"{published.url} cannot be fetched: {_reason(error)}") from None
        if not found.startswith(published.digest):
            raise InputError(f"{published.url} is not the file that is known: {found} came, {published.digest} fits")
    return path


def _copy(pieces: Iterator[bytes], file: BufferedWriter, *, published: PublishedFile) -> str:
    """Copy all bytes and answer their digest; `InputError` as soon as there are more than there can be."""
    kind, size = published.digest.partition(":")[0], 0
    digest = hashlib.new(kind, usedforsecurity=False)
    for piece in pieces:
        size += len(piece)
        if size > published.limit:
            raise InputError(f"{published.url} is not the file that is known: it has more than {published.limit} bytes")
        digest.update(piece)
        file.write(piece)
    return f"{kind}:{digest.hexdigest()}"


def _reason(error: Exception) -> str:
    match error:
        case urllib.error.HTTPError(code=code, reason=reason):
            return f"the server answers {code} {reason}"
        case urllib.error.URLError(reason=reason):
            return str(reason)
        case _:
            return str(error) or type(error).__name__

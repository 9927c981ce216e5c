"""Run folders and their files: atomic writing, JSON-lines logs, plain JSON and YAML."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import yaml
from safetensors import SafetensorError

from darkroom.core.errors import InputError, TrainingError, UnwritableError, unwritable

MOST_NESTED: Final = 64  # of a JSON value that is shown
_UNFINISHED: Final = re.compile(r"\..+\.(?:safetensors|pt|json|jsonl|yaml|html|png)\.[a-z0-9_]{8}")  # see `atomic`


def writable_folder(folder: Path, *, instead: str = "choose another --out") -> Path:
    """The folder, made if it is not there; `UnwritableError` when it cannot be written. instead: what to do then."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise unwritable(folder, error, instead=instead) from None


@contextlib.contextmanager
def atomic(path: Path) -> Generator[Path]:
    """A temporary file beside `path`, moved over it when the block ends well; a broken write leaves nothing."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Generator[Path]:
    """A temporary folder beside `path` that becomes `path` when the block ends well; a broken write leaves nothing.

    `InputError` when something is there already, other than an empty folder, or when nothing can be written there.
    """
    path = path.absolute()
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: is there already, and is never written over; choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def disk_faults(folder: Path, *, kept: str) -> Generator[None]:
    """Within the block, a disk that is full, read-only or gone ends work in `folder` with a `TrainingError`.

    kept: what is safe nevertheless, as it stands in the error's sentence.
    """
    try:
        yield
    except BrokenPipeError:  # whoever read our words has left
        raise
    except (OSError, SafetensorError, UnwritableError) as error:
        reason = str(error)
        if isinstance(error, OSError | UnwritableError):
            reason = (error.strerror if isinstance(error, OSError) else error.reason) or reason
        raise TrainingError(
            f"{folder}: what a run writes could not be written ({reason}); {kept}. When there is room, run the same "
            "command again to go on"
        ) from None


def forget_unfinished(path: Path) -> None:
    """Remove what writing `path` left beside it when the process was killed; nobody else may be writing it."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)


def _forget_all_unfinished(folder: Path) -> None:
    """The same for all files in and below a folder of ours."""
    for place, _, names in os.walk(folder):
        for name in filter(_UNFINISHED.fullmatch, names):
            with contextlib.suppress(OSError):  # of a disk that is read-only by now
                Path(place, name).unlink()


@contextlib.contextmanager
def alone_in(folder: Path) -> Generator[None]:
    """Within the block nobody else comes into such a block of the same folder; `InputError` for who is not alone.

    However a process ends, it is out; what those that were killed left unfinished is removed. Disks that know no locks
    let everybody in.
    """
    handle = _locked(folder)
    try:
        _forget_all_unfinished(folder)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _locked(folder: Path) -> int | None:
    """A handle that holds the folder's lock; None where there are no locks."""
    try:
        import fcntl  # noqa: PLC0415  (not on every system)

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except OSError as error:
        os.close(handle)
        if not isinstance(error, BlockingIOError):
            return None
    raise InputError(f"{folder}: another process is at work in this folder; wait for it, or stop it")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: object) -> None:
    """Write readable JSON atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_yaml(path: Path, value: object) -> None:
    """Write YAML atomically, keys in the order given."""
    with atomic(path) as temporary:
        temporary.write_text(yaml_text(value), encoding="utf-8")


def yaml_text(value: object) -> str:
    """YAML, keys in the order given."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON object as a line."""
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(dict(values)) + "\n")


def write_lines(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write a log anew, atomically."""
    with atomic(path) as temporary:
        temporary.write_text("".join(json.dumps(dict(entry)) + "\n" for entry in entries), encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a log, without a torn last line and lines that a disk has garbled; an absent log is empty."""
    if not path.exists():
        return []
    entries: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            entry: object = json.loads(line)
            if isinstance(entry, dict):
                entries.append(cast("dict[str, Any]", entry))
    return entries


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that tell numbers of a step; a disk may garble one and leave it JSON."""
    return [
        line
        for line in read_lines(path)
        if isinstance(line.get("step"), int) and all(isinstance(value, int | float) for value in line.values())
    ]


def is_torn(log: Path) -> bool:
    """Does a log end in the middle of a line? What is appended next would be lost with it."""
    return log.exists() and log.stat().st_size > 0 and not log.read_bytes().endswith(b"\n")


def is_nested(value: object, levels: int = MOST_NESTED) -> bool:
    """Is a JSON value nested `levels` deep or deeper? Whoever shows such a value runs out of stack."""
    inner: Iterable[object] = ()
    if isinstance(value, dict):
        inner = cast("dict[str, object]", value).values()
    elif isinstance(value, list):
        inner = cast("list[object]", value)
    return levels == 0 or any(is_nested(each, levels - 1) for each in inner)


def read_json(path: Path) -> Any:
    """The value in a JSON file this package wrote; `InputError` when it was damaged since."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON that can be read; it was changed or damaged since it was written") from None


def known_json(path: Path) -> Any:
    """The value in a JSON file; None where there is none, or one that is damaged."""
    try:
        return read_json(path)
    except (OSError, InputError):
        return None

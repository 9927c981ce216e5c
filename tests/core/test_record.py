"""Folders that runs write to: who is in them, what was left behind, logs that a disk has garbled."""

import contextlib
import time
from pathlib import Path

import pytest

from darkroom.core.errors import InputError
from darkroom.core.record import alone_in, append_line, atomic, is_torn, read_log
from warm import begun


def _stays(folder: Path) -> None:
    with alone_in(folder):
        (folder / "there").touch()
        time.sleep(600)


def test_one_at_a_time_is_in_a_folder(tmp_path: Path) -> None:
    """Whoever is killed is out."""
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    with begun(_stays, run, folder=tmp_path / "said") as process:
        while not (run / "there").exists():
            assert process.alive
            time.sleep(0.02)
        with alone_in(other):
            pass
        with pytest.raises(InputError, match="another process is at work in this folder"), alone_in(run):
            pass
    with alone_in(run), pytest.raises(InputError), alone_in(run):
        pass
    with alone_in(run):
        pass


def test_what_the_killed_left_unfinished_goes(tmp_path: Path) -> None:
    place = tmp_path / "denoiser" / "averages"
    place.mkdir(parents=True)
    for name in ("00000002.safetensors", "state.before.pt", "log.jsonl"):
        with contextlib.suppress(KeyError), atomic(place / name) as temporary:
            temporary.write_bytes(b"half")
            (place / f"{temporary.name[:-8]}abcd_123").write_bytes(b"half")  # as if killed here
            raise KeyError
    kept = [place / name for name in ("00000002.safetensors", ".hidden", ".env.settings", ".a.pt.abcd")]
    for path in kept:
        path.touch()
    assert len(list(place.iterdir())) == 7
    with alone_in(tmp_path):
        assert sorted(place.iterdir()) == sorted(kept)


def test_lines_that_a_disk_has_garbled_are_none(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    append_line(log, {"step": 1, "loss": 0.5})
    with log.open("ab") as file:
        file.write(b"[" * 100_000 + b"\n")
        file.write(b'{"stap": 2, "loss": 0.5}\n{"step": 2, "loss": "0.5"}\n[3]\n4\n\xff\xfe\n{"step": 3, "lo')
    assert is_torn(log)
    assert read_log(log) == [{"step": 1, "loss": 0.5}]
    append_line(log, {})
    assert read_log(log) == [{"step": 1, "loss": 0.5}]
    assert read_log(tmp_path / "none") == []

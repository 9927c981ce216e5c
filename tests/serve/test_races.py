"""What happens at the same time: ends against beginnings, leaving against company, a disk that is full, a lost file."""

import errno
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import over, submit
from test_api import coded
from test_engine import batches_of
from test_kept_jobs import NEW, sampled, store

from darkroom.core.errors import ModelFileError
from darkroom.serve import store as store_module
from darkroom.serve.api import build
from darkroom.serve.engine import Engine
from darkroom.serve.limits import Refused
from darkroom.serve.server import listening, run
from darkroom.serve.shelf import Shelf
from darkroom.serve.store import Store

__all__ = ["store"]


def test_the_end_of_a_job_is_told_last_whatever_is_begun(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens has not read it yet, and nothing more would be told to a job that is not there."""
    job, after = submit(engine, steps=3), submit(engine, steps=2)
    channel, original = engine._live[job.id].channel, Store.begin

    def cancelled_meanwhile(store: Store, ids: Sequence[str], *, now: float) -> None:
        original(store, ids, now=now)
        if job.id in ids:
            assert engine.cancel(job.id)

    monkeypatch.setattr(Store, "begin", cancelled_meanwhile)
    engine.start()
    over(engine, after)
    assert channel.after(0)[-1].data == {"state": "cancelled", "over": True}


def test_whoever_leaves_does_not_part_the_others(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pictures are gone with it, so that it could not be settled again."""
    colours = Image.fromarray(np.full((16, 16, 3), 90, np.uint8))
    jobs = [submit(engine, f"{seed}", image=coded(colours), strength=0.5, seed=seed) for seed in range(3)]
    sizes, original = batches_of(engine, monkeypatch), Store.inputs

    def left_meanwhile(store: Store, id: str) -> dict[str, bytes]:
        engine.cancel(jobs[1].id)
        return original(store, id)

    monkeypatch.setattr(Store, "inputs", left_meanwhile)
    engine.start()
    assert [job.state for job in over(engine, *jobs)] == ["done", "cancelled", "done"]
    assert sizes == [2]


def test_whoever_left_while_a_model_was_loaded_is_not_drawn(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [submit(engine, f"{seed}", model="text", prompt="a star", seed=seed) for seed in range(2)]
    sizes, original = batches_of(engine, monkeypatch), Shelf.open

    def left_meanwhile(shelf: Shelf, name: str) -> Any:
        if name == "text":
            engine.cancel(jobs[0].id)
        return original(shelf, name)

    monkeypatch.setattr(Shelf, "open", left_meanwhile)
    engine.start()
    assert [job.state for job in over(engine, *jobs)] == ["cancelled", "done"]
    assert sizes == [1]


def test_a_model_that_cannot_be_loaded_names_no_file(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original, sentence = Shelf.open, "/srv/secret/text.safetensors: broken"

    def broken(shelf: Shelf, name: str) -> Any:
        if name == "text":
            raise ModelFileError(sentence)
        return original(shelf, name)

    monkeypatch.setattr(Shelf, "open", broken)
    engine.start()
    failed, done = over(engine, submit(engine, model="text", prompt="a star"), submit(engine))
    assert (failed.state, done.state) == ("failed", "done")
    assert failed.why == "the model text cannot be loaded; the server's log says why"
    assert sentence in caplog.text


def test_pictures_that_cannot_be_kept_fail_in_words(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(picture: Any, path: Path, **_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(store_module, "save_png", full)
    engine.start()
    (failed,) = over(engine, submit(engine))
    assert (failed.state, failed.why) == ("failed", "its pictures could not be kept (No space left on device)")
    assert engine.alive


def test_a_folder_that_cannot_be_made_is_not_named(engine: Engine) -> None:
    job = submit(engine)
    folder = engine.store.path(job.id, 0).parent
    folder.write_bytes(b"in its place")
    engine.start()
    (failed,) = over(engine, job)
    assert (failed.state, failed.why) == ("failed", "its pictures could not be kept (File exists)")


def test_a_full_disk_is_refused_and_with_room_it_goes_on(store: Store) -> None:
    (pages,) = store._base.execute("PRAGMA page_count").fetchone()
    store._base.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(Refused, match="nothing can be kept here now") as refused:
        store.add(NEW, pictures={"image": bytes(10**6)})
    assert (refused.value.status, refused.value.code) == (507, "no_room")
    assert store.job(NEW.id) is None
    store._base.execute("PRAGMA max_page_count=100000")
    assert store.add(NEW, pictures={"image": b"bytes"}).state == "queued"


def test_a_server_that_cannot_begin_for_its_disk_is_full_says_so(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started again just after a full disk ended it."""

    def full(store: Store) -> None:
        raise Refused("nothing can be kept here now", status=507, code="no_room")

    monkeypatch.setattr(Store, "unfinished", full)
    with pytest.raises(Refused, match="nothing can be kept here now"):
        run(build(engine), engine, at=listening("127.0.0.1", 0))


class FailsOnce:
    """A database whose disk fails when the first change is to be kept."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self.base, self.failed = base, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def execute(self, query: str, *values: Any) -> Any:
        """As the database does, but for once."""
        if query == "COMMIT" and not self.failed:
            self.failed = True
            raise sqlite3.OperationalError("disk I/O error")
        return self.base.execute(query, *values)


def test_a_change_that_is_not_kept_leaves_nothing_open(store: Store) -> None:
    store._base = FailsOnce(store._base)  # type: ignore[assignment]
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        store.add(NEW, pictures={})
    assert store.job(NEW.id) is None
    assert store.add(NEW, pictures={}).id == NEW.id


def test_a_job_that_is_forgotten_leaves_no_picture(store: Store) -> None:
    """Also none that was written when the process was killed, before it was counted."""
    job = store.add(NEW, pictures={})
    store.begin([job.id], now=2.0)
    store.keep([(job.id, 0, sampled())], now=3.0)
    store.path(job.id, 1).write_bytes(b"never counted")
    assert store.end(job.id, "cancelled", now=4.0)
    assert store.forget(job.id)
    assert [path for path in store.pictures.rglob("*") if path.is_file()] == []

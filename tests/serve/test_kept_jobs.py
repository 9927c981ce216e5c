"""Jobs on disk: states only move forward, one process at a time, and what is left behind is found again."""

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.core.errors import InputError
from darkroom.serve.store import Job, Store
from darkroom.tasks.generate import Sampled
from darkroom.tasks.note import read_note, sign

NEW = Job(0, "a" * 24, "", "me", "m", "queued", "{}", 2, 0, 1.0, None, None, None)
NOTE = {"model": "m", "seed": 1, "steps": 2, "size": [4, 4], "solver": "ddim"}


def sampled(index: int = 0) -> Sampled:
    picture = Image.new("RGB", (4, 4), (index, 0, 0))
    sign(picture, NOTE)
    return Sampled(picture, index, dict(NOTE))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    found = Store(tmp_path / "served")
    yield found
    found.close()


def state(store: Store, id: str = NEW.id) -> str | None:
    job = store.job(id)
    return None if job is None else job.state


def test_a_job_is_done_with_its_last_picture(store: Store) -> None:
    job = store.add(NEW, pictures={"image": b"bytes"})
    assert job.number == 1
    assert store.inputs(job.id) == {"image": b"bytes"}
    store.begin([job.id], now=2.0)
    assert store.keep([(job.id, 1, sampled(1))], now=3.0) == []
    assert store.notes(job.id).keys() == {1}
    assert store.keep([(job.id, 0, sampled(0))], now=4.0) == [job.id]
    assert store.job(job.id) == replace(job, state="done", attempts=1, started=2.0, ended=4.0)
    assert store.inputs(job.id) == {}
    assert read_note(store.path(job.id, 0)).model == "m"
    assert b"trainedAlgorithmicMedia" in store.path(job.id, 1).read_bytes()


def test_what_ended_does_not_end_again_and_takes_no_pictures(store: Store) -> None:
    job = store.add(NEW, pictures={})
    assert store.end(job.id, "cancelled", now=2.0)
    assert not store.end(job.id, "failed", now=3.0, why="late")
    store.begin([job.id], now=4.0)
    assert store.keep([(job.id, 0, sampled())], now=5.0) == []
    assert store.notes(job.id) == {}
    assert list(store.pictures.rglob("*.png")) == []
    found = store.job(job.id)
    assert found is not None
    assert (found.state, found.ended, found.attempts, found.why) == ("cancelled", 2.0, 0, None)


def test_a_second_process_is_refused_and_the_next_goes_on(store: Store) -> None:
    job = store.add(NEW, pictures={})
    store.begin([job.id], now=2.0)
    store.keep([(job.id, 0, sampled())], now=3.0)
    with pytest.raises(InputError, match="another darkroom serve works here; choose another --data"):
        Store(store.folder)
    store.close()
    left = store.path(job.id, 1).parent / f".{job.id}-0001.png.x1"
    left.write_bytes(b"half")
    again = Store(store.folder)
    again.sweep()
    assert not left.exists()
    (unfinished,) = again.unfinished()
    assert (unfinished.id, unfinished.state, unfinished.attempts) == (job.id, "queued", 1)
    assert again.notes(job.id).keys() == {0}
    again.close()


def test_the_oldest_leave_with_their_pictures_but_for_unfinished_ones(store: Store) -> None:
    jobs = [store.add(replace(NEW, id=f"{number:024x}", total=1), pictures={}) for number in range(5)]
    for job in jobs[:4]:
        store.begin([job.id], now=2.0)
        store.keep([(job.id, 0, sampled())], now=3.0)
    store.forget_oldest(2)
    assert [state(store, job.id) for job in jobs] == [None, None, "done", "done", "queued"]
    assert [store.path(job.id, 0).exists() for job in jobs[:4]] == [False, False, True, True]
    assert not store.forget(jobs[4].id)


def test_jobs_are_listed_by_owner_the_newest_first(store: Store) -> None:
    for number in range(5):
        store.add(replace(NEW, id=f"{number:024x}", owner="ab"[number % 2]), pictures={})
    assert [job.number for job in store.jobs(owner="a", before=None, count=2)] == [5, 3]
    assert [job.number for job in store.jobs(owner="a", before=3, count=2)] == [1]
    assert store.jobs(owner="a", before=None, count=9, state="done") == []


def test_other_files_are_no_database(tmp_path: Path) -> None:
    (tmp_path / "darkroom.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match="no database of ours"):
        Store(tmp_path)


def test_a_later_version_is_left_alone(tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "darkroom.sqlite")
    base.execute("PRAGMA user_version=99")
    base.close()
    with pytest.raises(InputError, match="later version"):
        Store(tmp_path)

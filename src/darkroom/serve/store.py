"""Jobs and their pictures on disk: what a job has become survives whatever happens to the process."""

import json
import shutil
import sqlite3
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

from darkroom.core.errors import InputError
from darkroom.core.pictures import save_png
from darkroom.core.record import writable_folder
from darkroom.serve.limits import Refused
from darkroom.tasks.generate import Sampled

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: Final[tuple[State, ...]] = ("done", "failed", "cancelled")
VERSION: Final = 1
FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS jobs(
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, client TEXT NOT NULL,
    model TEXT NOT NULL, state TEXT NOT NULL, asked TEXT NOT NULL, total INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL, started REAL, ended REAL, why TEXT);
CREATE INDEX IF NOT EXISTS jobs_of_owner ON jobs(owner, number);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs(state, number);
CREATE TABLE IF NOT EXISTS inputs(job TEXT NOT NULL, field TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY(job, field));
CREATE TABLE IF NOT EXISTS pictures(
    job TEXT NOT NULL, place INTEGER NOT NULL, note TEXT NOT NULL, PRIMARY KEY(job, place));
"""


@final
@dataclass(frozen=True)
class Job:
    """A job as it stands. number: their order · owner: who may see it · client: whose turn it is drawn in · asked: JSON
    of `Asked` · total: its pictures · attempts: times it was begun · created, started, ended: seconds since 1970 · why:
    a sentence where it failed."""

    number: int
    id: str
    owner: str
    client: str
    model: str
    state: State
    asked: str
    total: int
    attempts: int
    created: float
    started: float | None
    ended: float | None
    why: str | None

    @property
    def over(self) -> bool:
        """Will nothing happen to it any more?"""
        return self.state in ENDED


@final
class Store:
    """The jobs in a folder, for any thread of one process; a second process is refused.

    `darkroom.sqlite` has all but the pictures, which are files named by job and place. A job moves from state to state
    in transactions that name the state it leaves, so no two of them can end it differently. Pictures are written before
    the row that counts them: what has a row is there, and what has none is drawn again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = writable_folder(folder, instead="choose another --data")
        self.pictures = writable_folder(folder / "pictures", instead="choose another --data")
        self._lock = threading.Lock()
        try:
            self._base = sqlite3.connect(
                folder / "darkroom.sqlite", timeout=1, isolation_level=None, check_same_thread=False
            )
            self._base.row_factory = sqlite3.Row
            self._open()
        except sqlite3.OperationalError as error:
            said = "another darkroom serve works here" if "locked" in str(error) else f"cannot be used ({error})"
            raise InputError(f"{folder}: {said}; choose another --data") from None
        except sqlite3.DatabaseError as error:
            raise InputError(f"{folder / 'darkroom.sqlite'}: no database of ours ({error})") from None

    def _open(self) -> None:
        self._base.execute("PRAGMA locking_mode=EXCLUSIVE")  # held until the process ends, however it ends
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=NORMAL")
        (version,) = self._base.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise InputError(f"{self.folder}: written by a later version of darkroom; choose another --data")
        self._base.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={VERSION}; COMMIT;")

    def close(self) -> None:
        """Nothing can be asked afterwards."""
        with self._lock:
            self._base.close()

    @contextmanager
    def _change(self) -> Generator[sqlite3.Connection]:
        """All of it or nothing; `Refused` with 507 where the disk takes no more."""
        with self._lock:
            try:
                self._base.execute("BEGIN IMMEDIATE")
                yield self._base
                self._base.execute("COMMIT")
            except BaseException as error:
                if self._base.in_transaction:  # a full disk may have ended it already
                    self._base.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in FULL:
                    raise Refused(f"nothing can be kept here now ({error})", status=507, code="no_room") from error
                raise

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._base.execute(query, values).fetchall()

    def add(self, job: Job, *, pictures: Mapping[str, bytes]) -> Job:
        """A new job with the pictures it was given; answers it with its number."""
        columns = ("id", "owner", "client", "model", "state", "asked", "total", "created")
        places = ", ".join("?" * len(columns))
        with self._change() as base:
            values = [getattr(job, name) for name in columns]
            base.execute(f"INSERT INTO jobs({', '.join(columns)}) VALUES ({places})", values)
            base.executemany("INSERT INTO inputs VALUES (?, ?, ?)", [(job.id, *each) for each in pictures.items()])
        found = self.job(job.id)
        assert found is not None
        return found

    def job(self, id: str) -> Job | None:
        """The job of this id."""
        rows = self._read("SELECT * FROM jobs WHERE id = ?", (id,))
        return Job(**dict(rows[0])) if rows else None

    def jobs(self, *, owner: str, before: int | None, count: int, state: str | None = None) -> list[Job]:
        """An owner's jobs, the newest first, of smaller number than `before`."""
        query = (
            "SELECT * FROM jobs WHERE owner = ? AND number < ? AND (? IS NULL OR state = ?) "
            "ORDER BY number DESC LIMIT ?"
        )
        rows = self._read(query, (owner, 2**62 if before is None else before, state, state, count))
        return [Job(**dict(row)) for row in rows]

    def unfinished(self) -> list[Job]:
        """Jobs to go on with after a start, the oldest first; those that were being drawn wait again."""
        with self._change() as base:
            base.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")
        return [Job(**dict(row)) for row in self._read("SELECT * FROM jobs WHERE state = 'queued' ORDER BY number")]

    def inputs(self, id: str) -> dict[str, bytes]:
        """The pictures a job was given, by field, as they came."""
        return {row["field"]: row["data"] for row in self._read("SELECT * FROM inputs WHERE job = ?", (id,))}

    def notes(self, id: str) -> dict[int, dict[str, Any]]:
        """The notes of a job's finished pictures, by place."""
        rows = self._read("SELECT place, note FROM pictures WHERE job = ? ORDER BY place", (id,))
        return {row["place"]: json.loads(row["note"]) for row in rows}

    def path(self, id: str, place: int) -> Path:
        """Where a picture lies; for ids that came out of this store only."""
        return self.pictures / id[:2] / f"{id}-{place:04}.png"

    def picture(self, id: str, place: int) -> bytes | None:
        """A finished picture, a PNG; None where there is none, or none any more."""
        if not self._read("SELECT 1 FROM pictures WHERE job = ? AND place = ?", (id, place)):
            return None
        try:
            return self.path(id, place).read_bytes()
        except FileNotFoundError:
            return None

    def begin(self, ids: Iterable[str], *, now: float) -> None:
        """These jobs are being drawn from now on; for those that are already, or are not wanted any more, nothing."""
        with self._change() as base:
            base.executemany(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, started = ? "
                "WHERE id = ? AND state = 'queued'",
                [(now, id) for id in ids],
            )

    def keep(self, drawn: Sequence[tuple[str, int, Sampled]], *, now: float) -> list[str]:
        """Write pictures (job, place, picture) of running jobs; answers the jobs that are done with them.

        Those of jobs that ended meanwhile are removed again: nothing would ever find them.
        """
        for id, place, sampled in drawn:
            save_png(sampled.picture, self.path(id, place), metadata=sampled.metadata)
        with self._change() as base:
            lost = [(id, place) for id, place, sampled in drawn if not self._noted(base, id, place, sampled=sampled)]
            ids = dict.fromkeys(id for id, _, _ in drawn)
            done = [id for id in ids if self._finish(base, id, now)]
        for id, place in lost:
            self.path(id, place).unlink(missing_ok=True)
        return done

    def _noted(self, base: sqlite3.Connection, id: str, place: int, *, sampled: Sampled) -> bool:
        """Count a picture of a running job; False where the job is running no more."""
        note = json.dumps(sampled.recipe, ensure_ascii=False)
        told = "INSERT OR REPLACE INTO pictures SELECT id, ?, ? FROM jobs WHERE id = ? AND state = 'running'"
        return bool(base.execute(told, (place, note, id)).rowcount)

    def _finish(self, base: sqlite3.Connection, id: str, now: float) -> bool:
        changed = base.execute(
            "UPDATE jobs SET state = 'done', ended = ? WHERE id = ? AND state = 'running' "
            "AND total = (SELECT count(*) FROM pictures WHERE job = id)",
            (now, id),
        ).rowcount
        if changed:
            base.execute("DELETE FROM inputs WHERE job = ?", (id,))
        return bool(changed)

    def end(self, id: str, state: State, *, now: float, why: str | None = None) -> bool:
        """A job that waits or is drawn comes to an end without all its pictures; False when it had ended already."""
        with self._change() as base:
            changed = base.execute(
                "UPDATE jobs SET state = ?, ended = ?, why = ? WHERE id = ? AND state IN ('queued', 'running')",
                (state, now, why, id),
            ).rowcount
            if changed:
                base.execute("DELETE FROM inputs WHERE job = ?", (id,))
        return bool(changed)

    def forget(self, id: str) -> bool:
        """Remove an ended job and its pictures; False when there is none, or it has not ended."""
        with self._change() as base:
            rows = base.execute(f"SELECT total FROM jobs WHERE id = ? AND state IN {ENDED}", (id,)).fetchall()
            if rows:
                base.execute("DELETE FROM jobs WHERE id = ?", (id,))
                base.execute("DELETE FROM pictures WHERE job = ?", (id,))
        for place in range(rows[0]["total"] if rows else 0):  # also one that was written and never counted
            self.path(id, place).unlink(missing_ok=True)
        return bool(rows)

    def forget_oldest(self, kept: int) -> None:
        """Remove ended jobs but for the `kept` newest."""
        rows = self._read(f"SELECT id FROM jobs WHERE state IN {ENDED} ORDER BY number DESC LIMIT -1 OFFSET ?", (kept,))
        for row in rows:
            self.forget(row["id"])

    def sweep(self) -> None:
        """Remove what writing pictures left when the process was killed."""
        for left in self.pictures.rglob(".*.png.*"):
            left.unlink(missing_ok=True)

    def free(self) -> int:
        """Bytes left on the disk."""
        return shutil.disk_usage(self.folder).free

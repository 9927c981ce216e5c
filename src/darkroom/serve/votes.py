"""Votes on disk: each is kept before its voter is told so, and stands as it was first given."""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from darkroom.core.errors import InputError
from darkroom.core.record import writable_folder
from darkroom.serve.ballot import Poll, Side

FILE: Final = "votes.sqlite"
VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS poll(one INTEGER PRIMARY KEY CHECK(one = 1), asked TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS voters(
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, came REAL NOT NULL);
CREATE TABLE IF NOT EXISTS votes(
    voter INTEGER NOT NULL, question INTEGER NOT NULL, side TEXT NOT NULL CHECK(side IN ('left', 'right')),
    seconds REAL NOT NULL, given REAL NOT NULL, PRIMARY KEY(voter, question));
"""


@final
@dataclass(frozen=True)
class Vote:
    """What a voter chose. seconds: from when the pictures were seen, as the page measured it."""

    side: Side
    seconds: float


@final
class Votes:
    """The votes of one poll in a folder, for any thread of any process; `votes.sqlite` has all of them.

    A transaction is on the disk when it has ended (WAL, synchronous FULL), so that what was answered to a page survives
    whatever happens to the process. clock: seconds since 1970. `InputError` where another poll was begun in the folder.
    """

    def __init__(self, folder: Path, poll: Poll, *, clock: Callable[[], float] = time.time) -> None:
        self.poll = poll
        self._clock, self._lock = clock, threading.Lock()
        path = writable_folder(folder) / FILE
        try:
            self._base = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=FULL")
            (version,) = self._base.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise InputError(f"{path}: written by a later version of darkroom; choose another --out")
            self._base.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={VERSION}; COMMIT;")
            self._claim(folder)
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path}: cannot be used as a database of votes ({error}); choose another --out") from None

    def _claim(self, folder: Path) -> None:
        """Write what is asked into a new file; refuse one where something else was asked."""
        asked = json.dumps(self.poll.plain(), sort_keys=True)
        with self._lock:
            self._base.execute("INSERT OR IGNORE INTO poll VALUES (1, ?)", (asked,))
            (known,) = self._base.execute("SELECT asked FROM poll").fetchone()
        if known != asked:
            apart = _difference(known, self.poll)
            raise InputError(f"{folder}: votes on something else are kept here ({apart}); choose another --out")

    def close(self) -> None:
        """Nothing can be asked afterwards."""
        with self._lock:
            self._base.close()

    def enter(self) -> str:
        """Somebody new: a name that cannot be guessed."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._base.execute("INSERT INTO voters(id, came) VALUES (?, ?)", (name, self._clock()))
        return name

    def voter(self, name: str) -> int | None:
        """The number of a voter, from 1; None for a name that nobody has."""
        with self._lock:
            found = self._base.execute("SELECT number FROM voters WHERE id = ?", (name,)).fetchone()
        return None if found is None else int(found[0])

    def given(self, voter: int) -> dict[int, Vote]:
        """What a voter has chosen so far, by question."""
        with self._lock:
            rows = self._base.execute("SELECT question, side, seconds FROM votes WHERE voter = ?", (voter,)).fetchall()
        return {question: Vote(side, seconds) for question, side, seconds in rows}

    def vote(self, voter: int, question: int, *, side: Side, seconds: float) -> Side:
        """Keep a vote, on disk when this returns; answers the one that counts, which is the first of a question."""
        values = (voter, question, side, seconds, self._clock())
        with self._lock:
            self._base.execute("INSERT OR IGNORE INTO votes VALUES (?, ?, ?, ?, ?)", values)
            query = "SELECT side FROM votes WHERE voter = ? AND question = ?"
            (kept,) = self._base.execute(query, (voter, question)).fetchone()
        return kept

    def all(self) -> dict[int, dict[int, Vote]]:
        """Every vote, by voter and question; who came and chose nothing is there too."""
        with self._lock:
            voters = self._base.execute("SELECT number FROM voters ORDER BY number").fetchall()
            rows = self._base.execute(
                "SELECT voter, question, side, seconds FROM votes ORDER BY voter, question"
            ).fetchall()
        found: dict[int, dict[int, Vote]] = {number: {} for (number,) in voters}
        for voter, question, side, seconds in rows:
            found.setdefault(voter, {})[question] = Vote(side, seconds)
        return found


def _difference(known: str, poll: Poll) -> str:
    """What was asked otherwise, by name."""
    try:
        before: Any = json.loads(known)
    except ValueError:
        before = None
    if not isinstance(before, dict):
        return "of another kind"
    now = poll.plain()
    return f"{', '.join(key for key in now if before.get(key) != now[key])} differ"

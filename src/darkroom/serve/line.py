"""The queue: clients take turns, and whoever waits for the same kind of work rides along."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import final


@final
@dataclass(eq=False)
class Waiting:
    """A job in the queue. kind: equal kinds may share a batch of at most `most` pictures · places: still to draw."""

    job: str
    client: str
    kind: str
    most: int
    places: deque[int] = field(default_factory=deque)


@final
class Line:
    """Who is next. In turn each client's oldest job leads a batch; free places go to others of its kind, in turn too.

    So nobody waits longer than one batch for each other client, however much those ask for, and a full batch is drawn
    whenever there is enough alike. Not for several threads.
    """

    def __init__(self) -> None:
        self._clients: dict[str, list[Waiting]] = {}  # in the order of their turns

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def of(self, client: str) -> int:
        """Jobs of one client."""
        return len(self._clients.get(client, ()))

    def add(self, waiting: Waiting, *, first: bool = False) -> None:
        """At the end of its client's jobs, or before them."""
        jobs = self._clients.setdefault(waiting.client, [])
        jobs.insert(0 if first else len(jobs), waiting)

    def remove(self, job: str) -> bool:
        """Take a job out; was it there?"""
        for client, jobs in self._clients.items():
            for each in jobs:
                if each.job == job:
                    self._without(client, lambda one, gone=each: one is gone)
                    return True
        return False

    def ahead(self, job: str) -> int | None:
        """How many jobs lead a batch before this one does, at most; None when it is not here."""
        turns = list(self._clients.items())
        for turn, (client, jobs) in enumerate(turns):
            own = next((place for place, each in enumerate(jobs) if each.job == job), None)
            if own is not None:
                before = [
                    min(len(others), own + (at < turn)) for at, (one, others) in enumerate(turns) if one != client
                ]
                return own + sum(before)
        return None

    def take(self) -> list[tuple[str, int]]:
        """The next batch as (job, place), the leader's first; empty when nobody waits."""
        if not self._clients:
            return []
        leader, jobs = next(iter(self._clients.items()))
        lead = jobs[0]
        self._clients[leader] = self._clients.pop(leader)  # its next turn is after all others
        order = [leader, *(client for client in self._clients if client != leader)]
        riders = deque(self._riders(client, lead.kind) for client in order)
        taken: list[tuple[Waiting, int]] = []
        while riders and len(taken) < lead.most:
            rider = riders.popleft()
            found = next(rider, None)
            if found is not None:
                taken.append(found)
                riders.append(rider)
        for waiting, _ in taken:
            waiting.places.popleft()
        for client in order:
            self._without(client, lambda one: not one.places)
        return [(waiting.job, place) for waiting, place in taken]

    def _riders(self, client: str, kind: str) -> Iterator[tuple[Waiting, int]]:
        return ((each, place) for each in self._clients[client] if each.kind == kind for place in list(each.places))

    def _without(self, client: str, gone: Callable[[Waiting], bool]) -> None:
        kept = [each for each in self._clients[client] if not gone(each)]
        if kept:
            self._clients[client] = kept
        else:
            del self._clients[client]

"""The engine: takes jobs, joins those that are alike, draws them step by step, and keeps what comes of it."""

import logging
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from darkroom.core.errors import DarkroomError, UnwritableError
from darkroom.core.shapes import Number
from darkroom.core.spec import parse
from darkroom.serve.asked import Asked, opened, read_json
from darkroom.serve.batch import Batch, Live, Over
from darkroom.serve.counts import Counts
from darkroom.serve.limits import Limits, Refused, check, check_waiting
from darkroom.serve.line import Line, Waiting
from darkroom.serve.news import Event, rung
from darkroom.serve.shelf import Offer, Opened, Shelf
from darkroom.serve.store import Job, State, Store
from darkroom.tasks.generate import Member, Sampled, draw, steps_taken
from darkroom.tasks.request import Request
from darkroom.tasks.settle import offered, settle, size_of
from darkroom.tasks.together import alike

BATCH: Final = 8  # pictures of a model's own size at once
ATTEMPTS: Final = 5  # times that a job is begun: one that takes the process with it shall not do so for ever
log = logging.getLogger("darkroom.serve")


@final
@dataclass(eq=False)
class Engine:
    """One thread that draws for everybody; all other methods are quick and for any thread.

    batch: pictures of the model's own size at once; larger ones fewer. clock: seconds since 1970.
    """

    shelf: Shelf
    store: Store
    limits: Limits = field(default_factory=Limits)
    batch: int = BATCH
    clock: Callable[[], float] = time.time
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._line = Line()
        self._live: dict[str, Live] = {}
        self._changed = threading.Condition()  # guards the two above
        self._stop_by: float | None = None
        self._thread = threading.Thread(target=self._work, name="darkroom-engine", daemon=True)
        self.ready = False
        self.fault: BaseException | None = None  # what ended the thread or kept it from beginning, if not a wish
        self.epoch = secrets.token_hex(4)  # events are numbered anew in each process

    # from outside

    def start(self) -> None:
        """Take up what an earlier process left, and begin to draw; what keeps it from that is its fault, too."""
        try:
            self._take_all_up()
        except BaseException as error:
            self.fault = error
            raise
        self._thread.start()

    def _take_all_up(self) -> None:
        self.store.sweep()
        for job in self.store.unfinished():
            if job.id in self._live:
                continue
            try:
                self._take_up(job)
            except DarkroomError as error:  # its model is offered no more, or the limits are others now
                self.store.end(job.id, "failed", now=self.clock(), why=str(error))

    def _take_up(self, job: Job) -> None:
        """Queue a job of an earlier process; `DarkroomError` where it cannot be drawn any more."""
        if job.attempts >= ATTEMPTS:
            raise Refused(f"it was begun {job.attempts} times, and each time the server ended before it did")
        self._enqueue(job, self._settled(job), done=len(self.store.notes(job.id)))

    def stop(self, grace: Number) -> None:
        """Finish the batch that is being drawn if that takes no longer than `grace` seconds; all else waits on disk."""
        self.closing(grace)
        if self._thread.ident is not None:
            self._thread.join()
        self.store.close()

    def closing(self, grace: Number) -> None:
        """Take no more jobs, and tell whoever listens."""
        with self._changed:
            if self._stop_by is None:
                self._stop_by = time.monotonic() + grace
            for live in self._live.values():
                live.channel.tell("closing", {})
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Is it about to stop?"""
        return self._stop_by is not None

    @property
    def alive(self) -> bool:
        """Is the thread that draws running?"""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        with self._changed:
            return len(self._line)

    @property
    def unfinished(self) -> int:
        """Jobs in the queue and those being drawn."""
        with self._changed:
            return len(self._live)

    def submit(self, asked: Asked, pictures: Mapping[str, bytes], *, client: str, owner: str = "") -> Job:
        """A new job, kept on disk when this returns; `InputError` for what cannot be drawn, or may not."""
        self._check_open()
        offer = self.shelf.offer(asked.ask.model)
        request = self._request(offer, asked, pictures)
        job = Job(
            number=0,
            id=secrets.token_hex(12),
            owner=owner,
            client=client,
            model=offer.name,
            state="queued",
            asked=asked.model_dump_json(exclude_defaults=True),
            total=request.total,
            attempts=0,
            created=self.clock(),
            started=None,
            ended=None,
            why=None,
        )
        with self._changed:
            self._check_open()  # whoever listens has been told when it closed, and would not be told again
            check_waiting(len(self._line), self._line.of(client), limits=self.limits)
            kept = self.store.add(job, pictures=pictures)
            self._enqueue(kept, request)
        self.counts.add("jobs", label='state="queued"')
        return kept

    def _check_open(self) -> None:
        if self.closed:
            raise Refused("this server is stopping; try again soon", status=503, code="stopping")

    def cancel(self, id: str) -> bool:
        """Draw a job no further: the engine is free of it within a step. False when it had ended."""
        return self._end(id, "cancelled")

    def ahead(self, id: str) -> int | None:
        """Jobs that get their turn before this one; None when it does not wait."""
        with self._changed:
            return self._line.ahead(id)

    def progress(self, id: str) -> float:
        """The share of a job's steps that are done, 0 to 1."""
        with self._changed:
            live = self._live.get(id)
        return 0.0 if live is None else live.share

    async def follow(
        self, id: str, *, after: int = 0, previews: bool = False, patience: Number | None = None
    ) -> AsyncGenerator[Event | None]:
        """A job's events of higher number than `after`, until it ends or the server does.

        patience: seconds after which None comes when nothing else did.
        """
        with self._changed:
            live = self._live.get(id)
        if live is None:
            return
        with live.channel.listen(previews=previews) as bell:
            while True:
                bell.clear()
                for event in live.channel.after(after):
                    after = event.number
                    yield event
                    if event.kind == "closing" or event.data.get("over"):
                        return
                if not await rung(bell, patience):
                    yield None

    # the thread

    def _work(self) -> None:
        try:
            self.shelf.open(self.shelf.offer(None).name)
            self.ready = True
            while (taken := self._next()) is not None:
                self._draw(taken)
        except BaseException as error:
            self.fault = error
            if not isinstance(error, DarkroomError):
                log.exception("the engine has stopped")
            self.closing(0)  # nobody shall wait for what is never drawn

    def _next(self) -> list[tuple[Live, int]] | None:
        """The next batch, waiting for one; None when the engine is to stop."""
        with self._changed:
            while not self.closed:
                taken = [(self._live[job], place) for job, place in self._line.take()]
                if taken:
                    return taken
                self._changed.wait()
        return None

    def _draw(self, taken: Sequence[tuple[Live, int]]) -> None:
        lives = list(dict.fromkeys(live for live, _ in taken))
        begun = time.monotonic()
        try:
            self._begin(lives)
            opened_model = self._opened(lives[0].job.model)
            wanted = [each for each in taken if not each[0].unwanted]  # a model takes a while to load
            drawn = self._drawn(opened_model, wanted) if wanted else []
            self._keep([(live, place, each) for (live, place), each in zip(wanted, drawn, strict=True)])
        except Over:
            pass
        except Exception as error:
            self._failed(lives, error)
        self.counts.add("batches")
        self.counts.took("batch", time.monotonic() - begun)

    def _begin(self, lives: Sequence[Live]) -> None:
        fresh = [live for live in lives if not live.begun]
        self.store.begin([live.job.id for live in fresh], now=self.clock())
        for live in fresh:
            live.begun = True
            self.counts.took("wait", max(0.0, self.clock() - live.job.created))
            with self._changed:
                if not live.unwanted:  # else its end, the last that is told, would be told no more
                    live.channel.tell("state", {"state": "running"}, instead="state")

    def _opened(self, name: str) -> Opened:
        """The model in memory; what is wrong with its files is for whoever runs the server to read."""
        try:
            return self.shelf.open(name)
        except DarkroomError as error:
            log.error("%s cannot be loaded: %s", name, error)
            raise DarkroomError(f"the model {name} cannot be loaded; the server's log says why") from error

    def _drawn(self, opened_model: Opened, taken: Sequence[tuple[Live, int]]) -> list[Sampled]:
        wishes = {}
        for live in dict.fromkeys(live for live, _ in taken):
            request = self._settled(live.job)
            wishes[live] = [Member(request, wish) for wish in request.wishes()]
        members = [wishes[live][place] for live, place in taken]
        batch = Batch(
            [live for live, _ in taken],
            places=[place for _, place in taken],
            steps=steps_taken(opened_model.model, members[0].request),
            size=members[0].request.size or (0, 0),
            opened=opened_model,
            seconds=self.limits.seconds,
            stop_by=lambda: self._stop_by,
            overdue=self._overdue,
        )
        drawn = draw(opened_model.model, members, watch=batch.watch)
        self.counts.add("steps", batch.steps)
        return drawn

    def _keep(self, drawn: Sequence[tuple[Live, int, Sampled]]) -> None:
        wanted = [each for each in drawn if not each[0].unwanted]
        done = set(
            self.store.keep([(live.job.id, place, sampled) for live, place, sampled in wanted], now=self.clock())
        )
        self.counts.add("pictures", len(wanted))
        for live, place, sampled in wanted:
            live.finished += 1
            live.channel.tell("picture", {"place": place, "index": sampled.index})
        for live in dict.fromkeys(live for live, _, _ in wanted):
            if live.job.id in done:
                self._over(live, "done")
        self.store.forget_oldest(self.limits.kept)

    def _failed(self, lives: Sequence[Live], error: Exception) -> None:
        """Whoever shared the batch gets another, alone unless somebody left it; who was alone has failed."""
        if not isinstance(error, DarkroomError):
            log.error("drawing failed", exc_info=error)
        if len(lives) > 1:
            with self._changed:
                wanted = [each for each in lives if each.job.id in self._live]
                alone = len(wanted) == len(lives)  # whoever leaves takes its pictures along
                for live in reversed(wanted):
                    self._line.remove(live.job.id)
                    self._line.add(self._place(live, alone=alone), first=True)
            return
        self._end(lives[0].job.id, "failed", why=_reason(error))

    def _overdue(self, live: Live) -> None:
        sentence = f"it took longer than the {self.limits.seconds:g} seconds that this server allows"
        self._end(live.job.id, "failed", why=sentence)

    # both

    def _end(self, id: str, state: State, *, why: str | None = None) -> bool:
        """An end without all pictures; False when it had ended already."""
        with self._changed:
            live = self._live.get(id)
            if live is None or not self.store.end(id, state, now=self.clock(), why=why):
                return False
            self._line.remove(id)
            live.unwanted = True
            self._over(live, state, why=why)  # not later: whoever finds it in `_live` may queue it again
        self.store.forget_oldest(self.limits.kept)
        return True

    def _over(self, live: Live, state: State, *, why: str | None = None) -> None:
        with self._changed:
            self._live.pop(live.job.id, None)
        self.counts.add("jobs", label=f'state="{state}"')
        self.counts.took("job", max(0.0, self.clock() - live.job.created))
        told = {"state": state, "over": True} | ({} if why is None else {"why": why})
        live.channel.tell("state", told, instead="state")

    def _request(self, offer: Offer, asked: Asked, pictures: Mapping[str, bytes]) -> Request:
        """The request, settled; what would be too much work is refused before it is looked at closely."""
        decoded = {name: opened(data, what=name, limits=self.limits) for name, data in pictures.items()}
        request = offered(offer.outline, asked.request(decoded))
        check(request, self.limits)
        request = request.model_copy(update={"size": size_of(offer.outline, request)})
        check(request, self.limits)
        settled = settle(offer.outline, request)
        check(settled, self.limits)
        return settled

    def _settled(self, job: Job) -> Request:
        asked = parse(Asked, read_json(job.asked.encode()), where="job")
        return self._request(self.shelf.offer(job.model), asked, self.store.inputs(job.id))

    def _enqueue(self, job: Job, request: Request, *, done: int = 0) -> None:
        offer = self.shelf.offer(job.model)
        assert request.size is not None
        side, area = offer.outline.spec.image_size, request.size[0] * request.size[1]
        most = max(1, min(self.batch, self.batch * side**2 // area))
        live = Live(job, kind=f"{job.model} {alike(request)}", most=most, finished=done)
        with self._changed:
            self._live[job.id] = live
            self._line.add(self._place(live, alone=job.attempts > 1))  # that others need not suffer with it again
            live.channel.tell("state", {"state": "queued"}, instead="state")
            self._changed.notify()

    def _place(self, live: Live, *, alone: bool = False) -> Waiting:
        """Its place in the line, with what is still to draw."""
        there = self.store.notes(live.job.id)
        waiting = Waiting(live.job.id, live.job.client, f"{live.kind} {live.job.id}" if alone else live.kind, live.most)
        waiting.places.extend(place for place in range(live.job.total) if place not in there)
        return waiting


def _reason(error: Exception) -> str:
    """Why a job failed, in a sentence that names no file of the server."""
    match error:
        case UnwritableError(reason=said) | OSError(strerror=said):
            return f"its pictures could not be kept ({said or type(error).__name__})"
        case DarkroomError():
            return str(error)
        case _:
            return f"it could not be drawn ({type(error).__name__})"

"""Routes of jobs: every task, their events, their pictures."""

import json
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from darkroom.serve.asked import Ask
from darkroom.serve.door import FORM, JSON, Door, JobId, TheDoor, body_of
from darkroom.serve.limits import Refused
from darkroom.serve.store import Job, State
from darkroom.serve.views import JobsView, JobView, job_view, schema_of
from darkroom.tasks.request import PICTURES

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
LAST: Final = 10**9 - 1  # number of the event that ends a stream
PATIENCE: Final = 15.0  # seconds between comments that keep a silent connection open
AS_FORM: Final = {
    "type": "object",
    "properties": {
        "request": {"type": "string", "contentMediaType": JSON, "description": "as in JSON"},
        **{name: {"type": "string", "format": "binary"} for name in PICTURES},
    },
    "required": ["request"],
    "additionalProperties": False,
}
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": schema_of(Ask)},
            FORM: {"schema": AS_FORM},
        },
    }
}
PNG: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"image/png": {}}}}
NOTHING_MORE: Final[dict[int | str, dict[str, Any]]] = {204: {"description": "All was told: do not ask again."}}
Place = Annotated[int, Path(ge=0, le=2**31, description="The place of a picture in its job, from 0.")]


@router.post("", status_code=202, openapi_extra=BODY)
async def begin(request: Request, door: TheDoor) -> JobView:
    """A new job, which waits for its turn. The fields given choose the task, the model says which it takes."""
    values, files = await body_of(request)
    job = await door.submit(request, values, files=files)
    return await door.aside(partial(job_view, door.engine, job))


@router.get("")
async def gallery(
    request: Request,
    door: TheDoor,
    *,
    state: State | None = None,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    count: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobsView:
    """Your jobs, the newest first."""

    def look() -> JobsView:
        jobs = door.engine.store.jobs(owner=request.state.owner, before=before, count=count, state=state)
        views = tuple(job_view(door.engine, job) for job in jobs)
        return JobsView(jobs=views, next=jobs[-1].number if len(jobs) == count else None)

    return await door.aside(look)


@router.get("/{id}")
async def show(request: Request, id: JobId, *, door: TheDoor) -> JobView:
    """A job as it stands."""
    job = await door.own(request, id)
    return await door.aside(partial(job_view, door.engine, job))


@router.post("/{id}/cancel")
async def cancel(request: Request, id: JobId, *, door: TheDoor) -> JobView:
    """Draw a job no further; one that has ended stays as it is."""
    job = await door.own(request, id)
    await door.aside(partial(door.engine.cancel, job.id))
    return await door.aside(partial(job_view, door.engine, await door.own(request, id)))


@router.delete("/{id}", status_code=204)
async def forget(request: Request, id: JobId, *, door: TheDoor) -> None:
    """Remove a job that has ended, and its pictures."""
    job = await door.own(request, id)
    if not await door.aside(partial(door.engine.store.forget, job.id)):
        raise Refused("this job has not ended; cancel it first", status=409, code="not_ended")


@router.get("/{id}/pictures/{place}", response_class=Response, responses=PNG)
async def picture(request: Request, id: JobId, *, place: Place, door: TheDoor) -> Response:
    """A finished picture, a PNG that says how it was made."""
    job = await door.own(request, id)
    data = await door.aside(partial(door.engine.store.picture, job.id, place))
    if data is None:
        raise Refused("this job has no such picture, or not yet", status=404, code="no_picture")
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(data, media_type="image/png", headers=headers)


@router.get("/{id}/events", response_class=StreamingResponse, responses=NOTHING_MORE)
async def events(
    request: Request,
    id: JobId,
    *,
    door: TheDoor,
    previews: Annotated[bool, Query(description="Pictures of what is being drawn, as data URLs.")] = True,
) -> Response:
    """Server-sent events: `state`, `step`, `preview`, `picture`, and `done` with the job as the last.

    With the header `Last-Event-ID` they go on after that one; after `done` there is nothing, which ends a browser's
    `EventSource`.
    """
    job = await door.own(request, id)
    after = request.headers.get("last-event-id", "")
    if job.over and after.endswith(f"-{LAST}"):
        return Response(status_code=204)
    lines = _lines(door, job, after=after, previews=previews)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


async def _lines(door: Door, job: Job, *, after: str, previews: bool) -> AsyncGenerator[str]:
    """Ids name the attempt as well: another begins to count anew."""
    attempt, _, number = after.partition("-")
    epoch = door.engine.epoch
    seen = int(number) if attempt == epoch and number.isdecimal() and len(number) < 10 else 0
    yield "retry: 1000\n\n"
    async for event in door.engine.follow(job.id, after=seen, previews=previews, patience=PATIENCE):
        if event is None:
            yield ": still here\n\n"
        elif event.kind != "closing":
            yield _line(event.kind, event.data, id=f"{epoch}-{event.number}")
    found = await door.aside(partial(door.engine.store.job, job.id))
    if found is not None and found.over:
        view = await door.aside(partial(job_view, door.engine, found))
        yield _line("done", view.plain(), id=f"{epoch}-{LAST}")


def _line(kind: str, data: Any, *, id: str) -> str:
    return f"id: {id}\nevent: {kind}\ndata: {json.dumps(dict(data), ensure_ascii=False)}\n\n"

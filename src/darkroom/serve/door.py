"""What every route needs: the engine, who asks, and what came with the request."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Final, TypeVar, final

import anyio
from anyio.to_thread import run_sync
from fastapi import Depends, Path, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from darkroom.serve.asked import parted, read_json
from darkroom.serve.engine import Engine
from darkroom.serve.limits import Refused
from darkroom.serve.store import Job
from darkroom.tasks.request import PICTURES

T = TypeVar("T")
JSON: Final = "application/json"
FORM: Final = "multipart/form-data"
FIELDS: Final = 40  # of a form
AT_ONCE: Final = 2  # requests looked at closely, for that takes a processor, and what is read of them memory


@final
class Door:
    """The engine, and threads beside the event loop for what takes a while."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._few = anyio.CapacityLimiter(AT_ONCE)

    async def aside(self, work: Callable[[], T]) -> T:
        """The answer of `work`, done in a thread; it does not wait for those who look `closely`."""
        return await run_sync(work)

    async def closely(self, work: Callable[[], T]) -> T:
        """The answer of `work` that reads what was sent, done in one of few threads."""
        return await run_sync(work, limiter=self._few)

    async def submit(self, request: Request, values: dict[str, Any], *, files: dict[str, bytes]) -> Job:
        """A new job of whoever asks."""

        def work() -> Job:
            asked, pictures = parted(values, files=files)
            return self.engine.submit(asked, pictures, client=request.state.client, owner=request.state.owner)

        return await self.closely(work)

    async def own(self, request: Request, id: str) -> Job:
        """The job of this id; `Refused` with 404 where whoever asks has none."""
        job = await self.aside(partial(self.engine.store.job, id))
        if job is None or job.owner != request.state.owner:
            raise Refused("there is no such job", status=404, code="no_job")
        return job

    async def ended(self, request: Request, job: Job) -> Job:
        """The job when it has ended; cancelled when whoever waits for it goes away. `Refused` when the server stops."""
        waiting = asyncio.ensure_future(self._end(job))
        leaving = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                await self.aside(partial(self.engine.cancel, job.id))
                raise Refused("whoever asked has left", status=499, code="gone")
            return await waiting
        finally:
            for each in (waiting, leaving):
                each.cancel()

    async def _end(self, job: Job) -> Job:
        async for _ in self.engine.follow(job.id):
            pass
        found = await self.aside(partial(self.engine.store.job, job.id))
        if found is None:
            raise Refused("the job was removed while it was waited for", status=410, code="removed")
        if not found.over:
            sentence = f"this server is stopping; ask for /v1/jobs/{job.id} when it is there again"
            raise Refused(sentence, status=503, code="stopping")
        return found


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def door_of(request: Request) -> Door:
    """The door of the application that a request came to."""
    return request.app.state.door


TheDoor = Annotated[Door, Depends(door_of)]
JobId = Annotated[str, Path(pattern="^[0-9a-f]{24}$", description="The id of a job.")]


async def body_of(request: Request) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The values and files of a request in JSON, or in a form whose `request` is JSON; `Refused` for anything else."""
    closely = door_of(request).closely
    if media_type(request, (JSON, FORM)) == JSON:
        return await closely(partial(read_json, await request.body())), {}
    texts, files = await form_of(request)
    unknown = sorted(({*texts} - {"request"}) | ({*files} - {*PICTURES}))
    if unknown:
        raise Refused(f"the form has an unknown part {unknown[0]!r}; `request` and pictures by field fit")
    if "request" not in texts:
        raise Refused("the form needs a part `request` that holds JSON", status=400, code="no_form")
    return await closely(partial(read_json, texts["request"].encode())), files


async def form_of(request: Request) -> tuple[dict[str, str], dict[str, bytes]]:
    """The texts and files of a form, read in memory; `Refused` for what cannot be read, and for two parts of a name."""
    limits = door_of(request).engine.limits
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=len(PICTURES), max_fields=FIELDS, max_part_size=limits.body
    )
    parser.spool_max_size = limits.body  # nothing is laid down on disk
    texts: dict[str, str] = {}
    files: dict[str, bytes] = {}
    try:
        form = await parser.parse()
        for name, value in form.multi_items():
            if name in texts or name in files:
                raise Refused(f"the form has two parts {name!r}; give one of them")
            if isinstance(value, UploadFile):
                files[_written(name)] = await value.read()
            else:
                texts[_written(name)] = _written(value)
        await form.close()
    except (MultiPartException, KeyError, ValueError, LookupError) as error:
        said = getattr(error, "message", None) or f"{type(error).__name__}"
        raise Refused(f"the form cannot be read ({said})", status=400, code="no_form") from None
    return texts, files


def _written(text: str) -> str:
    """A text that UTF-8 can write; `ValueError` for another, which a form in a charset of its choice may hold."""
    text.encode()
    return text


def media_type(request: Request, taken: Sequence[str]) -> str:
    """What the body says it is, without parameters; `Refused` with 415 for what is not taken."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in taken:
        sentence = f"{' or '.join(taken)} is taken here, {kind or 'nothing'} came"
        raise Refused(sentence, status=415, code="media_type")
    return kind

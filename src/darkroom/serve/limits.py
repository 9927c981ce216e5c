"""How much one request may ask for, and the words in which more is refused."""

from typing import final

from pydantic import Field, FiniteFloat

from darkroom.core.errors import InputError
from darkroom.core.spec import Spec
from darkroom.tasks.request import Request
from darkroom.tasks.settle import windows


@final
class Refused(InputError):
    """A request that is answered with a status of HTTP: 4xx, 503 while the server stops, 507 where its disk is full.

    code: for programs · after: seconds until it is worth asking again, where they are known.
    """

    def __init__(
        self, sentence: str, *, status: int = 422, code: str = "invalid_request", after: int | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.after = after


@final
class Limits(Spec):
    """What one request, and all of them together, may take.

    body: bytes of a request, bodies: of all that are being answered · picture: pixels of a picture that is sent ·
    pixels: of a drawn one, windows: that it is drawn in · steps, count: of a job · prompt: characters · objects: of a
    layout · queue: jobs that wait, share: those of one client · seconds: of drawing for one job · sending: seconds of
    sending a request · connections: at once · kept: finished jobs, the oldest leave.
    """

    body: int = Field(default=2**24, gt=0)
    bodies: int = Field(default=2**28, gt=0)
    picture: int = Field(default=2**24, gt=0)
    pixels: int = Field(default=2**20, gt=0)
    windows: int = Field(default=1024, gt=0)
    steps: int = Field(default=250, gt=0)
    count: int = Field(default=16, gt=0)
    prompt: int = Field(default=2000, gt=0)
    objects: int = Field(default=200, gt=0)
    queue: int = Field(default=1000, gt=0)
    share: int = Field(default=500, gt=0)
    seconds: FiniteFloat = Field(default=600.0, gt=0)
    sending: FiniteFloat = Field(default=60.0, gt=0)
    connections: int = Field(default=1000, gt=1)
    kept: int = Field(default=10_000, gt=0)


def check(request: Request, limits: Limits) -> None:
    """`Refused` when a request asks for more than it may; what is not settled yet is not looked at."""
    height, width = request.size or (0, 0)
    texts = (*request.prompts, *request.negatives, *request.to_prompts)
    asked = {
        "count": (request.total, limits.count, "pictures"),
        "steps": (request.steps or 0, limits.steps, "steps"),
        "pixels": (height * width, limits.pixels, f"pixels ({height}x{width})"),
        "windows": (windows((height, width), request.window), limits.windows, f"windows of {request.window} pixels"),
        "prompt": (max(map(len, texts), default=0), limits.prompt, "characters in a prompt"),
        "objects": (max(map(len, request.layouts), default=0), limits.objects, "objects in a layout"),
    }
    for name, (came, most, words) in asked.items():
        if came > most:
            raise Refused(f"{came} {words} were asked for; this server allows {most}", code=f"limit_{name}")


def check_waiting(waiting: int, own: int, *, limits: Limits) -> None:
    """`Refused` with 429 when too many jobs wait already, in all or of one client."""
    if waiting >= limits.queue:
        sentence = f"{waiting} jobs wait already, as many as this server allows; try again later"
        raise Refused(sentence, status=429, code="queue_full")
    if own >= limits.share:
        sentence = f"{own} of your jobs wait already, as many as this server allows; wait for some of them"
        raise Refused(sentence, status=429, code="share_full")

"""A batch while it is drawn: who still wants it, how far it is, and what it will look like."""

import base64
import io
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.core.shapes import Number
from darkroom.diffusion.walk import Step
from darkroom.serve.news import Channel
from darkroom.serve.shelf import Opened
from darkroom.serve.store import Job

EVERY: Final = 0.25  # seconds between two previews
QUALITY: Final = 85  # of their JPEG
WIDEST: Final = 512  # pixels of a preview's side
log = logging.getLogger("darkroom.serve")


@final
class Over(DarkroomError):
    """Nobody wants this batch any more, or the server stops."""


@final
@dataclass(eq=False)
class Live:
    """A job that has not ended. kind: equal kinds may share batches of at most `most` · finished: pictures · share: of
    its steps that are done · spent: seconds of drawing."""

    job: Job
    kind: str
    most: int
    finished: int = 0
    begun: bool = False
    unwanted: bool = False
    spent: float = 0.0
    share: float = 0.0
    channel: Channel = field(default_factory=Channel)


@final
@dataclass(eq=False)
class Batch:
    """What `watch` needs to know. lives, places: of each picture in it · steps: of the walk · seconds: that a job may
    take · stop_by: when the server stops (`time.monotonic`), if it does · overdue: told of a job that takes longer."""

    lives: Sequence[Live]
    places: Sequence[int]
    steps: int
    size: tuple[int, int]
    opened: Opened
    seconds: Number
    stop_by: Callable[[], float | None]
    overdue: Callable[[Live], None]

    def __post_init__(self) -> None:
        self._last_step = time.monotonic()
        self._last_preview = 0.0

    def watch(self, step: Step) -> None:
        """After each step: `Over` when nobody wants the rest, else progress, and previews for those who look."""
        now = time.monotonic()
        took, self._last_step = now - self._last_step, now
        jobs = dict.fromkeys(self.lives)
        for live in jobs:
            live.spent += took
            if live.spent > self.seconds and not live.unwanted:
                self.overdue(live)
        stop_by = self.stop_by()
        if all(live.unwanted for live in jobs) or (stop_by is not None and now > stop_by):
            raise Over("not wanted any more")
        for live in jobs:
            self._tell(live, step)
        if now - self._last_preview >= EVERY:
            self._preview(step)

    def _tell(self, live: Live, step: Step) -> None:
        total = live.job.total * self.steps
        done = live.finished * self.steps + self.lives.count(live) * (step.index + 1)
        live.share = done / total
        live.channel.tell("step", {"done": done, "total": total}, instead="step")

    def _preview(self, step: Step) -> None:
        rows = [row for row, live in enumerate(self.lives) if not live.unwanted and live.channel.watched]
        if not rows:
            return
        self._last_preview = time.monotonic()
        try:
            pictures = self.opened.sketcher.pictures(step.x0[rows], self.size)
        except Exception as error:  # of memory, of odd weights: the pictures themselves may be drawn all the same
            log.warning("no previews of this batch: %s", error, exc_info=error)
            self._last_preview = math.inf
            return
        for row, picture in zip(rows, pictures, strict=True):
            place = self.places[row]
            told = {"place": place, "step": step.index + 1, "of": self.steps, "picture": _data_url(picture)}
            self.lives[row].channel.tell("preview", told, instead=f"preview {place}")


def _data_url(picture: Image.Image) -> str:
    """A small JPEG as browsers show it."""
    small = picture.convert("RGB")
    small.thumbnail((WIDEST, WIDEST))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()

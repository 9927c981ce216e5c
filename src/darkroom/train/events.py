"""What a run yields to whoever watches."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from darkroom.train.loop import Progress


@final
@dataclass(frozen=True)
class Sentence:
    """A sentence for the reader."""

    text: str


@final
@dataclass(frozen=True)
class Advance:
    """A step of a stage was made."""

    stage: str
    total: int
    progress: Progress


@final
@dataclass(frozen=True)
class Wrote:
    """A file is there for the reader."""

    what: str
    path: Path


Event = Sentence | Advance | Wrote

"""What a study is made of: cells, each a training or a measurement, and a reading of what they found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, final

from pydantic import Field

from darkroom.core.spec import Spec
from darkroom.recipes.schema import Recipe
from darkroom.studies.reading import Reading

Found: TypeAlias = Mapping[str, Any]  # by a finished cell, as JSON values


@final
class Sampling(Spec):
    """How pictures are drawn; None for the model's own.

    interval: of guidance, in noise level, None without a bound · match: 0 leaves what is painted or enlarged as it was
    drawn, as the paper does.
    """

    written_where_used: ClassVar = frozenset({"match"})

    solver: str | None = None
    steps: int | None = Field(default=None, gt=0)
    eta: float | None = None
    guidance: float | None = None
    interval: tuple[float, float | None] | None = None
    match: int | None = None
    seed: int = 0

    def asked(self) -> dict[str, Any]:
        """The fields of a request."""
        values = self.plain()
        return {"guidance_interval" if name == "interval" else name: value for name, value in values.items()}


@final
class Against(Spec):
    """The real pictures: of `data`, at most `most` of the split that the model's task asks for (see `quality`)."""

    data: str
    most: int = Field(gt=1)


@final
class Training(Spec):
    """A run as of `darkroom train`. on: the training of the first stage that it takes · marks: every look is kept."""

    kind: Literal["training"] = "training"
    name: str
    recipe: Recipe
    on: str | None = None
    marks: bool = False


@final
class Quality(Spec):
    """A card of `count` pictures that a model draws, beside real ones.

    model: a training's name, or what `darkroom.load` takes · holes: least and most share of a picture that is painted,
    for models that inpaint · course: every model that its training kept on the way is measured, not the last alone.
    """

    kind: Literal["quality"] = "quality"
    name: str
    model: str
    against: Against
    count: int = Field(gt=1)
    sampling: Sampling = Sampling()
    holes: tuple[float, float] | None = None
    course: bool = False


@final
class Pace(Spec):
    """Pictures a second. model: as of `Quality`; or recipe: one that nobody trained, whose training is timed too.

    data: rows that steer what is drawn, None for those of the training · size: side in pixels of what is drawn, None
    for the model's own · batch: drawn together.
    """

    kind: Literal["pace"] = "pace"
    name: str
    model: str | None = None
    recipe: Recipe | None = None
    sampling: Sampling = Sampling()
    data: str | None = None
    size: int | None = None
    batch: int = Field(gt=0)


@final
class HeldOut(Spec):
    """As many real pictures that nothing was trained on, as if a model had drawn them: what a perfect one comes to.

    size, channels, seed: of the data that models were trained on.
    """

    kind: Literal["held-out"] = "held-out"
    name: str
    against: Against
    count: int = Field(gt=1)
    size: int = Field(gt=0)
    channels: Literal[1, 3, 4] = 3
    seed: int = 0


Cell = Annotated[Training | Quality | Pace | HeldOut, Field(discriminator="kind")]


@final
class Made(Spec):
    """What stands in the file of a finished cell."""

    cell: Cell
    found: dict[str, Any]


@final
@dataclass(frozen=True, eq=False)
class Study:
    """A question, the cells that answer it in the order in which they are made, and how they are read.

    read: what is finished by cell's name, perhaps not all yet, to tables and curves · features: networks that sets are
    seen through · asked: the words by which it was asked for, as JSON values.
    """

    name: str
    question: str
    cells: Sequence[Cell]
    read: Callable[[Mapping[str, Found]], Reading]
    features: Sequence[str] = ("judge",)
    asked: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cells]
        assert names
        assert len(set(names)) == len(names), names  # folders are named by them

    def plain(self) -> dict[str, Any]:
        """All that decides what is made, as JSON values."""
        return {
            "study": self.name,
            "features": [*self.features],
            "asked": dict(self.asked),
            "cells": [cell.plain() for cell in self.cells],
        }

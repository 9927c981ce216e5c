"""What may be asked of a study: words as `minutes=60`, each taken by the studies that know what to do with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, final

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, PositiveFloat, PositiveInt, model_validator

from darkroom.core.errors import SpecError, did_you_mean
from darkroom.core.spec import Spec, override, parse, parse_yaml
from darkroom.data.remote import is_remote
from darkroom.data.sources import open_data
from darkroom.data.summary import summary
from darkroom.recipes.folder import recipe_for_folder
from darkroom.recipes.length import trained, with_steps
from darkroom.recipes.plan import FIRST_STAGE_SHARE, untried
from darkroom.recipes.schema import Recipe
from darkroom.studies.recipes import Bottleneck, of_size

TRAINS: Final = ("minutes", "steps", "pictures", "size", "batch", "parameters", "count", "real", "seed")
DRAWS: Final = ("data", "count", "real", "seed")
ENCODED: Final = 1000  # training pictures for each minute of a denoiser: a tenth of it on a small machine
FEWEST: Final = 100  # of them
SELDOM: Final = 10**9  # steps


def _several(value: Any) -> Any:
    """`1,4,8` of a command line, or one value alone."""
    if isinstance(value, str):
        return [parse_yaml(each, where=value) for each in value.split(",")]
    return value if isinstance(value, (list, tuple)) else [value]


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Each of them once, for cells are named by them."""
    return tuple(dict.fromkeys(values))


def _rising(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Each of them once, the smallest first, as curves are drawn."""
    return tuple(sorted(set(values)))


Whole = Annotated[tuple[PositiveInt, ...], BeforeValidator(_several), Field(min_length=1), AfterValidator(_rising)]
Numbers = Annotated[tuple[FiniteFloat, ...], BeforeValidator(_several), Field(min_length=1), AfterValidator(_rising)]
Words = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1), AfterValidator(_once)]
Bottlenecks = Annotated[tuple[Bottleneck, ...], BeforeValidator(_several), Field(min_length=1), AfterValidator(_once)]


@final
class Wishes(Spec):
    """None for the study's own choice.

    minutes: for all trainings together · steps: of every training instead · pictures: to train on, at most · size: side
    in pixels · batch: of every training · parameters: of the network, about · count: pictures drawn for each figure ·
    real: pictures they are compared with, at most · data: of a model that exists, None for those that it learnt from,
    where they are known · factors, bottlenecks: of `compression` · samplings: numbers of steps · scales: of guidance ·
    solvers: by name.
    """

    minutes: PositiveFloat | None = Field(default=None, allow_inf_nan=False)
    steps: PositiveInt | None = None
    pictures: PositiveInt | None = None
    size: PositiveInt | None = None
    batch: PositiveInt | None = None
    parameters: PositiveInt | None = None
    count: int = Field(default=256, gt=1)
    real: int = Field(default=2000, gt=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    data: str | None = None
    factors: Whole | None = None
    bottlenecks: Bottlenecks | None = None
    samplings: Whole | None = None
    scales: Numbers | None = None
    solvers: Words | None = None

    @model_validator(mode="after")
    def _one_length(self) -> "Wishes":
        if self.minutes is not None and self.steps is not None:
            raise ValueError("minutes and steps both say how long trainings are; give one of them")
        return self


def wishes(changes: Sequence[str], *, study: str, takes: Sequence[str]) -> Wishes:
    """Of `key=value` words; `SpecError` for what this study does not take, or a value that does not fit."""
    values = override({}, changes)
    for key in values:
        if key not in takes:
            raise SpecError(f"study {study} does not take {key!r}{did_you_mean(key, takes)}")
    return parse(Wishes, values, where=f"study {study}")


def base(data: str, asked: Wishes, *, task: str, denoisers: int = 1) -> Recipe:
    """The recipe that a folder gets for this task, without guesses, which the paper's models do not make.

    Its first stage is fresh, or the one that a built-in one fits would be ahead of all others.

    At looks it draws one picture instead of sixteen: nobody looks at them, they are paid from a training's minutes, and
    on pixels they cost many times what they cost on latents. denoisers: that share the minutes; all pictures are
    encoded in those of each, so with few minutes there are no more than `ENCODED` for each, unless more are asked for.
    """
    splits = open_data(data, limit=asked.pictures)
    known, most = len(splits.train), asked.pictures
    minutes = shared(asked, first_stages=1, denoisers=denoisers)[1]
    if most is None and minutes is not None and ENCODED * minutes < known:
        most = max(FEWEST, int(ENCODED * minutes))
        splits = open_data(data, limit=most)
    place = data if is_remote(data) else str(Path(data))
    told = {**summary(splits.train), "count": known}
    recipe = recipe_for_folder(told, place=place, size=asked.size, task=task, guess=False, fresh=True)
    values = recipe.plain()
    values["data"]["count"] = most
    values["seed"] = asked.seed
    values["denoiser"]["sample"]["count"] = 1
    if len(splits.train) < known:
        values["summary"] = f"{len(splits.train)} of {recipe.summary}"
    if asked.minutes is not None:  # at every fourth of its steps, whatever their number
        values["denoiser"]["train"]["sample_every"] = SELDOM
    for stage in ("first_stage", "denoiser") if asked.batch is not None else ():
        values[stage]["train"]["batch"] = asked.batch
    made = parse(Recipe, values, where=f"the recipe for {data}")
    return made if asked.parameters is None else of_size(made, asked.parameters)


def lengthened(recipe: Recipe, asked: Wishes, *, minutes: float | None) -> Recipe:
    """As long as is asked for: of so many minutes, or steps, or what the recipe has of its own.

    `SpecError` for minutes of what cannot be tried here, before hours of other trainings end with it.
    """
    if minutes is not None:
        why = untried(recipe)
        if why is not None:
            raise SpecError(f"minutes= does not fit: {recipe.name} cannot be tried here ({why}); give steps= instead")
        return recipe.model_copy(update={"minutes": minutes})
    if asked.steps is not None:
        for stage in trained(recipe):
            recipe = with_steps(recipe, stage=stage, steps=asked.steps)
    return recipe


def shared(asked: Wishes, *, first_stages: int, denoisers: int) -> tuple[float | None, float | None]:
    """Minutes for each first stage and for each denoiser, equal among themselves; None where steps decide."""
    if asked.minutes is None:
        return None, None
    share = FIRST_STAGE_SHARE if first_stages else 0.0
    return asked.minutes * share / max(1, first_stages), asked.minutes * (1 - share) / denoisers


def one_sampling(asked: Wishes, *, study: str) -> int | None:
    """The number of steps of a study that has one; `SpecError` for several."""
    if asked.samplings is None:
        return None
    if len(asked.samplings) > 1:
        raise SpecError(f"study {study}: give one number of steps, samplings={asked.samplings[0]}")
    return asked.samplings[0]

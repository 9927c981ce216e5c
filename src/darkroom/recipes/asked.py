"""From the words of a command to a recipe: a folder or a recipe's name, changes to it, a time."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast, final

from darkroom.checkpoint.store import StoredModel
from darkroom.core.errors import DataError, SpecError
from darkroom.core.parallel import on_first
from darkroom.core.spec import Spec, override, parse
from darkroom.data.remote import is_remote
from darkroom.data.sources import SCENES, open_data
from darkroom.data.summary import summary
from darkroom.recipes.clock import RECIPE
from darkroom.recipes.distill import check_taught, distilled
from darkroom.recipes.folder import SIZE, fine_tuning, recipe_for_folder, views_for
from darkroom.recipes.read import recipe
from darkroom.recipes.schema import DataSpec, Recipe
from darkroom.recipes.tune import from_model

MEANT: Final = 4  # keys that are named, of those that somebody may mean
ELSEWHERE: Final = {"epochs": "steps", "iterations": "steps", "lr": "learning_rate", "resolution": "size"}


@final
class Asked(Spec):
    """The words of a command.

    source: a folder, a recipe's name or its YAML · changes: `key=value`, among them `minutes=60`, `task=text` and, for
    plans, `gpus=64` with `gpu=h200` · distill: the model that is begun with teaches one of few steps.
    """

    source: str
    changes: tuple[str, ...] = ()
    distill: bool = False

    @property
    def overrides(self) -> list[str]:
        """The changes to the recipe."""
        return [change for change in self.changes if not change.startswith(("minutes=", "task=", "gpus=", "gpu="))]

    @property
    def minutes(self) -> float | None:
        """The minutes that training may take; `SpecError` for what is no time, and when steps are given, too."""
        given = [change for change in self.changes if change.startswith("minutes=")]
        steps = next((change for change in self.changes if ".train.steps=" in change), None)
        if given and steps:
            raise SpecError(f"{given[-1]!r} and {steps!r} were both given; time decides the steps, so give one of them")
        return _minutes(given[-1]) if given else None

    @property
    def machine(self) -> tuple[int, str] | None:
        """How many GPUs of which kind a plan is for (None: for what is here); `SpecError` for one without the other."""
        given = {
            key: value for key, _, value in (each.partition("=") for each in self.changes) if key in ("gpus", "gpu")
        }
        if not given:
            return None
        if len(given) < 2 or not given["gpus"].isdecimal():
            raise SpecError("gpus=64 gpu=h200 go together: how many GPUs, and of which kind")
        return int(given["gpus"]), given["gpu"]

    @property
    def task(self) -> str | None:
        """What a folder's model shall be steered by, where it was said; `SpecError` for a recipe, which says it."""
        given = [change.removeprefix("task=") for change in self.changes if change.startswith("task=")]
        if given and not self.of_folder:
            raise SpecError(
                f"task={given[-1]} is for a folder of pictures; {self.source} is a recipe, which says its task"
            )
        return given[-1] if given else None

    @property
    def size(self) -> int | None:
        """The side of the pictures, where one was asked for."""
        given = [change for change in self.changes if change.startswith("data.size=")]
        return self._data.size if given else None

    @property
    def names_pictures(self) -> bool:
        """Was it said which pictures?"""
        return self.of_folder or any(change.startswith("data.source=") for change in self.changes)

    @property
    def of_folder(self) -> bool:
        """Is the source a data set and not a recipe?"""
        place = Path(self.source)
        inside = self.source in SCENES or place.is_dir() or place.suffix in (".tar", ".json") or len(place.parts) > 1
        return inside and place.suffix not in (".yaml", ".yml")

    @property
    def _data(self) -> DataSpec:
        wanted = override({"data": {"size": SIZE}}, self.overrides)["data"]
        return parse(DataSpec, wanted, where=f"the data of {self.source}")


def recipe_asked(asked: Asked, *, start: StoredModel | None = None, name: str = "model") -> Recipe:
    """The recipe that is meant, with all changes; it fine-tunes or distills `start`, a model called `name`, if given.

    `SpecError` and `DataError` in one sentence for what is not there or does not fit.
    """
    task = asked.task  # refuses what a recipe says itself
    if asked.distill and task is not None:
        raise SpecError(
            f"task={task} teaches a model something else; a distilled one does what {name} does, so leave it away"
        )
    plain = _of_folder(asked, start=start, name=name) if asked.of_folder else _named(asked, start=start, name=name)
    _check_whole_keys(asked.overrides, plain)
    made = parse(Recipe, override(plain.plain(), asked.overrides), where=f"the recipe for {asked.source}")
    check_taught(made, start)
    return made


def _check_whole_keys(changes: Sequence[str], recipe: Recipe) -> None:
    """`SpecError` for the end of a key in place of the key, such as `size=32`, and for what is called so elsewhere.

    It names the keys that may be meant.
    """
    known = list(_keys(recipe.plain()))
    for change in changes:
        word, written, _ = change.partition("=")
        if not written or "." in word or word in Recipe.model_fields:
            continue
        ends = {key.rpartition(".")[2] for key in known}
        here = f" (here: {ELSEWHERE[word]})" if word in ELSEWHERE else ""
        near = difflib.get_close_matches(ELSEWHERE.get(word, word), sorted(ends), n=1)
        meant = [key for key in known if near and key.endswith(f".{near[0]}")]
        if not meant:
            raise SpecError(
                f"unknown key {word!r}; minutes=60 fits, and keys of the recipe that are written whole, e.g. "
                "data.size=64 (`darkroom recipes tiny-text` shows such keys)"
            )
        more = ", ..." if len(meant) > MEANT else ""
        raise SpecError(
            f"unknown key {word!r}{here}; keys of a recipe are written whole: {', '.join(meant[:MEANT])}{more}"
        )


def _keys(plain: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Every key of nested values, with those above it and dots between."""
    for key, value in plain.items():
        yield f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _keys(cast("Mapping[str, Any]", value), f"{above}{key}.")


def _of_folder(asked: Asked, *, start: StoredModel | None, name: str) -> Recipe:
    if (run := Path(asked.source) / RECIPE).is_file():  # the pictures that it drew are none to learn from
        raise DataError(
            f"{asked.source}: a run and no pictures; `darkroom train {run} --out {asked.source}` goes on with it, "
            f"`darkroom train PICTURES --from {asked.source}` begins with its model"
        )
    data = asked._data
    found = on_first(lambda: summary(open_data(asked.source, limit=data.count, caption_field=data.caption_field).train))
    place = asked.source if is_remote(asked.source) else str(Path(asked.source))
    if start is None:
        return recipe_for_folder(
            found,
            place=place,
            channels=data.channels,
            size=asked.size,
            task=asked.task,
            degradation=data.degradation,
            fresh=any(change.startswith(("first_stage.model.", "first_stage.begin=")) for change in asked.overrides),
        )
    folder = recipe_for_folder(found, place=place, task=asked.task, degradation=data.degradation, guess=False)
    if asked.distill:
        made = distilled(folder, start, name=name, size=asked.size)
    else:
        tuned, teach = fine_tuning(int(found["count"])), asked.task is not None
        made = from_model(folder, start, name=name, size=asked.size, train=tuned, teach=teach)
    assert made.denoiser is not None
    views = views_for(made.denoiser.conditioners, count=int(found["count"]))  # the model says what steers it
    return made.model_copy(update={"data": made.data.model_copy(update=views)})


def _named(asked: Asked, *, start: StoredModel | None, name: str) -> Recipe:
    try:
        found = recipe(asked.source)  # what is asked to change is changed in `recipe_asked`, for folders alike
    except SpecError as error:
        unknown = str(error).startswith("unknown recipe")
        raise SpecError(f"{asked.source}: no such folder, and {error}" if unknown else str(error)) from None
    if start is None:
        return found
    return (distilled if asked.distill else from_model)(found, start, name=name, size=asked.size)


def _minutes(change: str) -> float:
    try:
        minutes = float(change.removeprefix("minutes="))
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise SpecError(f"{change!r}: minutes is a number above 0, e.g. minutes=60")
    return minutes

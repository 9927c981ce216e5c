"""Does a text model draw what it is told: scenes of the built-in world, sampled and read back without any model."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from darkroom import __version__
from darkroom.core.errors import InputError
from darkroom.data.sources import ShapesSource
from darkroom.evaluate.drawing import drawn_by_all
from darkroom.evaluate.protocol import about
from darkroom.evaluate.report import Obedience, ObedienceReport
from darkroom.metrics.agreement import obeys, read_scene, shows
from darkroom.scenes.vocabulary import CANVAS, NAMED, SceneObject, parse_caption
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request
from darkroom.tasks.settle import settle

SEED: Final = 20_261_123  # of the scenes whose captions are asked for; trainings draw from small seeds
SEARCHED: Final = 20  # scenes for each caption wanted
Progress = Callable[[int, int], None]


def evaluate_obedience(
    model: Model,
    *,
    count: int,
    seed: int = 0,
    solver: str | None = None,
    steps: int | None = None,
    eta: float | None = None,
    guidance: float | None = None,
    trained_on: AbstractSet[str] = frozenset(),
    batch: int = 16,
    on_picture: Progress | None = None,
) -> ObedienceReport:
    """`count` captions of one, two and three things each, drawn and read back.

    Captions are those of scenes that nobody trains on; of two and three things none is in `trained_on` (of one thing
    there are 192 in all). A picture obeys when it shows what its caption names and nothing else, sized and placed as
    it says. seed: of the noise · solver, steps, eta, guidance: None for the model's own · on_picture: called with
    (pictures done, of). `InputError` for a model that takes no captions.
    """
    if "caption" not in model.fields:
        raise InputError(
            f"{model.name} takes no prompt, {model.words.takes()}: whether it draws what it is told is no question"
        )
    asked = _captions(model, count=count, trained_on=trained_on)
    sample = {"seed": seed, "solver": solver, "steps": steps, "eta": eta, "guidance": guidance}
    requests = {
        things: settle(model, Request.of(prompt=captions, others=_given(sample))) for things, captions in asked.items()
    }
    found, total = list[Obedience](), sum(map(len, asked.values()))
    for things, request in requests.items():
        before = sum(each.prompts for each in found)
        seen = drawn_by_all(
            model, request, batch=batch, look=read_scene, on_picture=on_picture, before=before, of=total
        )
        found.append(_read(seen, asked[things], things=things))
    return ObedienceReport(tuple(found), _protocol(model, requests[1], count=count, left_out=len(trained_on)))


def captions_trained_on(card: Mapping[str, Any], *, on_scene: Progress | None = None) -> AbstractSet[str] | None:
    """All captions that a model of the built-in world has seen, by its card; None where that does not tell all.

    on_scene: called with (scenes drawn, of).
    """
    data = card.get("data")
    numbers = ("pictures", "size", "seed")
    if not isinstance(data, Mapping) or "start" in card or data.get("source") != "shapes":
        return None
    if not all(isinstance(data.get(name), int) for name in numbers):
        return None
    source, found = ShapesSource(data["seed"], side=data["size"], count=data["pictures"]), set[str]()
    for row in range(len(source)):
        found.add(source.caption(row) or "")
        if on_scene is not None:
            on_scene(row + 1, len(source))
    return found


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _captions(model: Model, *, count: int, trained_on: AbstractSet[str]) -> dict[int, list[str]]:
    """By number of things; smaller canvases hold fewer."""
    source = ShapesSource(SEED, side=min(CANVAS, model.spec.image_size), count=SEARCHED * count)
    found: dict[int, list[str]] = {}
    for row in range(len(source)):
        caption = source.caption(row) or ""
        things = len(parse_caption(caption).things)
        if things == 1 or caption not in trained_on:
            found.setdefault(things, []).append(caption)
        if len(found) == NAMED and all(len(each) >= count for each in found.values()):
            break
    return {things: found[things][:count] for things in sorted(found)}


def _read(seen: Sequence[Sequence[SceneObject]], captions: Sequence[str], *, things: int) -> Obedience:
    """Shares of the pictures; shuffled: each beside its neighbour's caption, where that says something else."""
    neighbours = [*captions[1:], *captions[:1]]
    others = [obeys(found, other) for found, own, other in zip(seen, captions, neighbours, strict=True) if own != other]
    return Obedience(
        things=things,
        prompts=len(captions),
        obeyed=_share([obeys(found, caption) for found, caption in zip(seen, captions, strict=True)]),
        shown=_share([shows(found, caption) for found, caption in zip(seen, captions, strict=True)]),
        shuffled=_share(others) if others else None,
    )


def _share(answers: Sequence[bool]) -> float:
    return sum(answers) / len(answers)


def _protocol(model: Model, request: Request, *, count: int, left_out: int) -> dict[str, Any]:
    return {
        "model": about(model),
        "captions": {"scenes_seed": SEED, "of_each_kind_at_most": count, "left_out": left_out},
        "sample": request.model_dump(include={"seed", "solver", "steps", "eta", "guidance"}),
        "darkroom": __version__,
    }

"""From nothing but a prompt, a label or a seed: noise, conditions, the walk, pictures."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

from PIL import Image

from darkroom.core import seeds
from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError
from darkroom.core.pictures import to_pictures
from darkroom.diffusion.solvers.choose import build_solver
from darkroom.diffusion.walk import seeded_noise, walk
from darkroom.process.times import choose_times
from darkroom.tasks.model import Model, Steps
from darkroom.tasks.request import Request


@final
@dataclass(frozen=True)
class Sampled:
    """A picture, its index in the seed, and what made it (plain values, kept in the PNG)."""

    picture: Image.Image
    index: int
    recipe: dict[str, Any]

    @property
    def metadata(self) -> dict[str, str]:
        """PNG text entries; no clock values, so equal requests give equal files."""
        return {"darkroom": json.dumps(self.recipe, ensure_ascii=False)}


def generate(model: Model, request: Request, *, batch: int = 16, on_step: Steps | None = None) -> Iterator[Sampled]:
    """Draw the pictures of a request, `batch` at a time; `InputError`, before any work, for what does not fit."""
    settled = settle(model, request)
    prompts, labels = expand(settled.prompts, settled), expand(settled.labels, settled)
    places = range(settled.total)
    groups = [places[start : start + batch] for start in range(0, len(places), batch)]
    return _run(model, settled, groups=groups, prompts=prompts, labels=labels, on_step=on_step)


def settle(model: Model, request: Request) -> Request:
    """The request with the model's defaults filled in; `InputError` when something in it does not fit the model."""
    _check_fields(model, request)
    solver = request.solver or model.default("solver", "ddim")
    steps = request.steps or model.default("steps", 50)
    build_solver(solver, eta=request.eta)
    choose_times(model.schedule, request.times, steps=steps)
    filled = {
        "size": _size(model, request),
        "guidance": _guidance(model, request),
        "solver": solver,
        "steps": steps,
    }
    return request.model_copy(update=filled)


def _size(model: Model, request: Request) -> tuple[int, int]:
    multiple = model.spec.size_multiple
    side = model.spec.image_size
    size = request.size or (side, side)
    if any(length <= 0 or length % multiple for length in size):
        fits = "x".join(str(max(1, round(length / multiple)) * multiple) for length in size)
        raise InputError(
            f"size {size[0]}x{size[1]} does not fit this model: sides must be multiples of {multiple}, "
            f"the nearest that fits is {fits}"
        )
    return size


def _guidance(model: Model, request: Request) -> float:
    guided = model.spec.guided
    guidance = request.guidance
    if guidance is None:
        guidance = model.default("guidance", 1.0) if guided else 1.0
    if guidance != 1 and not guided:
        raise InputError(
            f"guidance {guidance:g} does not fit: training dropped no condition of this model; use guidance 1"
        )
    if request.negative is not None and guidance == 1:
        raise InputError("a negative prompt works through guidance; give a guidance other than 1")
    return guidance


def expand(values: Sequence[Any], request: Request) -> list[Any] | None:
    """Each value `count` times in a row; None when there are none."""
    return [value for value in values for _ in range(request.count)] if values else None


def _check_fields(model: Model, request: Request) -> None:
    takes = set(model.fields)
    if request.prompts and request.labels and len(request.prompts) != len(request.labels):
        raise InputError(
            f"{len(request.prompts)} prompts and {len(request.labels)} labels came; give one label per prompt"
        )
    for field, given, word in (
        ("caption", request.prompts, "prompt"),
        ("label", request.labels, "label"),
    ):
        if given and field not in takes:
            raise InputError(f"{model.name} takes no {word}; {model.takes()}")
        if not given and field in takes:
            raise InputError(f"{model.name} needs a {word}; {model.takes()}")
    if request.negative is not None and "caption" not in takes:
        raise InputError(f"{model.name} takes no negative prompt; {model.takes()}")
    if request.negative is not None and takes != {"caption"}:
        raise InputError("a negative prompt works for models steered by a prompt alone")
    others = sorted(takes - {"caption", "label"})
    if others:
        raise InputError(f"{model.name} is steered by {', '.join(others)}, which this task does not give yet")
    if request.labels:
        model.label_ids(request.labels)


def _run(
    model: Model,
    request: Request,
    *,
    groups: Sequence[range],
    prompts: list[str] | None,
    labels: list[int | str] | None,
    on_step: Steps | None,
) -> Iterator[Sampled]:
    size, steps, solver, guidance = request.size, request.steps, request.solver, request.guidance
    assert size is not None
    assert steps is not None
    taken = len(choose_times(model.schedule, request.times, steps=steps).visited)
    assert solver is not None
    assert guidance is not None
    shape = model.diffusion.latent_shape(size)
    done = 0
    for group in groups:
        indices = [request.first + place for place in group]
        noise = seeds.normal(shape, seed=request.seed, indices=indices, purpose="noise")
        conditions = _conditions(model, group, prompts=prompts, labels=labels)
        latents = model.compute.place(noise)
        for step in walk(
            model,
            latents,
            conditions=conditions,
            null=_null(model, conditions, request=request),
            solver=solver,
            steps=steps,
            eta=request.eta,
            guidance=guidance,
            guidance_interval=request.guidance_interval,
            guidance_rescale=request.guidance_rescale,
            times=request.times,
            step_noise=seeded_noise(shape, seed=request.seed, indices=indices),
        ):
            latents = step.x
            done += 1
            if on_step is not None:
                on_step(done, taken * len(groups))
        pictures = to_pictures(model.decode(latents))
        for place, index, picture in zip(group, indices, pictures, strict=True):
            recipe = _recipe(model, request, prompts=prompts, labels=labels, place=place)
            yield Sampled(picture, index, {**recipe, "index": index})


def _conditions(model: Model, group: range, *, prompts: list[str] | None, labels: list[int | str] | None) -> Conditions:
    if not model.fields:
        return Conditions()
    return model.condition(
        caption=None if prompts is None else [prompts[place] for place in group],
        label=None if labels is None else [labels[place] for place in group],
    )


def _null(model: Model, conditions: Conditions, *, request: Request) -> Conditions | None:
    if request.guidance == 1:
        return None
    if request.negative is None:
        return model.null(conditions)
    count = 0 if conditions.tokens is None else len(conditions.tokens)
    return model.condition(caption=[request.negative] * count)


def _recipe(
    model: Model, request: Request, *, prompts: list[str] | None, labels: list[int | str] | None, place: int
) -> dict[str, Any]:
    kept = request.plain()
    for key in ("prompts", "labels", "count", "first"):
        kept.pop(key)
    return {
        "model": model.name,
        "spec_hash": model.card.get("spec_hash"),
        **({"decoder": model.card["decoder"]} if "decoder" in model.card else {}),
        "prompt": None if prompts is None else prompts[place],
        "label": None if labels is None else labels[place],
        **kept,
    }

"""A request meets a model: defaults are filled in, and what does not fit is refused before any work."""

import math

from darkroom.core.errors import InputError
from darkroom.diffusion.solvers.choose import build_solver
from darkroom.process.times import choose_times
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request


def settle(model: Model, request: Request) -> Request:
    """The request with the model's defaults filled in; `InputError` when something in it does not fit the model."""
    _check_fields(model, request)
    _check_counts(request)
    _check_ends(request)
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
    _check_helpers(request, guidance=guidance)
    return guidance


def _check_helpers(request: Request, *, guidance: float) -> None:
    """What works through guidance needs one."""
    helpers = {
        "a negative prompt": any(request.negatives),
        "guidance_interval": request.guidance_interval is not None,
        "guidance_rescale": request.guidance_rescale > 0,
    }
    for name, wanted in helpers.items():
        if wanted and guidance == 1:
            raise InputError(f"{name} works through guidance; give a guidance other than 1")
    low, high = request.guidance_interval or (0.0, None)
    if not 0 <= low < (math.inf if high is None else high):
        raise InputError(
            f"guidance_interval {low:g} to {'any' if high is None else format(high, 'g')} does not fit: two noise "
            "levels sigma / alpha are needed, the lower one first and not below 0"
        )


def _check_fields(model: Model, request: Request) -> None:
    takes = set(model.fields)
    for field, given, ends, word in (
        ("caption", request.prompts, request.to_prompts, "prompt"),
        ("label", request.labels, request.to_labels, "label"),
    ):
        if (given or ends) and field not in takes:
            raise InputError(f"{model.name} takes no {word}; {model.takes()}")
        if ends and not given:
            raise InputError(f"there is a {word} to go to and none to start from; give both")
        if not given and field in takes:
            raise InputError(f"{model.name} needs a {word}; {model.takes()}")
    if request.negatives and "caption" not in takes:
        raise InputError(f"{model.name} takes no negative prompt; {model.takes()}")
    if request.negatives and takes != {"caption"}:
        raise InputError("a negative prompt works for models steered by a prompt alone")
    others = sorted(takes - {"caption", "label"})
    if others:
        raise InputError(f"{model.name} is steered by {', '.join(others)}, which this task does not give yet")
    if request.labels:
        model.label_ids([*request.labels, *request.to_labels])


def _check_counts(request: Request) -> None:
    prompts, labels = len(request.prompts), len(request.labels)
    if prompts and labels and prompts != labels:
        raise InputError(f"{prompts} prompts and {labels} labels came; give one label per prompt")
    for values, of, word in (
        (request.negatives, prompts, "negative prompts"),
        (request.to_prompts, prompts, "prompts to go to"),
        (request.to_labels, labels, "labels to go to"),
    ):
        if len(values) > 1 and len(values) != of:
            raise InputError(f"{len(values)} {word} came for {of}; give one for all or one for each")


def _check_ends(request: Request) -> None:
    if request.at is not None and not request.between:
        raise InputError("`at` is a place between two ends and there is one; give the other: to, to_label or to_seed")
    if request.on_a_way and request.count < 2:
        raise InputError(
            "a way from one end to the other is a count of 2 pictures or more; `at` (0 to 1) asks for one on the way"
        )

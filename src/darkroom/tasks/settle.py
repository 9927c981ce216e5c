"""A request meets a model: defaults are filled in, and what does not fit is refused before any work."""

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from fractions import Fraction
from typing import Final

from darkroom.autoencoder.tiles import WHOLE
from darkroom.conditioning.spatial import LowResSpec
from darkroom.core.errors import InputError, did_you_mean, multiples_fit
from darkroom.diffusion.solvers.choose import ALIASES, build_solver
from darkroom.diffusion.walk import check_walk
from darkroom.tasks.enlarge import LARGEST as HELD
from darkroom.tasks.enlarge import own_match
from darkroom.tasks.fields import FIELDS
from darkroom.tasks.model import Model
from darkroom.tasks.request import GROUPED, Request
from darkroom.tasks.steer import crops_of, seen_by

STEPS: Final = 50  # of a model that does not say how many
STRENGTH: Final = 0.6  # of an image that is varied
GUIDE_WEIGHT: Final = 1.0  # the whole way to the guide
LOW_RES: Final = FIELDS["low_res"]
LARGEST: Final = 2**21  # pixels drawn as a whole, unless training pictures were nearly as large
OFTEN: Final = 16  # times the area of a training picture
MOST: Final = 2**26  # pixels of any picture
MOST_WINDOWS: Final = 2**16  # 8192 x 8192 in windows of 64


def settle(model: Model, request: Request) -> Request:
    """The request with the model's defaults filled in; `InputError` when something in it does not fit the model."""
    _check_fields(model, request)
    _check_counts(request)
    _check_ends(request)
    solver = _solver(model, request.solver)
    steps = request.steps or _own_steps(model)
    eta = _eta(model, request, solver=solver)
    check_walk(model.schedule, solver=solver, steps=steps, eta=eta, times=request.times)
    if request.inverted and build_solver(solver, eta=eta).stochastic:
        raise InputError(
            f"an inverted picture is walked back to without noise, and {solver} with eta {eta:g} adds some; use "
            "another solver, or eta 0"
        )
    size = size_of(model, request)
    _check_windows(size, request.window)
    _check_layouts(model, request, size=size)
    _check_guides(model, request, size=size)
    filled = {
        "size": size,
        "guidance": _guidance(model, request),
        "solver": solver,
        "eta": eta,
        "steps": steps,
        "strength": _strength(request),
        "guide_weight": request.guide_weight or GUIDE_WEIGHT if request.guides else None,
        "match": _match(model, request, size=size),
    }
    return request.model_copy(update=filled)


def offered(model: Model, request: Request) -> Request:
    """The request with the prompts that the model's card offers, in turn, when none was given and nothing else steers.

    A picture to vary, to paint into or to follow has nothing said about it.
    """
    others = (request.labels, request.layouts, request.maps, request.low_res)
    if request.prompts or request.to_prompts or any(others) or "caption" not in model.fields:
        return request
    if request.images or request.guides:
        return request.model_copy(update={"prompts": ("",)})
    known: list[str] = model.default("prompts", [])
    if not known:
        return request
    if request.between:
        return request.model_copy(update={"prompts": (known[0],)})
    chosen = tuple(known[place % len(known)] for place in range(request.count))
    return request.model_copy(update={"prompts": chosen, "count": 1})


def hardly_meant(model: Model, request: Request) -> list[str]:
    """Warnings about a settled request: what suits neither the model nor, most likely, whoever asked."""
    found = _of_distilled(model, request) | {
        f"{model.name} is a regression, which answers in one step; more ask it about what it never saw": (
            model.spec.regresses and request.steps != 1
        ),
        "a mask has nothing white in it, so that nothing is painted": any(
            not bool(mask.ink(mask.size).any()) for mask in request.masks
        ),
    }
    return [sentence for sentence, so in found.items() if so]


def _of_distilled(model: Model, request: Request) -> dict[str, bool]:
    """Guidance or solver that do not suit a few-step model, or lcm for another."""
    match model.card.get("distill"):
        case {"guidance": known}:
            scales = request.guidance.values() if isinstance(request.guidance, dict) else [request.guidance]
            return {
                f"{model.name} knows a guidance of {known:g} by heart, and the one asked for comes on top of it": any(
                    scale not in (1, None) for scale in scales
                ),
                f"{model.name} is distilled for the solver lcm; {request.solver} may do worse": request.solver != "lcm",
            }
        case _:
            return {
                f"lcm is for distilled models, and {model.name} does not say that it is one; others it draws blurred": (
                    request.solver == "lcm"
                )
            }


def _match(model: Model, request: Request, *, size: tuple[int, int]) -> int | None:
    """The match that was asked for, or the model's own where nothing forbids it; None without a mask or enlarging."""
    if request.low_res and not request.masks:
        if request.match not in {None, 0, 1}:
            raise InputError(
                f"match {request.match} does not fit: an enlarged picture is held to the small one once (1), or not (0)"
            )
        large = max(size) > HELD
        if large and request.match:
            raise InputError(f"match 1 does not fit: {size[0]}x{size[1]} has a side above {HELD} pixels; leave it out")
        return (0 if large else own_match(model)) if request.match is None else request.match
    if not request.masks:
        return None
    against = None
    if model.spec.first_stage.factor == 1:
        against = f"{model.name} works on pixels, and known ones are put back as they are"
    elif size[0] * size[1] > WHOLE:
        against = f"{size[0]}x{size[1]} is too large to be decoded as a whole at every step"
    if request.match and against is not None:
        raise InputError(f"match {request.match} does not fit: {against}; leave it out")
    own = model.default("match", 0) if against is None else 0
    return request.match if request.match is not None else own


def _check_guides(model: Model, request: Request, *, size: tuple[int, int]) -> None:
    """`InputError` for a guide where the picture is too large to be decoded as a whole at every step."""
    if request.guides and model.spec.first_stage.factor > 1 and size[0] * size[1] > WHOLE:
        raise InputError(
            f"a guide does not fit: {size[0]}x{size[1]} is too large to be decoded as a whole at every step; at most "
            f"{WHOLE} pixels are"
        )


def _strength(request: Request) -> float | None:
    """How much of an image is left open; None where nothing begins with one."""
    if not request.images or request.masks or request.strength is not None:
        return request.strength
    return 1.0 if request.inverted else STRENGTH


def size_of(model: Model, request: Request) -> tuple[int, int]:
    """Height and width that are drawn; `InputError` where the model cannot, or what is given has several."""
    multiple = model.spec.size_multiple
    side = model.spec.image_size
    given = _given_sizes(model, request)
    size = request.size or next(iter(given.values()), (side, side))
    for word, each in given.items():
        if each != size and (request.size is None or word == LOW_RES):
            raise InputError(
                f"the {word} asks for a size of {each[0]}x{each[1]} and {size[0]}x{size[1]} is drawn; "
                "give what is of one size"
            )
    area = size[0] * size[1]
    if request.window is None and area > max(LARGEST, OFTEN * side**2):
        raise InputError(
            f"{size[0]}x{size[1]} is too large for a model of {side}x{side} to draw as a whole; say another --size, or "
            f"--window {side} to draw it in parts"
        )
    if area > MOST:
        raise InputError(f"{size[0]}x{size[1]} is too large: pictures have at most {MOST // 10**6} million pixels")
    if any(length <= 0 or length % multiple for length in size):
        fits = multiples_fit(size, multiple) + _scaled(request, given)
        raise InputError(f"size {size[0]}x{size[1]} does not fit this model: {fits}")
    if request.window is not None and request.window % multiple:
        raise InputError(f"window {request.window} does not fit this model: it must be a multiple of {multiple}")
    return size


def _scaled(request: Request, given: Mapping[str, tuple[int, int]]) -> str:
    """What `--size` would do where it was not given and pictures were, for the end of a sentence."""
    return "" if request.size is not None or not given else " (--size scales and cuts what is given)"


def _given_sizes(model: Model, request: Request) -> dict[str, tuple[int, int]]:
    """The sizes that given pictures ask for, height and width, by what they are."""
    found: dict[str, tuple[int, int]] = {}
    for word, pictures in (("map", request.maps), ("picture", request.images), ("mask", request.masks)):
        for each in pictures:
            if found.setdefault(word, each.size) != each.size and request.size is None:
                raise InputError(f"{word}s of different sizes came; give --size, or draw them one after the other")
    for place in range(max(len(request.images), len(request.masks)) if request.masks and request.images else 0):
        (tall, wide), (height, width) = (
            each[min(place, len(each) - 1)].size for each in (request.images, request.masks)
        )
        if (height, width) != (tall, wide):
            raise InputError(f"the mask is {height}x{width} and the picture {tall}x{wide}; they must be of one size")
    for each in request.low_res:
        spec = model.words.find(LowResSpec, word=LOW_RES)
        times = Fraction(model.spec.first_stage.factor * spec.enlarge, spec.patch)
        fits = (model.spec.size_multiple / times).numerator  # so that what is drawn is of a size that fits
        if any(side % fits for side in each.size):
            cut = "x".join(str(max(side // fits, 1) * fits) for side in each.size)
            raise InputError(
                f"a low-resolution picture of {each.size[0]}x{each.size[1]} does not fit: its sides must be multiples "
                f"of {fits}; cut it to {cut}"
            )
        size = int(each.size[0] * times), int(each.size[1] * times)
        if found.setdefault(LOW_RES, size) != size:
            raise InputError("low-resolution pictures of different sizes came; enlarge them one after the other")
    return found


def windows(size: tuple[int, int], window: int | None) -> int:
    """How many windows of this side a picture is drawn in, about."""
    return 1 if window is None else math.prod(max(1, math.ceil(2 * side / window) - 1) for side in size)


def _check_windows(size: tuple[int, int], window: int | None) -> None:
    """`InputError` for very many, each of which is evaluated in every step."""
    count = windows(size, window)
    if count > MOST_WINDOWS:
        raise InputError(
            f"window {window} does not fit: {size[0]}x{size[1]} would be drawn in some {count} of them, and at most "
            f"{MOST_WINDOWS} are; say a larger one"
        )


def _own_steps(model: Model) -> int:
    """The model's own steps; of a regression, and of a short schedule, no more than it has times for."""
    known = model.default("steps", 1 if model.spec.regresses else STEPS)
    return min(known, model.schedule.steps or known)


def _solver(model: Model, asked: str | None) -> str:
    """The solver that was asked for, or the model's own, by its one name."""
    name = str(asked or model.default("solver", "ddim"))
    return ALIASES.get(name, name)


def _eta(model: Model, request: Request, *, solver: str) -> float:
    """The eta that was asked for; else the model's for its own solver, 0 for another and for an inverted picture."""
    if request.eta is not None:
        return request.eta
    own = solver == _solver(model, None) and not request.inverted
    return float(model.default("eta", 0.0)) if own else 0.0


def _guidance(model: Model, request: Request) -> float | dict[str, float]:
    guided = model.spec.guided
    guidance = request.guidance
    if isinstance(guidance, dict):
        return _scales(model, request, guidance)
    if guidance is None:
        guidance = model.default("guidance", 1.0) if guided else 1.0
    if guidance != 1 and not guided:
        raise InputError(
            f"guidance {guidance:g} does not fit: training dropped no condition of this model; use guidance 1"
        )
    _check_helpers(request, guidance=guidance)
    return guidance


def _scales(model: Model, request: Request, guidance: dict[str, float]) -> dict[str, float]:
    """One for each field that training dropped, in the model's order; 1 for those not named."""
    dropped = [spec.field for spec in model.spec.conditioners if spec.drop > 0]
    for field in guidance:
        if field not in dropped:
            raise InputError(
                f"guidance of {field!r} does not fit: training dropped "
                f"{' and '.join(dropped) or 'no condition'} of this model{did_you_mean(field, dropped)}"
            )
    if request.negatives or request.guidance_rescale > 0:
        raise InputError("negative prompts and guidance_rescale work with one scale of guidance")
    _check_helpers(request, guidance=0.0)
    return {field: guidance.get(field, 1.0) for field in dropped}


def _check_helpers(request: Request, *, guidance: float) -> None:
    """`InputError` for settings that work through guidance where there is none."""
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
    named = {"caption": request.prompts, "label": request.labels, "objects": request.layouts, "map": request.maps}
    named |= {"low_res": request.low_res}
    ends = {"caption": request.to_prompts, "label": request.to_labels}
    given = {field for field, values in named.items() if values} | ({"masked"} if request.masks else set())
    for field, word in FIELDS.items():
        if (given & {field} or ends.get(field)) and field not in takes and field != "masked":
            raise InputError(f"{model.name} takes no {word}; {model.words.takes()}")
        if ends.get(field) and field not in given:
            raise InputError(f"there is a {word} to go to and none to start from; give both")
    _check_pictures(model, request)
    _check_needed(model, given & takes)
    if request.negatives and "caption" not in takes:
        raise InputError(f"{model.name} takes no negative prompt; {model.words.takes()}")
    if request.negatives and takes != {"caption"}:
        raise InputError("a negative prompt works for models steered by a prompt alone")
    if request.labels:
        model.words.label_ids([*request.labels, *request.to_labels])


def _check_layouts(model: Model, request: Request, *, size: tuple[int, int]) -> None:
    """`InputError` for unknown categories and too many objects, in a window where there are windows."""
    if not request.layouts:
        return
    crops, most = crops_of(model, size=size, window=request.window), model.words.slots
    if len(crops) == 1 or most is None:
        model.words.layouts(request.layouts, size=size)
        return
    alone = [(each,) for layout in request.layouts for each in layout]
    if alone:
        model.words.layouts(alone)
    for layout in request.layouts:
        seen_by(layout, crops, most=most)


def _check_needed(model: Model, given: AbstractSet[str]) -> None:
    """Of several fields those that training dropped may be left out, though not all of them."""
    several = len(model.fields) > 1
    optional = {spec.field for spec in model.spec.conditioners if spec.drop > 0 and several}
    for field in model.fields:
        if field not in FIELDS:
            raise InputError(f"{model.name} is steered by {field}, which this task does not give yet")
        if field not in given and (field not in optional or not given):
            raise InputError(f"{model.name} {model.words.needs(field)}")


def _check_pictures(model: Model, request: Request) -> None:
    """Images, masks and guides make sense together only in some ways."""
    if request.masks and not request.images:
        raise InputError("a mask says where to paint; give the picture as well (--image)")
    if request.images and not request.masks and "masked" in model.fields:
        raise InputError(f"{model.name} paints where a mask says so; give one (--mask)")
    for name, wanted in (("strength", request.strength is not None), ("inverted", request.inverted)):
        if wanted and not request.images:
            raise InputError(f"{name} is about a picture to begin with; give one (--image)")
        if wanted and request.masks:
            raise InputError(f"{name} does not go with a mask: what is painted begins with nothing")
    if request.guide_weight is not None and not request.guides:
        raise InputError("guide_weight is about a guide; give one (--guide)")
    if request.match is not None and not request.masks and not request.low_res:
        raise InputError(
            "match is about the edge of what is painted, and about enlarged pictures; give a mask (--mask) or a small "
            "picture (--low-res)"
        )
    if request.inverted and request.between and request.to_seed is not None:
        raise InputError("an inverted picture gives the noise itself; leave --to-seed out")
    for picture in request.maps:
        model.words.check_map(picture.ids(picture.size))


def _check_counts(request: Request) -> None:
    prompts, labels = len(request.prompts), len(request.labels)
    counts = {name: len(getattr(request, name)) for name in GROUPED}
    several = {name: count for name, count in counts.items() if count > 1}
    if len(set(several.values())) > 1:
        said = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in several.items())
        raise InputError(f"{said} came; give one for all or as many of each")
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

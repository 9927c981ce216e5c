"""The conditions of a batch of wishes, and the null conditions that guidance leads away from."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from darkroom.core.conditions import Conditions, by_window
from darkroom.core.errors import InputError
from darkroom.diffusion.windows import Place, window_places
from darkroom.tasks.between import mix
from darkroom.tasks.model import Model
from darkroom.tasks.request import Layout, Placed, Request, Wish

T = TypeVar("T")
Size = tuple[int, int]
Crop = tuple[float, float, float, float]
SEEN: Final = 0.5  # share of an object, or of the window, for the object to count as lying in the window


def conditions_of(model: Model, group: Sequence[Wish], *, size: Size, window: int | None = None) -> Conditions:
    """The three ports of these wishes; between two ends they are mixed.

    size: height and width of the pictures · window: side of the windows they are drawn in; each window's tokens then
    name the objects that lie in it.
    """
    if not model.fields:
        return Conditions()
    given = _given(model, group, size=size)
    crops = crops_of(model, size=size, window=window)

    def told(fields: dict[str, Any]) -> Conditions:
        layouts = fields["objects"]
        most = model.words.slots if layouts else None
        if most is None or len(crops) == 1:  # planes are cut to each window
            return model.condition(**fields, size=size)
        seen = [seen_by(layout, crops, most=most) for layout in layouts]
        each: list[dict[str, Any]] = [fields | {"objects": list(of_window)} for of_window in zip(*seen, strict=True)]
        return by_window([model.condition(**fields_of_window, size=size) for fields_of_window in each])

    first = told(given)
    ends: dict[str, Any] = {
        "caption": _all([wish.to_prompt for wish in group]),
        "label": _all([wish.to_label for wish in group]),
    }
    if not any(ends.values()):
        return first
    last = told(given | {field: values for field, values in ends.items() if values})
    return mix(first, last, at=places(group))


def crops_of(model: Model, *, size: Size, window: int | None) -> list[Crop]:
    """The windows that pictures of this size are drawn in, as x, y, width and height in 0..1; one without windows."""
    if window is None:
        return [(0.0, 0.0, 1.0, 1.0)]
    _, height, width = model.diffusion.latent_shape(size)
    _, tall, wide = model.diffusion.latent_shape((window, window))

    def crop(place: Place) -> Crop:
        rows, columns = place
        return (
            columns.start / width,
            rows.start / height,
            (columns.stop - columns.start) / width,
            (rows.stop - rows.start) / height,
        )

    return [crop(place) for place in window_places((height, width), (tall, wide))]


def seen_by(layout: Layout, crops: Sequence[Crop], *, most: int) -> list[Layout]:
    """The layout of each window: the objects that lie in its crop, and of more than `most` the largest.

    Every object is in the layout of one window at least; `InputError` where all windows that see it are full.
    """
    seen = [_seen_in(layout, crop) for crop in crops]
    own = _own(layout, seen, most=most)

    def told(place: int) -> Layout:
        order = sorted(seen[place], key=lambda each: (each in own[place], _area(seen[place][each])), reverse=True)
        return tuple(seen[place][each] for each in sorted(order[:most]))

    return [told(place) for place in range(len(crops))]


def _own(layout: Layout, seen: Sequence[Mapping[int, Placed]], *, most: int) -> list[set[int]]:
    """For each window the objects that it must name, so that each object is named by one window."""
    own: list[set[int]] = [set() for _ in seen]
    where = {number: [place for place, each in enumerate(seen) if number in each] for number in range(len(layout))}
    for number in sorted(where, key=lambda each: len(where[each])):
        if not where[number]:
            continue
        place = min(where[number], key=lambda at: (len(own[at]), -_area(seen[at][number])))
        if len(own[place]) == most:
            box = ", ".join(f"{side:g}" for side in layout[number].box)
            raise InputError(
                f"a window takes at most {most} objects, and too many lie where the {layout[number].category} at {box} "
                "does; leave some out"
            )
        own[place].add(number)
    return own


def _area(each: Placed) -> float:
    return each.box[2] * each.box[3]


def _seen_in(layout: Layout, crop: Crop) -> dict[int, Placed]:
    """The objects that lie in a crop by half, or fill half of it, cut at its edges, their boxes in 0..1 of it.

    By their number in the layout.
    """

    def inside(each: Placed) -> Placed | None:
        sides: list[tuple[float, float]] = []
        share = 1.0
        for at in (0, 1):
            start, length = (each.box[at] - crop[at]) / crop[at + 2], each.box[at + 2] / crop[at + 2]
            low, high = max(0.0, start), min(1.0, start + length)
            if high - low <= 0:
                return None
            sides.append((low, high - low))
            share *= (high - low) / min(1.0, length)
        (x, width), (y, height) = sides
        return None if share < SEEN else Placed(category=each.category, box=(x, y, width, height))

    return {number: found for number, each in enumerate(layout) if (found := inside(each)) is not None}


def places(group: Sequence[Wish]) -> Tensor:
    """Where each picture stands between two ends, (b,) float64."""
    return torch.tensor([wish.at or 0.0 for wish in group], dtype=torch.float64)


def led_away_from(
    model: Model, request: Request, *, conditions: Conditions, group: Sequence[Wish]
) -> Conditions | list[Conditions] | None:
    """What `walk` takes as null: negative prompts where there are some, else what says nothing.

    Where each field has a scale of its own, a list: nothing, then the first field, then the first two, ...
    """
    match request.guidance:
        case {**scales}:
            return [model.null(conditions, drop=list(scales)[place:]) for place in range(len(scales))]
        case 1 | None:
            return None
        case _:
            return _null(model, conditions, group)


def scales_of(guidance: float | Mapping[str, float] | None) -> float | list[float]:
    """What `walk` takes as guidance."""
    if guidance is None:
        return 1.0
    return list(guidance.values()) if isinstance(guidance, Mapping) else guidance


def _given(model: Model, group: Sequence[Wish], *, size: Size) -> dict[str, Any]:
    """The fields as `Model.condition` takes them; what the request leaves out is left out."""
    channels = model.spec.first_stage.image_channels
    masked = group if "masked" in model.fields else ()
    return {
        "caption": _all([wish.prompt for wish in group]),
        "label": _all([wish.label for wish in group]),
        "objects": _all([wish.layout for wish in group]),
        "map": _joined([each.ids(size) for each in _all([wish.map for wish in group]) or []]),
        "low_res": _joined([each.pixels(channels) for each in _all([wish.low_res for wish in group]) or []]),
        "image": _joined([each.pixels(channels, size) for each in _all([wish.image for wish in masked]) or []]),
        "mask": _joined([each.ink(size) for each in _all([wish.mask for wish in masked]) or []]),
    }


def _all(values: Sequence[T | None]) -> list[T] | None:
    return [value for value in values if value is not None] or None


def _joined(parts: Sequence[Tensor]) -> Tensor | None:
    return torch.cat(list(parts)) if parts else None


def _null(model: Model, conditions: Conditions, group: Sequence[Wish]) -> Conditions:
    """The conditions of the negative prompt where a wish has one, else null."""
    null = model.null(conditions)
    if not any(wish.negative for wish in group):
        return null
    away = model.condition(caption=[wish.negative or "" for wish in group])
    assert away.tokens is not None
    assert null.tokens is not None
    given = torch.tensor([wish.negative is not None for wish in group], device=away.tokens.device)
    return Conditions(tokens=torch.where(given[:, None, None], away.tokens, null.tokens))

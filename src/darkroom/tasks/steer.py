"""What steers the pictures of a batch: the conditions of a group of wishes, and what guidance leads away from."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from darkroom.core.conditions import Conditions
from darkroom.tasks.between import mix
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request, Wish

T = TypeVar("T")
Size = tuple[int, int]


def conditions_of(model: Model, group: Sequence[Wish], *, size: Size) -> Conditions:
    """The three ports of these wishes; between two ends they are mixed. size: height and width of the pictures."""
    if not model.fields:
        return Conditions()
    given = _given(model, group, size=size)
    first = model.condition(**given, size=size)
    ends: dict[str, Any] = {
        "caption": _all([wish.to_prompt for wish in group]),
        "label": _all([wish.to_label for wish in group]),
    }
    if not any(ends.values()):
        return first
    last = model.condition(**given | {field: values for field, values in ends.items() if values}, size=size)
    return mix(first, last, at=places(group))


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
    """The negative prompt where there is one, else what says nothing."""
    null = model.null(conditions)
    if not any(wish.negative for wish in group):
        return null
    away = model.condition(caption=[wish.negative or "" for wish in group])
    assert away.tokens is not None
    assert null.tokens is not None
    given = torch.tensor([wish.negative is not None for wish in group], device=away.tokens.device)
    return Conditions(tokens=torch.where(given[:, None, None], away.tokens, null.tokens))

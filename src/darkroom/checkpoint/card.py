"""What of a card is acted upon, so that one from elsewhere cannot ask for what is no number."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from darkroom.checkpoint.read_spec import parsed
from darkroom.core.errors import ModelFileError
from darkroom.core.spec import Spec

MOST_STEPS: Final = 10**6
Whole = Annotated[int, Field(strict=True, ge=0, le=MOST_STEPS)]
Number = Annotated[float, Field(strict=True)]
Table = dict[str, Any]


class _Sample(Spec):
    """How the model is drawn from where nobody says otherwise."""

    solver: str = ""
    eta: Annotated[Number, Field(ge=0)] = 0.0
    steps: Annotated[Whole, Field(gt=0)] = 1
    guidance: Number = 1.0
    match: Whole = 0
    prompts: tuple[str, ...] = ()


class _Distilled(Spec):
    """The guidance that a student has learnt by heart."""

    guidance: Number = 1.0


class _Data(Spec):
    """How pictures were spoilt for what completes them."""

    degradation: Table = Field(default_factory=dict)
    masks: Table = Field(default_factory=dict)


READ: Final[Mapping[str, type[Spec]]] = {"sample": _Sample, "distill": _Distilled, "data": _Data}


def check_card(card: Mapping[str, Any], *, where: str) -> None:
    """`ModelFileError` names what in a card is not of the kind that this package would take it for."""
    for name, kind in READ.items():
        part = card.get(name, {})
        if not isinstance(part, Mapping):
            raise ModelFileError(f"{where}: {name} is no table, {str(part)[:60]!r} came")
        known = {key: part[key] for key in kind.model_fields if key in part}
        parsed(kind, known, where=f"{where}, {name}")

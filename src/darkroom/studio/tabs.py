"""Which tabs there are: one for each task that a model on offer can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from darkroom.core.shapes import Number
from darkroom.serve.shelf import Offer
from darkroom.serve.views import model_view


@final
@dataclass(frozen=True)
class Tab:
    """A task. key: its name on the page · steered: the field a model must be steered by for it, None where any will ·
    part: the custom element that asks for what no component can · help: a sentence."""

    key: str
    title: str
    steered: str | None
    help: str
    part: str | None = None

    def at(self, name: str) -> str:
        """The id of a component of this tab."""
        return f"dr-{self.key}-{name}"


PARTS: Final = {"objects": "darkroom-boxes", "map": "darkroom-map", "low_res": "darkroom-small"}  # for a field each
WORDS: Final = frozenset({"caption", "label"})  # fields that have components
TABS: Final = (
    Tab("text", "Text", "caption", "Say what to draw."),
    Tab("class", "Class", "label", "Choose what to draw."),
    Tab("layout", "Layout", "objects", "Draw boxes, move them, and say what is in each.", "darkroom-boxes"),
    Tab("map", "Map", "map", "Paint where things are.", "darkroom-map"),
    Tab("enlarge", "Enlarge", "low_res", "Drop a small picture.", "darkroom-small"),
    Tab("inpaint", "Inpaint", None, "Drop a picture, and paint over what shall be drawn anew.", "darkroom-hole"),
    Tab("vary", "Vary", None, "Drop a picture, and say how much of it is left open.", "darkroom-image"),
    Tab("free", "Free", None, "Nothing to say: the model draws what it learnt."),
)


def offered(tab: Tab, offers: Sequence[Offer]) -> list[Offer]:
    """The models on offer that can do a tab's task, the best suited first.

    A model that needs something which a tab does not ask for is not among them.
    """
    return sorted((each for each in offers if _can(tab, frozenset(_fields(each)))), key=lambda each: _rank(tab, each))


def _can(tab: Tab, fields: frozenset[str]) -> bool:
    match tab.key:
        case "free":
            return not fields
        case "inpaint":
            return fields <= WORDS or ("masked" in fields and fields <= {*WORDS, *PARTS, "masked"})
        case "vary":
            return fields <= WORDS
        case "map" | "enlarge" | "layout":
            return tab.steered in fields and fields <= {*WORDS, *PARTS}
        case _:
            return tab.steered in fields and fields <= WORDS


def others(tab: Tab, offers: Sequence[Offer]) -> list[str]:
    """Fields beside a tab's own that some of its models are steered by as well, each with a custom element."""
    steering = {field for each in offers for field in _fields(each)} - {tab.steered}
    return [field for field in PARTS if field in steering]


def _rank(tab: Tab, offer: Offer) -> Number:
    """Models made for holes first, where holes are filled; with as few other fields as can be elsewhere."""
    fields = _fields(offer)
    return 0 if tab.key == "inpaint" and "masked" in fields else len(fields)


def _fields(offer: Offer) -> Sequence[str]:
    return offer.outline.spec.fields


def facts(offers: Sequence[Offer]) -> dict[str, Any]:
    """What the page must know of each model, as the API tells it."""
    return {each.name: model_view(each, loaded=False).plain() for each in offers}

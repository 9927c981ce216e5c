"""What cells were measured by, in sentences; and which pictures a model that exists is compared with."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from darkroom.core.errors import SpecError
from darkroom.core.spec import parse
from darkroom.data.sources import SCENES
from darkroom.evaluate.card import Protocol, differences
from darkroom.studies.cells import Found
from darkroom.studies.wishes import Wishes
from darkroom.tasks.load import outline


def data_of(model: str, asked: Wishes) -> str:
    """Pictures to compare with: those asked for, or the built-in scenes that a model learnt from.

    A card names folders without the way to them. `SpecError` when it is not known.
    """
    if asked.data is not None:
        return asked.data
    card = outline(model).card.get("data")
    source = cast("dict[str, Any]", card).get("source") if isinstance(card, dict) else None
    if source in SCENES:
        return str(source)
    near = f"; it learnt from {Path(str(source)).name!r}" if source else ""
    raise SpecError(f"data=FOLDER is needed: pictures that {model} is compared with{near}")


def asks(found: Mapping[str, Found]) -> tuple[str, ...]:
    """How pictures were drawn, what cells were measured otherwise, and what their cards warn about, each once."""
    named = {name: each for name, each in found.items() if "protocol" in each}
    if not named:
        return ()
    cards = list(named.values())
    protocol = cards[0]["protocol"]
    known = protocol["reference"]
    first = (
        f"{protocol['count']} pictures of each cell beside {known['pictures']} of {known['name']} ({known['split']})"
    )
    networks = ", ".join(f"{each['name']} {each['hash']}" for each in protocol["networks"])
    if len(protocol["networks"]) > 1:
        networks += f", of which tables and plots show {protocol['networks'][0]['name']}"
    weights = {each["subject"].get("weights_hash") for each in cards} - {None}
    of = f"; model {cards[0]['subject']['name']}, weights {weights.pop()}" if len(weights) == 1 else ""
    said = dict.fromkeys(sentence for each in found.values() for sentence in each.get("notes", ()))
    told = f"{first}, seed {protocol['sampling']['seed']}; seen through {networks}{of}."
    return (told, *_otherwise(named), *said)


def _otherwise(cards: Mapping[str, Found]) -> Iterator[str]:
    """Cells that do not compare with the first: by their protocol, sampling and holes aside, by versions or weights."""
    first, *others = cards
    for name in others:
        apart = differences(*(_measured_by(cards[each]) for each in (first, name)))
        if apart:
            yield f"{name} does not compare with {first}: {apart[0]}."
        if cards[name]["versions"] != cards[first]["versions"]:
            yield f"{name} and {first} were measured with different versions of darkroom, Python, torch or numpy."
    weights: dict[str, set[str]] = {}
    for subject in (each["subject"] for each in cards.values()):
        weights.setdefault(subject["name"], set()).add(subject.get("weights_hash", ""))
    for name, several in weights.items():
        if len(several) > 1:
            yield f"The model {name} changed while the study was made: it had the weights {', '.join(sorted(several))}."


def _measured_by(card: Found) -> Protocol:
    protocol = {**card["protocol"], "sampling": None, "asked": None}
    return parse(Protocol, protocol, where="a cell")

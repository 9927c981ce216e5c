"""Studies of a model that exists: which pictures it is compared with, and what readers of small counts must know."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from darkroom.core.errors import SpecError
from darkroom.data.sources import SCENES
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
    """What cards of cells warn about, each sentence once, and how pictures were drawn."""
    cards = [each for each in found.values() if "protocol" in each]
    if not cards:
        return ()
    protocol = cards[0]["protocol"]
    known = protocol["reference"]
    first = (
        f"{protocol['count']} pictures of each cell beside {known['pictures']} of {known['name']} ({known['split']})"
    )
    networks = ", ".join(f"{each['name']} {each['hash']}" for each in protocol["networks"])
    weights = {each["subject"]["weights_hash"] for each in cards}
    of = f"; model {cards[0]['subject']['name']}, weights {weights.pop()}" if len(weights) == 1 else ""
    said = dict.fromkeys(sentence for each in cards for sentence in each["notes"])
    return (f"{first}, seed {protocol['sampling']['seed']}; seen through {networks}{of}.", *said)

"""The card of an evaluation: figures with their intervals, and all that must be equal for two of them to compare."""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
import torch
from pydantic import Field, FiniteFloat, JsonValue

from darkroom import __version__
from darkroom.core.compute import Compute
from darkroom.core.errors import InputError
from darkroom.core.spec import Spec, parse

FORMAT: Final = 1
MOST: Final = 2**24  # bytes of a card
Kind = Literal["set", "first stage", "obedience", "conditions"]
Plain = dict[str, JsonValue]
# Names are for people: what they stand for is told apart by its hash.
_NAMES: Final = frozenset({"reference.name", "reference.split", "networks.name"})
_TOLD: Final = 6  # fields that differ


@final
class Reference(Spec):
    """The pictures that others are compared with. hash: of their pixels as they are compared."""

    name: str
    split: str
    pictures: int = Field(ge=0)
    hash: str


@final
class Network(Spec):
    """A judging network, identified by its weights; preprocessing: what is done to a picture before."""

    name: str
    hash: str
    preprocessing: Plain = Field(default_factory=dict)


@final
class Protocol(Spec):
    """What figures are quoted with. Two cards compare when all of it is equal but names.

    count: pictures measured · pictures: how they were brought to one size · sampling: None for pictures that were
    given · asked: by what, None for nothing · statistics: how figures are computed · details: what else there is to
    say.
    """

    kind: Kind
    count: int = Field(ge=1)
    pictures: Plain = Field(default_factory=dict)
    reference: Reference | None = None
    asked: Plain | None = None
    sampling: Plain | None = None
    networks: tuple[Network, ...] = ()
    statistics: Plain = Field(default_factory=dict)
    details: Plain = Field(default_factory=dict)


@final
class Figure(Spec):
    """One number. of: what was measured, when more than the model was · network: through which, where it is one.

    low, high: where 95 % of resamples lie; None where none were drawn · count: of what it was averaged over.
    """

    measure: str
    of: str = "model"
    network: str | None = None
    value: FiniteFloat
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    count: int = Field(ge=1)


@final
class Card(Spec):
    """All that an evaluation found. time: the only part that differs when it is made again on the same machine."""

    format: Literal[1] = FORMAT
    subject: Plain
    protocol: Protocol
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    machine: Plain = Field(default_factory=dict)
    time: Plain = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of what was measured."""
        return str(self.subject.get("name", "?"))


def read_card(path: Path) -> Card:
    """A card from its JSON file, or from the folder where one lies; `InputError` in one sentence for anything else."""
    file = path / "card.json" if path.is_dir() else path
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST + 1)  # not asked for its size: what is no file has none
        if len(text) > MOST:
            raise InputError(f"{file}: no card of an evaluation, it is too large")
        values = json.loads(text.decode())
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{file}: no card can be read ({reason}); `darkroom evaluate --out` writes them") from None
    except (ValueError, RecursionError):
        raise InputError(f"{file}: no card of an evaluation, it is not valid JSON") from None
    if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
        raise InputError(f"{file}: a card of format {_short(values['format'])}, {FORMAT} is read")
    return parse(Card, values, where=str(file))


def differences(one: Protocol, other: Protocol) -> tuple[str, ...]:
    """Fields by which figures do not compare, each with both values.

    How pictures were drawn that were given as files is not known, and no difference.
    """
    first, second = one.plain(), other.plain()
    if first["sampling"] is None or second["sampling"] is None:
        first["sampling"] = second["sampling"] = None
        first["asked"] = second["asked"] = None
        for plain in (first, second):
            plain["statistics"].pop("pairs", None)
    return tuple(_apart(first, second, place=""))


def check_comparable(one: Protocol, other: Protocol, *, where: str) -> None:
    """`InputError` names the fields in which two protocols differ; where: of the other card."""
    found = differences(one, other)
    if found:
        more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
        raise InputError(
            f"{where}: measured by another protocol, so the figures do not compare: {'; '.join(found[:_TOLD])}{more}"
        )


def here(compute: Compute) -> dict[str, JsonValue]:
    """The machine, as far as figures or times depend on it."""
    device = compute.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": name,
    }


def versions() -> dict[str, str]:
    """Of what computes."""
    return {
        "darkroom": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def time_since(begun: float) -> dict[str, JsonValue]:
    """When a card was finished, and the seconds since `time.monotonic()` was `begun`."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - begun, 1),
    }


def _apart(one: Any, other: Any, *, place: str) -> Iterator[str]:
    """The paths at which two JSON values differ."""
    bare = ".".join(part for part in place.split(".") if not part.isdigit())
    if bare in _NAMES:
        return
    match one, other:
        case (Mapping(), Mapping()):
            for key in [*one, *(key for key in other if key not in one)]:
                yield from _apart(one.get(key), other.get(key), place=f"{place}.{key}" if place else str(key))
        case (list(), list()) if len(one) == len(other):
            for number, pair in enumerate(zip(one, other, strict=True)):
                yield from _apart(*pair, place=f"{place}.{number}")
        case _:
            if one != other:
                yield f"{_short(place)} ({_short(one)} here, {_short(other)} there)"


def _short(value: Any) -> str:
    """A value of a card for a terminal; cards may come from strangers, so control characters are spelt out."""
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text if text.isprintable() else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

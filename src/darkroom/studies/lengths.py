"""How long the trainings of a study were, in sentences: whether they compare depends on it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Final

from darkroom.core.shapes import Number
from darkroom.studies.cells import Found
from darkroom.studies.reading import NONE, short
from darkroom.studies.wishes import Wishes

FAIR: Final = 1.1  # times as long as the shortest: what looks, saves and a last step make


def said_of_lengths(asked: Wishes, found: Mapping[str, Found], *, models: Sequence[str]) -> tuple[str, ...]:
    """What was equal among trainings, and where they were not as equal as they should be. models: of denoisers."""
    if asked.steps is not None:
        return (
            f"Every training made {asked.steps} steps, so neither time nor, where batches differ, pictures are equal: "
            "what costs more was given more.",
        )
    if asked.minutes is None:
        return ("Trainings had the steps of the folder's recipe each, not equal time: what costs more was given more.",)
    said = (
        "Denoisers had equal time, first stages too; the time of first stages is not counted beside that of denoisers."
    )
    minutes = {name: minutes_of(found.get(name), stage="denoiser") for name in models}
    known = {name: value for name, value in minutes.items() if value}
    if not known or max(known.values()) <= FAIR * min(known.values()):
        return (said,)
    shortest, longest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return (
        said,
        f"Their times differ all the same, from {short(known[shortest])} minutes ({shortest}) to "
        f"{short(known[longest])} ({longest}): figures do not compare as they should.",
    )


def minutes_of(training: Found | None, *, stage: str) -> float | None:
    """That a stage of a training took by its log; None where it was not trained."""
    known = None if training is None else training["stages"].get(stage)
    return None if known is None else known["seconds"] / 60


def in_words(minutes: Number | None) -> str:
    """Minutes for a table."""
    return NONE if minutes is None else short(round(minutes, 2))


def speed_of(lines: Sequence[Mapping[str, Any]], *, batch: int) -> float | None:
    """Pictures a second by a training's log, the median from line to line; None where it tells no time.

    Looks draw and measure for a while and are no training: what follows one is left out, if anything else is there.
    """
    looked = {line["step"] for line in lines if "seconds" not in line}
    timed = [{"step": 0, "seconds": 0.0}, *(line for line in lines if "seconds" in line)]
    stretches = [(one, other) for one, other in pairwise(timed) if other["seconds"] > one["seconds"]]
    undisturbed = [each for each in stretches if each[0]["step"] not in looked]
    rates = [
        (other["step"] - one["step"]) * batch / (other["seconds"] - one["seconds"])
        for one, other in undisturbed or stretches
    ]
    return median(rates) if rates else None

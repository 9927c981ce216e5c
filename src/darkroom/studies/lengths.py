"""How long the trainings of a study were, in sentences: whether they compare depends on it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Final

from darkroom.core.shapes import Number
from darkroom.studies.cells import Found
from darkroom.studies.reading import NONE, short
from darkroom.studies.wishes import Wishes

FAIR: Final = 1.1  # times as long as the shortest: what looks, saves and a last step make
STEADY: Final = 1.2  # times as quick as usual
FEWEST: Final = 5  # lines of a log that tell whether it was steady


def said_of_lengths(asked: Wishes, found: Mapping[str, Found], *, models: Sequence[str]) -> tuple[str, ...]:
    """What was equal among trainings, and where they were not as equal as they should be. models: of denoisers."""
    if asked.steps is not None:
        return (
            f"Every training made {asked.steps} steps, so neither time nor, where batches differ, pictures are equal: "
            "what costs more was given more.",
        )
    if asked.minutes is None:
        return ("Trainings had the steps of the folder's recipe each, not equal time: what costs more was given more.",)
    firsts = [name for name, each in found.items() if "first_stage" in each.get("stages", {})]
    return (
        "Denoisers were given equal time, first stages too; the time of first stages is not counted beside that of "
        "denoisers.",
        *_unequal(found, models, stage="denoiser"),
        *_unequal(found, firsts, stage="first_stage"),
    )


def _unequal(found: Mapping[str, Found], names: Sequence[str], *, stage: str) -> Iterator[str]:
    """By how much trainings took more or less time than others."""
    known = {name: value for name in names if (value := minutes_of(found.get(name), stage=stage))}
    if not known or max(known.values()) <= FAIR * min(known.values()):
        return
    shortest, longest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    yield (
        f"The times of {stage.replace('_', ' ')}s differ all the same, from {short(known[shortest])} minutes "
        f"({shortest}) to {short(known[longest])} ({longest}): figures do not compare as they should."
    )


def minutes_of(training: Found | None, *, stage: str) -> float | None:
    """That a stage of a training took by its log, with what came before its first step; None where none was trained."""
    known = None if training is None else training["stages"].get(stage)
    return None if known is None else (known.get("before", 0.0) + known["seconds"]) / 60


def in_words(minutes: Number | None) -> str:
    """Minutes for a table."""
    return NONE if minutes is None else short(round(minutes, 2))


def speed_of(lines: Sequence[Mapping[str, Any]], *, batch: int) -> float | None:
    """Pictures a second by a training's log, the median from line to line; None where it tells no time."""
    rates = _rates(lines, batch=batch)
    return median(rates) if rates else None


def slowed(lines: Sequence[Mapping[str, Any]], *, batch: int) -> str | None:
    """How much slower a training was as a rule than when it was quick, in words; None where that is little."""
    rates = sorted(_rates(lines, batch=batch))
    quick, usual = (rates[int(0.9 * len(rates))], median(rates)) if len(rates) >= FEWEST else (0.0, 0.0)
    if quick <= STEADY * usual:
        return None
    return f"{short(usual)} pictures a second were usual in training, {short(quick)} at best: other work was in the way"


def _rates(lines: Sequence[Mapping[str, Any]], *, batch: int) -> list[float]:
    """Pictures a second from line to line.

    Looks draw and measure for a while and are no training: what follows one is left out, if anything else is there.
    """
    looked = {line["step"] for line in lines if "seconds" not in line}
    timed = [{"step": 0, "seconds": 0.0}, *(line for line in lines if "seconds" in line)]
    stretches = [(one, other) for one, other in pairwise(timed) if other["seconds"] > one["seconds"]]
    undisturbed = [each for each in stretches if each[0]["step"] not in looked]
    return [
        (other["step"] - one["step"]) * batch / (other["seconds"] - one["seconds"])
        for one, other in undisturbed or stretches
    ]

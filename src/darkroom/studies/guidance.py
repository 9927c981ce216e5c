"""Quality and diversity against the scale of guidance and the interval in which it acts, of a model that exists."""

from collections.abc import Mapping, Sequence
from typing import Final

from darkroom.core.errors import SpecError
from darkroom.pages.figure import Figure, Series
from darkroom.studies import published
from darkroom.studies.cells import Against, Cell, Found, Quality, Sampling, Study
from darkroom.studies.models import asks, data_of
from darkroom.studies.reading import Reading, Table, told, value_of
from darkroom.studies.wishes import DRAWS, Wishes, one_sampling
from darkroom.tasks.load import outline

TAKES: Final = (*DRAWS, "scales", "samplings")
SCALES: Final = (1.0, 1.5, 2.5, 4.0, 8.0)
# In noise level sigma / alpha: always, at middling noise (Kynkäänniemi et al. 2024), above a level.
INTERVALS: Final[dict[str, tuple[float, float | None] | None]] = {
    "always": None,
    "middling noise": (0.2, 5.0),
    "high noise": (1.0, None),
}
MEASURES: Final = ("Fréchet distance", "precision", "recall", "inception score", "caption obeyed", "class right")


def guidance(model: str, asked: Wishes) -> Study:
    """Every scale in every interval; scale 1 is no guidance and has none. `SpecError` where nothing can be left out."""
    known = outline(model)
    if not any(each.drop > 0 for each in known.spec.conditioners):
        raise SpecError(
            f"study guidance: {model} was not trained to do without what steers it, so nothing can guide it"
        )
    steps = one_sampling(asked, study="guidance")
    scales, against = asked.scales or SCALES, Against(data=data_of(model, asked), most=asked.real)
    cells: list[Cell] = [
        Quality(
            name=_cell(scale, interval),
            model=model,
            against=against,
            count=asked.count,
            sampling=Sampling(guidance=scale, interval=INTERVALS[interval], steps=steps, seed=asked.seed),
        )
        for interval in INTERVALS
        for scale in scales
        if scale != 1 or INTERVALS[interval] is None
    ]
    return Study(
        "guidance",
        f"What do scale and interval of guidance do to quality and diversity of what {model} draws?",
        cells,
        lambda found: _read(found, scales, of=model),
    )


def _cell(scale: float, interval: str) -> str:
    return f"scale-{scale:.12g}-{(interval if scale != 1 else 'always').replace(' ', '-')}"


def _read(found: Mapping[str, Found], scales: Sequence[float], *, of: str) -> Reading:
    seen = [each for each in MEASURES if any(value_of(one, each) is not None for one in found.values())]
    rows = [
        (f"{scale:g}", interval, *(told(found[_cell(scale, interval)], each) for each in seen))
        for interval in INTERVALS
        for scale in scales
        if _cell(scale, interval) in found and (scale != 1 or INTERVALS[interval] is None)
    ]
    across = {each: each.lower().replace("é", "e").replace(" ", "-") for each in seen}
    words = "; ".join(f"{name}: {_range(each)}" for name, each in INTERVALS.items())
    return Reading(
        tables=(Table(f"Guidance, model {of}", ("scale", "interval", *seen), rows), published.GUIDANCE),
        plots={
            name: Figure(
                f"{measure} against scale",
                "scale of guidance",
                measure,
                [Series(each, _line(found, scales, interval=each, measure=measure)) for each in INTERVALS],
            )
            for measure, name in across.items()
        },
        notes=(f"Intervals, in noise level sigma / alpha: {words}.", *asks(found)),
    )


def _range(interval: tuple[float, float | None] | None) -> str:
    if interval is None:
        return "at every level"
    low, high = interval
    return f"above {low:g}" + ("" if high is None else f", up to {high:g}")


def _line(
    found: Mapping[str, Found], scales: Sequence[float], *, interval: str, measure: str
) -> list[tuple[float, float]]:
    known = ((scale, value_of(found.get(_cell(scale, interval)), measure)) for scale in sorted(scales))
    return [(scale, value) for scale, value in known if value is not None]

"""Reports on first stages, obedience and conditions as cards, so that they compare like those of sets."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import torch

from darkroom.core.compute import Compute
from darkroom.evaluate.card import Card, Figure, Kind, Network, Protocol, Reference, here, time_since, versions
from darkroom.evaluate.quality import figure
from darkroom.evaluate.report import ConditionsReport, FirstStageReport, ObedienceReport
from darkroom.metrics.contributions import Estimate, Interval

Report = FirstStageReport | ConditionsReport | ObedienceReport
_APART: Final = frozenset({"model", "data", "sample", "judge", "darkroom", "preprocessing", "lpips", "given"})
_SHARES: Final = ("obeyed", "shown", "shuffled")


def card_of(report: Report, *, compute: Compute, begun: float) -> Card:
    """The same figures, those that are shares with intervals. begun: when it was, by `time.monotonic()`."""
    made, split = report.protocol, "test"
    match report:
        case FirstStageReport():
            kind, figures = "first stage", list(_of_first_stage(report))
            subject = {**made["model"], "name": made["given"].get("model", "first stage")}
            split, notes = str(made["given"]["split"]), report.notes
        case ObedienceReport():
            kind, figures, subject, notes = "obedience", list(_of_obedience(report)), made["model"], ()
        case ConditionsReport():
            kind, figures, subject, notes = "conditions", list(_of_conditions(report)), made["model"], report.notes
    return Card(
        subject={"kind": "first stage" if kind == "first stage" else "model", **subject},
        protocol=_protocol(made, kind=kind, count=max(each.count for each in figures), split=split),
        figures=tuple(figures),
        notes=tuple(notes),
        versions=versions(),
        machine=here(compute),
        time=time_since(begun),
    )


def _of_first_stage(report: FirstStageReport) -> Iterator[Figure]:
    count = report.protocol["data"]["pictures"]
    ways = {"model": report.figures, **{f"bicubic {name}": each for name, each in report.bicubic.items()}}
    for way, figures in ways.items():
        for measure, value in asdict(figures).items():
            if value is not None:
                within = report.intervals.get(way.removeprefix("bicubic "), {}).get(measure)
                yield _figure(measure.replace("_", " "), value, within, count=count, of=way)


def _of_conditions(report: ConditionsReport) -> Iterator[Figure]:
    count = report.protocol["data"]["pictures"]
    for way, figures in report.ways.items():
        of = "model" if way == "read back" else way
        known = report.intervals.get(way, {})
        yield from (_figure(name, value, known.get(name), count=count, of=of) for name, value in figures.items())


def _figure(measure: str, value: float, within: Interval | None, *, count: int, of: str) -> Figure:
    low, high = (None, None) if within is None else within
    return Figure(measure=measure, of=of, value=value, low=low, high=high, count=count)


def _of_obedience(report: ObedienceReport) -> Iterator[Figure]:
    for each in report.by_things:
        for name in _SHARES:
            share = getattr(each, name)
            if share is not None:
                found = Estimate(share, torch.zeros(each.prompts, dtype=torch.float64), share=True)
                yield figure(f"{name}, {each.things} things", found)


def _protocol(made: Mapping[str, Any], *, kind: Kind, count: int, split: str) -> Protocol:
    networks = [made[name] for name in ("judge", "lpips") if made.get(name)]
    data = made.get("data")
    reference = None
    if data is not None:
        known = {"name": data["name"], "pictures": data["pictures"], "hash": data["fingerprint"]}
        reference = Reference(split=split, **known)
    return Protocol(
        kind=kind,
        count=count,
        pictures=dict(made.get("preprocessing", {})),
        reference=reference,
        sampling=_plain(made.get("sample")),
        networks=tuple(Network(name=each["name"], hash=each["hash"]) for each in networks),
        details={name: value for name, value in made.items() if name not in _APART},
    )


def _plain(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Pairs as lists, which is what JSON keeps."""
    if values is None:
        return None
    return {name: list(each) if isinstance(each, tuple) else each for name, each in values.items()}

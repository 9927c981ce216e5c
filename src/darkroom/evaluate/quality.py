"""From two sets of pictures, drawn and real, to a card that says how near one is to the other."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import torch
from pydantic import JsonValue

from darkroom.core.compute import Compute
from darkroom.core.errors import InputError
from darkroom.core.pictures import from_bytes, to_pictures
from darkroom.core.shapes import Images, PerSample
from darkroom.core.shards import Progress, Shards
from darkroom.data.sources import ShapesSource, Subset
from darkroom.evaluate.card import (
    Card,
    Figure,
    Network,
    Protocol,
    Reference,
    check_comparable,
    here,
    time_since,
    versions,
)
from darkroom.evaluate.lots import Asking, Drawn, Lot, OfSource
from darkroom.evaluate.networks import EncoderEye
from darkroom.evaluate.protocol import few
from darkroom.evaluate.seen import Seen, see
from darkroom.metrics.agreement import obeys, read_scene
from darkroom.metrics.contributions import (
    LEVEL,
    RESAMPLES,
    Estimate,
    frechet,
    interval,
    kernel,
    mean_of,
    reach,
    score,
    share_of,
)
from darkroom.metrics.extractors import Extractor, FeatureNetwork, PairDistance
from darkroom.metrics.pairs import psnr, ssim
from darkroom.scenes.vocabulary import NAMED

KEPT: Final = 10_000  # pictures of each set whose features are compared pairwise
NEIGHBOURS: Final = 3
Tell = Callable[[str], Progress]


@final
@dataclass(frozen=True, eq=False)
class Pairs:
    """How each picture of a set is compared with the one it was asked by, or with the words it was asked by."""

    asking: Asking
    judge: Extractor
    lpips: PairDistance | None = None

    @property
    def completes(self) -> bool:
        """Is each picture made of a real one, so that they can be compared?"""
        return bool({"low_res", "masked"} & set(self.asking.model.fields))

    def plain(self) -> dict[str, JsonValue]:
        """The networks, by their weights."""
        return {"judge": self.judge.hash, "LPIPS": None if self.lpips is None else self.lpips.hash}


@final
@dataclass(frozen=True, eq=False)
class Measuring:
    """Two sets and all that says how they are compared.

    subject: what is measured, as JSON values · split: of the real pictures · pairs: None for pictures that were given ·
    folder: where features are kept, so that what was interrupted goes on · tell: makes what is told how far each part
    has come · against: a card, and its name, that the new one shall compare with.
    """

    subject: Mapping[str, JsonValue]
    made: Lot
    real: OfSource
    networks: Sequence[FeatureNetwork]
    folder: Path
    compute: Compute
    split: str = "all"
    pairs: Pairs | None = None
    notes: Sequence[str] = ()
    tell: Tell = field(default=lambda what: lambda done, total: None)
    against: tuple[Card, str] | None = None


def measure(work: Measuring) -> Card:
    """The card of one set of pictures beside another: each network's Fréchet distance and its like, then pairs.

    Features are kept in files, statistics are summed up from these; at most `KEPT` pictures of each set are in memory.
    `InputError` for fewer than two pictures of either set, and before anything is drawn for another protocol than that
    of `against`.
    """
    begun = time.monotonic()
    for name, lot in (("made", work.made), ("real", work.real)):
        if len(lot) < 2:
            raise InputError(f"{len(lot)} {name} pictures came; sets of 2 at least can be compared")
    _check_plan(work)
    if isinstance(work.made, Drawn):
        work.made.draw(work.tell("drawn"))
    figures, hashes = list[Figure](), dict[str, str]()
    widths: list[tuple[str, int]] = []
    for network in work.networks:
        real = see(work.real, network, folder=work.folder, on_row=work.tell(f"{network.name}: real pictures"))
        made = see(work.made, network, folder=work.folder, on_row=work.tell(f"{network.name}: made pictures"))
        figures += _of_sets(made, real, network=network)
        if work.pairs is not None:
            figures += _of_words(made, network=network, asking=work.pairs.asking)
        hashes = {"made": made.hash, "real": real.hash}
        widths.append((network.name, made.width))
    if work.pairs is not None:
        figures += _of_pairs(work, work.pairs)
    return Card(
        subject={**work.subject, "pictures": len(work.made), "pixels": hashes["made"]},
        protocol=_protocol(work, reference=hashes["real"]),
        figures=tuple(figures),
        notes=(*work.notes, *_warnings(work, widths)),
        versions=versions(),
        machine=here(work.compute),
        time=time_since(begun),
    )


def _check_plan(work: Measuring) -> None:
    """All of the protocol but what is known when every real picture was seen."""
    if work.against is not None:
        card, where = work.against
        known = "" if card.protocol.reference is None else card.protocol.reference.hash
        check_comparable(_protocol(work, reference=known), card.protocol, where=where)


def figure(measure: str, estimate: Estimate, *, network: str | None = None, exp: bool = False) -> Figure:
    """A figure with its interval; exp: of the exponential of what was estimated."""
    within = interval(estimate)
    low, high = (None, None) if within is None else within
    values = {"value": estimate.value, "low": low, "high": high}
    if exp:
        values = {
            name: None if each is None else float(torch.tensor(each).double().exp()) for name, each in values.items()
        }
    return Figure.model_validate(
        {"measure": measure, "network": network, "count": len(estimate.contributions), **values}
    )


def _of_sets(made: Seen, real: Seen, *, network: FeatureNetwork) -> Iterator[Figure]:
    """Through one network."""
    value, pull = frechet(made.gaussian(), real.gaussian())
    parts = torch.cat([pull.of(part) for part in made.shards.each("features")])
    yield figure("Fréchet distance", Estimate(value, parts), network=network.name)
    some, others = made.some(KEPT), real.some(KEPT)
    yield figure("kernel distance", kernel(some, others), network=network.name)
    if min(len(some), len(others)) > NEIGHBOURS:
        for name, estimate in zip(("precision", "recall"), reach(others, some, k=NEIGHBOURS), strict=True):
            yield figure(name, estimate, network=network.name)
    if "logits" in made.shards.read(0):
        yield figure("inception score", score(made.logits), network=network.name, exp=True)


def _of_words(made: Seen, *, network: FeatureNetwork, asking: Asking) -> Iterator[Figure]:
    """How well pictures fit the captions they were asked by, where the network knows words."""
    if not isinstance(network, EncoderEye) or network.texts is None or asking.captions is None:
        return
    done, found = 0, list[PerSample]()
    for part in made.shards.each("features"):
        found.append(network.texts.score(part, asking.captions[done : done + len(part)]))
        done += len(part)
    yield figure("CLIP score", mean_of(torch.cat(found)), network=network.name)


def _of_pairs(work: Measuring, pairs: Pairs) -> Iterator[Figure]:
    """Each picture with what it was asked by, kept on disk too."""
    asking, source = pairs.asking, pairs.asking.source
    reads = _reading(asking)
    if source is None or not (pairs.completes or reads):
        return
    wanted = OfSource(Subset(source, asking.rows), work.real.transform)

    def make(rows: range) -> dict[str, torch.Tensor]:
        made = from_bytes(work.made.pictures(rows))
        found = _alike(from_bytes(wanted.pictures(rows)), made, pairs=pairs) if pairs.completes else {}
        seen = [read_scene(picture) for picture in to_pictures(made)] if reads else []
        for name, right in reads.items():
            answers = [right(number, things) for number, things in zip(rows, seen, strict=True)]
            found[name] = torch.tensor(answers, dtype=torch.float64)
        return found

    lpips = None if pairs.lpips is None else pairs.lpips.hash
    place = f"pairs-{work.made.key()}-{pairs.judge.hash}-{lpips or 'without'}"
    shards = Shards(work.folder / place, len(work.made), 64)
    shards.fill(make, on_row=work.tell("pairs"))
    for name in sorted(shards.read(0)):
        values = torch.cat(list(shards.each(name)))
        yield figure(name, share_of(values) if name in reads else mean_of(values))


@torch.no_grad()
def _alike(wanted: Images, made: Images, *, pairs: Pairs) -> dict[str, torch.Tensor]:
    found = {
        "PSNR (dB)": psnr(wanted, made),
        "SSIM": ssim(wanted, made),
        "judge distance": pairs.judge.distance(wanted, made),
    }
    if pairs.lpips is not None:
        found["LPIPS"] = pairs.lpips(wanted, made)
    return {name: values.double().cpu() for name, values in found.items()}


def _reading(asking: Asking) -> dict[str, Callable[..., bool]]:
    """What can be read back from a picture of the built-in world, by number of the picture and things seen."""
    source, rows = asking.source, asking.rows
    if not isinstance(source.source if isinstance(source, Subset) else source, ShapesSource) or source is None:
        return {}
    found: dict[str, Callable[..., bool]] = {}
    said = asking.captions
    if said is not None:
        found["caption obeyed"] = lambda number, seen: obeys(
            seen, said[number], unnamed=max(0, len(source.objects(rows[number]) or ()) - NAMED)
        )
    if "label" in asking.model.fields:
        found["class right"] = lambda number, seen: (
            [each.shape for each in seen] == [source.classes[source.label(rows[number]) or 0]]
        )
    return found


def _protocol(work: Measuring, *, reference: str) -> Protocol:
    transform, asking = work.real.transform, None if work.pairs is None else work.pairs.asking
    asked: dict[str, JsonValue] | None = None
    if asking is not None and asking.source is not None:
        fields: list[JsonValue] = [*asking.model.fields]
        asked = {"fields": fields, "rows": asking.source.fingerprint(), "spoiling": asking.spoiling.plain()}
    return Protocol(
        kind="set",
        count=len(work.made),
        pictures={
            "size": transform.size,
            "channels": transform.channels,
            "resize": "shorter side, bicubic with antialiasing",
            "crop": "centre",
            "levels": "8 bits",
        },
        reference=Reference(name=work.real.source.name, split=work.split, pictures=len(work.real), hash=reference),
        asked=asked,
        sampling=None if asking is None else asking.sampling(),
        networks=tuple(
            Network(name=each.name, hash=each.hash, preprocessing=dict(each.preprocessing)) for each in work.networks
        ),
        statistics={
            "covariance": "divided by count - 1",
            "pairwise": f"at most {KEPT} pictures of each set",
            "neighbours": NEIGHBOURS,
            "kernel": "(x·y / d + 1)³",
            "inception score": "one split",
            **({"pairs": work.pairs.plain()} if work.pairs is not None and work.pairs.completes else {}),
            "intervals": f"{LEVEL:.0%}, bootstrap of {RESAMPLES} resamples, first order; of shares Wilson's",
        },
    )


def _warnings(work: Measuring, widths: Sequence[tuple[str, int]]) -> Iterator[str]:
    """What a reader of small counts has to know."""
    count, known = len(work.made), len(work.real)
    least = min(count, known)
    for name, width in widths:
        if least <= width:
            yield (
                f"{name}: a covariance of {width} features cannot be known from {least} pictures; its Fréchet distance "
                "compares only with others of as many pictures, and its interval is a guess"
            )
    yield from few(least)
    if known < count:
        yield f"there are fewer real pictures ({known}) than made ones ({count})"
    side = work.real.transform.size
    enlarged = sum(min(work.real.source.size(row)) < side for row in range(known))
    if enlarged:
        yield f"{enlarged} of {known} real pictures are smaller than {side} pixels and were enlarged"
    if any(network.name == "judge" for network in work.networks):
        yield "distances through the judge that comes with the package do not compare with published FIDs"

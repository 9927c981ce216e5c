"""A card for people: lines of a terminal, Markdown, and a page that stands alone, with pictures."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

from PIL import Image

from darkroom.core.pictures import contact_sheet
from darkroom.core.record import atomic, writable_folder, write_json
from darkroom.evaluate.card import Card, Figure
from darkroom.pages.markup import Html, details, document, element, figures, image, paragraphs, section, table

SHOWN: Final = 64  # pictures of each set
SHEET: Final = 1024  # pixels of a sheet's side, at most
_INCEPTION: Final = {"Fréchet distance": "FID", "kernel distance": "KID"}
_LOWER: Final = frozenset({"distance", "lpips", "l1", "shuffled"})  # words of measures that are better when lower
_SPREAD: Final = frozenset({"std", "deviation"})  # of those of which neither is better


@final
@dataclass(frozen=True)
class Compared:
    """A figure of two cards. apart: do their intervals not overlap; None without intervals."""

    figure: str
    here: float
    there: float
    better: str
    apart: bool | None

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def compare(card: Card, other: Card) -> tuple[Compared, ...]:
    """Every figure that both cards have, for cards that were found to compare."""
    theirs = {label(each): each for each in other.figures}
    return tuple(_compared(each, theirs[label(each)]) for each in card.figures if label(each) in theirs)


def label(figure: Figure) -> str:
    """What a figure is called: FID and KID are the distances through Inception."""
    if figure.network == "inception" and figure.measure in _INCEPTION:
        name = _INCEPTION[figure.measure]
    else:
        name = figure.measure if figure.network is None else f"{figure.measure}, {figure.network}"
    return name if figure.of == "model" else f"{name}, {figure.of}"


def lines(card: Card) -> str:
    """The card for a terminal."""
    named = [(label(each), f"{each.value:.5g}", _range(each), str(each.count)) for each in card.figures]
    width = max((len(name) for name, *_ in named), default=0) + 2
    rows = [f"{'':<{width}}{'figure':>12}  {'95 %':<24}{'of':>8}"]
    rows += [f"{name:<{width}}{value:>12}  {between:<24}{count:>8}" for name, value, between, count in named]
    return "\n".join([*rows, "", *_summary(card), *(f"note: {sentence}" for sentence in card.notes)])


def beside(compared: Sequence[Compared]) -> str:
    """The figures of two cards for a terminal."""
    width = max((len(each.figure) for each in compared), default=0) + 2
    return "\n".join(["", *(f"{each.figure:<{width}}{each.here:>12.5g}  {_verdict(each)}" for each in compared)])


def write_card(folder: Path, card: Card, *, pictures: Mapping[str, Sequence[Image.Image]], other: Card | None) -> None:
    """`card.json`, `card.md` and `card.html` in a folder, each whole or not at all.

    pictures: some of each set, by what they are called on the page · other: a card that this one compares with.
    """
    writable_folder(folder)
    compared = () if other is None else compare(card, other)
    name = "" if other is None else other.name
    texts = {
        "card.md": markdown(card, compared, against=name),
        "card.html": page(card, compared, against=name, pictures=pictures),
    }
    for file, text in texts.items():
        with atomic(folder / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(folder / "card.json", card.plain())


def markdown(card: Card, compared: Sequence[Compared] = (), *, against: str = "") -> str:
    """The card as Markdown."""
    parts = [f"# {card.name}", "", *_table(("figure", "value", "95 %", "of"), _figures(card))]
    if compared:
        parts += ["", f"## Beside {against}", "", *_table(("figure", "here", "there", "better"), _beside(compared))]
    parts += ["", "## Protocol", "", *_table(("", ""), _protocol(card))]
    parts += ["", "## Subject, machine and versions", "", *_table(("", ""), _made(card))]
    if card.notes:
        parts += ["", "## Notes", "", *(f"- {sentence}" for sentence in card.notes)]
    return "\n".join(parts) + "\n"


def page(
    card: Card, compared: Sequence[Compared] = (), *, against: str, pictures: Mapping[str, Sequence[Image.Image]]
) -> str:
    """The card as one HTML file that needs nothing else."""
    tiles = [(label(each), f"{each.value:.4g}", _said(each)) for each in card.figures]
    parts = [
        element("h1", card.name),
        *_opening(_summary(card)),
        figures(tiles),
        *(
            [section(f"Beside {against}", table(("figure", "here", "there", "better"), _beside(compared)))]
            if compared
            else []
        ),
        *([section("Pictures", _sheets(pictures))] if any(pictures.values()) else []),
        section("Protocol", table(("field", "value"), _protocol(card))),
        section("Subject, machine and versions", table(("field", "value"), _made(card))),
    ]
    if card.notes:
        parts.append(section("Notes", paragraphs(card.notes)))
    parts.append(details("All figures", table(("figure", "value", "95 %", "of"), _figures(card))))
    return document(f"{card.name}: card", *parts)


def _opening(sentences: Sequence[str]) -> list[str]:
    """The first one large."""
    return [paragraphs(sentences[:1], css="lead"), paragraphs(sentences[1:], css="soft")]


def _sheets(pictures: Mapping[str, Sequence[Image.Image]]) -> Html:
    """Some of each set, side by side."""
    sheets = []
    for name, several in pictures.items():
        shown = several[:SHOWN]
        said = f"{len(shown)} {name} pictures"
        picture = image(contact_sheet(shown), alt=said, most=SHEET)
        sheets.append(element("figure", picture, element("figcaption", said)))
    return element("div", *sheets, css="cards")


def _compared(figure: Figure, other: Figure) -> Compared:
    words = set(re.findall(r"\w+", figure.measure.casefold()))
    gap = other.value - figure.value if words & _LOWER else figure.value - other.value
    better = "the same" if gap == 0 else "neither" if words & _SPREAD else "this one" if gap > 0 else "the other"
    apart = None
    if figure.low is not None and figure.high is not None and other.low is not None and other.high is not None:
        apart = figure.high < other.low or other.high < figure.low
    return Compared(label(figure), figure.value, other.value, better, apart)


def _verdict(each: Compared) -> str:
    if each.better == "the same":
        return f"and {each.there:.5g}: the same"
    sure = {None: "", True: ", beyond chance", False: ", which may be chance"}[each.apart]
    return f"and {each.there:.5g}: {each.better} is better{sure}"


def _beside(compared: Sequence[Compared]) -> list[tuple[str, ...]]:
    return [
        (each.figure, f"{each.here:.5g}", f"{each.there:.5g}", _verdict(each).partition(": ")[2]) for each in compared
    ]


def _range(figure: Figure) -> str:
    return "" if figure.low is None or figure.high is None else f"{figure.low:.5g} to {figure.high:.5g}"


def _said(figure: Figure) -> str:
    between = _range(figure)
    return f"{between}, of {figure.count}" if between else f"of {figure.count}"


def _figures(card: Card) -> list[tuple[str, ...]]:
    return [(label(each), f"{each.value:.6g}", _range(each), str(each.count)) for each in card.figures]


def _summary(card: Card) -> list[str]:
    """What was compared, in one sentence, and how it was drawn in another."""
    protocol = card.protocol
    first = f"{protocol.count} pictures of {card.name}"
    if protocol.reference is not None:
        known = protocol.reference
        first += f", beside {known.pictures} of {known.name} ({known.split}, {known.hash})"
    drawn = protocol.sampling or {}
    second = ", ".join(f"{name} {value}" for name, value in drawn.items() if value is not None)
    return [first, second] if second else [first]


def _protocol(card: Card) -> list[tuple[str, ...]]:
    return list(_flat(card.protocol.plain(), place=""))


def _made(card: Card) -> list[tuple[str, ...]]:
    values = {"subject": card.subject, "machine": card.machine, "versions": card.versions, "time": card.time}
    return list(_flat(values, place=""))


def _flat(value: Any, *, place: str) -> Iterator[tuple[str, str]]:
    """Leaves of JSON values with the way to them; what says nothing is left out."""
    match value:
        case Mapping():
            for key, inner in value.items():
                yield from _flat(inner, place=f"{place}.{key}" if place else str(key))
        case [*items] if any(isinstance(each, Mapping) for each in items):
            for number, inner in enumerate(items):
                yield from _flat(inner, place=f"{place}.{number}")
        case None:
            pass
        case [*items]:
            if items:
                yield place, ", ".join(map(str, items))
        case _:
            yield place, str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruled = [f"|{'---|' * len(head)}"]
    return [_row(head), *ruled, *(_row(each) for each in rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

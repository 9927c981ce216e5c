"""The pictures on a run's page: samples, the training pictures nearest to them, reconstructions."""

from collections.abc import Sequence

from PIL import Image

from darkroom.core.pictures import GAP
from darkroom.metrics.neighbours import ALARMS, NEAR, SIDE, Memorisation
from darkroom.pages.markup import Html, element, image, paragraphs, section
from darkroom.pages.plot import number, percent
from darkroom.recipes.report.look_back import LookBack, Neighbour, Sample

LARGE, SMALL = 256, 160  # pixels of a side at most: samples, and what stands beside them
SURE = 0.01  # a chance small enough to say that a model copies
Tiles = list[list[Image.Image]]


def samples(look: LookBack) -> Html:
    """The samples with what was asked for."""
    shown = [_pair(each) for each in look.samples]
    return section(
        "Samples",
        element("div", *shown, css="pictures"),
        element("p", f"Drawn with {look.drawn}. None was picked out.", css="soft"),
    )


def _pair(sample: Sample) -> Html:
    """A sample, beside what it was asked to follow where that is a picture."""
    drawn = _figure(sample.picture, alt=_alt(sample), caption=sample.asked, most=LARGE)
    if sample.given is None:
        return drawn
    return element("div", _figure(sample.given, alt="Asked for", caption="asked for", most=LARGE), drawn, css="row")


def preview(sheet: Image.Image, *, side: int, step: int) -> Html:
    """The samples drawn last during training, cut from their sheet; side: in pixels."""
    said = f"Drawn during training, at step {number(step)}." if step else "Drawn during training."
    tiles = cut_sheet(sheet, side=side)
    if tiles is None:
        shown = image(sheet, alt="Samples drawn during training, side by side", most=1024)
    else:
        drawn = _filled([each for row in tiles for each in row])
        figures = (_figure(each, alt="Sample", caption="", most=LARGE) for each in drawn)
        shown = element("div", *figures, css="pictures")
    return section("Samples", shown, element("p", said, css="soft"))


def neighbours(look: LookBack) -> Html:
    """Each sample beside its nearest training pictures, the most suspicious first."""
    memory = look.memorisation
    ranked = sorted(look.samples, key=lambda each: each.closeness)
    return section(
        "Nearest training pictures",
        *([] if _certain(memory) else [element("p", verdict(memory))]),  # the warning stands on top of the page
        paragraphs(reservations(look)),
        element("div", *(_card(each) for each in ranked), css="cards"),
        paragraphs(_explained(memory), css="soft"),
    )


def warning(memory: Memorisation) -> Html:
    """For the top of the page, when samples are copies more often than chance and unseen pictures explain."""
    if not _certain(memory):
        return Html()
    return element(
        "p", element("strong", "It copies."), f" {verdict(memory)}", css="warning", attributes={"role": "note"}
    )


def _certain(memory: Memorisation) -> bool:
    return memory.evident and memory.luck <= SURE


def verdict(memory: Memorisation) -> str:
    """Does the model copy? In a few sentences."""
    copies, count = memory.copies, len(memory.copied)
    if not copies:
        return f"None of {count} samples is a near copy of a training picture."
    are = "is a near copy of a training picture" if copies == 1 else "are near copies of training pictures"
    found = f"{copies} of {count} samples {are}"
    beside = f"{number(memory.unseen_copied)} of {number(memory.unseen)} pictures that training never saw"
    if not memory.evident:
        return (
            f"{found}, but the same rule finds {beside}: this data holds near duplicates, so it cannot be told whether "
            "the model copies."
        )
    if memory.luck > SURE:
        return (
            f"{found}; the same rule finds {beside}, so it may be chance ({percent(memory.luck)}). Look at what is "
            "marked below, and draw more samples to be sure."
        )
    return (
        f"{found}; the same rule finds {beside}. The model has learnt pictures by heart: look at what is marked below "
        "before you pass samples on as new. More pictures or fewer steps help."
    )


def reservations(look: LookBack) -> list[str]:
    """What makes the verdict weaker than it sounds."""
    memory, said = look.memorisation, list[str]()
    if memory.known and memory.found < memory.known / 2:
        said.append(
            f"The rule is nearly blind here: of {memory.known} training pictures sent through the first stage, which "
            f"are copies by making, it finds {memory.found}."
        )
    least = round(1 / ALARMS) - 1
    if memory.unseen - memory.duplicates < least:
        said.append(
            f"Only {number(memory.unseen - memory.duplicates)} unseen pictures say how near is near, so the rule is "
            f"rough; {least} or more would be better."
        )
    if memory.duplicates:
        said.append(
            f"{number(memory.duplicates)} of {number(memory.unseen)} test pictures are themselves near duplicates of "
            "training pictures."
        )
    if look.compared < look.training:
        said.append(
            f"{number(look.compared)} of {number(look.training)} training pictures were compared, evenly chosen."
        )
    return said


def reconstructions(tiles: Tiles, *, rows: Sequence[str]) -> Html:
    """Columns of test pictures above what the first stage makes of them; rows: what each row shows."""
    columns: list[Html] = []
    for place, column in enumerate(zip(*tiles, strict=True), start=1):
        named = zip(rows, column, strict=True)
        columns.append(element("figure", *(image(each, alt=f"{row} {place}", most=SMALL) for row, each in named)))
    return element("div", *columns, css="pairs")


def cut_sheet(sheet: Image.Image, *, side: int) -> Tiles | None:
    """The rows of a contact sheet as pictures again; None when the sheet has other pictures than `side` pixels wide."""
    across, down = ((length - GAP) / (side + GAP) for length in sheet.size)
    if across % 1 or down % 1 or across < 1 or down < 1:
        return None
    places = [[GAP + number * (side + GAP) for number in range(int(count))] for count in (across, down)]
    return [[sheet.crop((x, y, x + side, y + side)) for x in places[0]] for y in places[1]]


def _filled(tiles: list[Image.Image]) -> list[Image.Image]:
    """Without the white places that end a sheet."""
    white = ((255, 255),) * 3
    last = max((place for place, each in enumerate(tiles) if each.getextrema() != white), default=len(tiles) - 1)
    return tiles[: last + 1]


def _card(sample: Sample) -> Html:
    given = [] if sample.given is None else [_figure(sample.given, alt="Asked for", caption="asked for", most=SMALL)]
    drawn = _figure(sample.picture, alt=_alt(sample), caption=sample.asked or "sample", most=SMALL)
    beside = [_neighbour(each) for each in sample.neighbours]
    badge = [element("span", "near copy", css="badge")] if sample.copied else []
    return element(
        "article",
        *badge,
        element("div", *given, drawn, *beside, css="row"),
        css="card copied" if sample.copied else "card",
    )


def _neighbour(found: Neighbour) -> Html:
    said = found.caption or found.name
    picture = image(found.picture, alt=f"Training picture {found.name}", most=SMALL)
    words = element("span", said, css="clip", attributes={"title": f"{found.name}: {said}"})
    return element("figure", picture, element("figcaption", element("strong", f"{found.distance:.3f}"), " ", words))


def _figure(picture: Image.Image, *, alt: str, caption: str, most: int) -> Html:
    words = [element("figcaption", caption, css="clip", attributes={"title": caption})] if caption else []
    return element("figure", image(picture, alt=alt, most=most), *words)


def _alt(sample: Sample) -> str:
    return f"Sample: {sample.asked}" if sample.asked else "Sample"


def _explained(memory: Memorisation) -> list[str]:
    seen = ""
    if memory.known and memory.found >= memory.known / 2:
        seen = (
            f" Of {memory.known} training pictures sent through the first stage, which are copies by making, the rule "
            f"finds {memory.found}; of {number(memory.unseen)} pictures that training never saw, "
            f"{number(memory.unseen_copied)}."
        )
    half, chance = percent(0.5), percent(memory.chance, digits=1)
    return [
        f"The figures are distances: root mean square differences of {SIDE} × {SIDE} fields, 0 for equal pictures, 1 "
        f"for black against white. From a sample to its nearest training picture it is {memory.distance:.3f} in the "
        f"median, from a picture that training never saw {memory.unseen_distance:.3f}; in {percent(memory.nearer)} of "
        f"pairs the sample is the nearer one ({half} where a model draws pictures as new as those).",
        f"A near copy is nearer to a training picture than {memory.limit:.2f} times its mean distance to its {NEAR} "
        "nearest (Carlini et al. 2023). The limit is set by the test pictures: one as new as they are would be called "
        f"a copy with a chance of {chance} at most.{seen} The rule sees copies of whole pictures, not of parts.",
    ]

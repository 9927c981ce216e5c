"""What a study found, written for people and programs: Markdown, JSON, plots as SVG, one HTML page."""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

from darkroom.core.record import atomic, writable_folder, write_json
from darkroom.pages.figure import Figure
from darkroom.pages.markup import Html, document, element, paragraphs, section, table
from darkroom.studies.cells import Study
from darkroom.studies.reading import Reading, Table
from darkroom.train.events import Event, Wrote


def write(folder: Path, study: Study, *, reading: Reading) -> Iterator[Event]:
    """`study.md`, `results.json`, `study.html` and the plots, each whole or not at all."""
    drawn = {name: figure.svg() for name, figure in reading.plots.items()}
    drawn = {name: svg for name, svg in drawn.items() if svg}
    texts = {
        **{f"{name}.svg": str(svg) for name, svg in drawn.items()},
        "study.md": markdown(study, reading, plots=list(drawn)),
        "study.html": _page(study, reading, drawn),
    }
    for name, text in texts.items():
        with atomic(writable_folder(folder) / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(folder / "results.json", {"study": study.name, "question": study.question, **reading.plain()})
    yield Wrote("study", folder / "study.html")


def markdown(study: Study, reading: Reading, *, plots: Sequence[str]) -> str:
    """Tables, plots by reference, notes."""
    parts = [f"# {study.name}", "", study.question]
    for each in reading.tables:
        parts += ["", *markdown_table(each)]
    for name in plots:
        parts += ["", f"![{reading.plots[name].title}]({name}.svg)"]
    if reading.notes:
        parts += ["", *(f"- {sentence}" for sentence in reading.notes)]
    return "\n".join(parts) + "\n"


def markdown_table(table: Table) -> list[str]:
    """A heading, where numbers come from, rows."""
    named = [f"From {table.source}.", ""] if table.source else []
    rows = [table.head, ["---"] * len(table.head), *table.rows]
    return [f"## {table.title}", "", *named, *(f"| {' | '.join(_cell(each) for each in row)} |" for row in rows)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _page(study: Study, reading: Reading, drawn: dict[str, Html]) -> str:
    tables = [
        section(each.title, paragraphs([f"From {each.source}."] if each.source else [], css="soft"), _rows(each))
        for each in reading.tables
    ]
    plots = [_picture(reading.plots[name], svg) for name, svg in drawn.items()]
    parts = [
        element("h1", study.name),
        paragraphs([study.question], css="lead"),
        *tables,
        *([section("Plots", element("div", *plots, css="charts"))] if plots else []),
        *([section("Notes", paragraphs(reading.notes))] if reading.notes else []),
    ]
    return document(f"Study: {study.name}", *parts)


def _rows(each: Table) -> Html:
    return table(each.head, each.rows)


def _picture(figure: Figure, svg: Html) -> Html:
    """The drawing as data, so that neither style sheet knows of the other."""
    data = base64.b64encode(svg.encode()).decode()
    return element("img", attributes={"src": f"data:image/svg+xml;base64,{data}", "alt": figure.title})

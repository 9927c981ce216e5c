"""The page that a run ends with: one HTML file with all pictures in it, to be kept, or sent to a friend."""

import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch

from darkroom.core.pictures import open_picture
from darkroom.core.record import atomic
from darkroom.core.shapes import Number
from darkroom.pages.markup import (
    Html,
    code,
    details,
    document,
    element,
    figures,
    image,
    joined,
    paragraphs,
    section,
    table,
)
from darkroom.pages.plot import number
from darkroom.recipes.advice import few
from darkroom.recipes.clock import RECIPE
from darkroom.recipes.describe import count, latent_shape
from darkroom.recipes.read import read_recipe
from darkroom.recipes.report import gallery
from darkroom.recipes.report.commands import Command, Example, own_commands, python_lines
from darkroom.recipes.report.course import STAGES, Course, courses
from darkroom.recipes.report.look_back import LookBack
from darkroom.recipes.schema import Recipe

PAGE: Final = "report.html"
CLASSES: Final = 24  # shown before the rest is folded away
REASONS: Final = 10


@final
@dataclass(frozen=True)
class Data:
    """The pictures of a run.

    train: what `data.summary` answers of the training set · test: how many pictures were kept apart · left_out: (name,
    reason) of all that were left out.
    """

    train: Mapping[str, Any]
    test: int
    left_out: Sequence[tuple[str, str]] = ()


@final
@dataclass(frozen=True)
class _Run:
    """What the page is about."""

    folder: Path
    recipe: Recipe
    text: str
    courses: list[Course]
    look: LookBack | None
    data: Data | None

    @property
    def finished(self) -> bool:
        return (self.folder / "model.safetensors").exists()

    @property
    def example(self) -> Example:
        """A prompt and a label that the model understands."""
        drawn = self.look.samples[0] if self.look is not None else None
        denoiser, classes = self.recipe.denoiser, () if self.data is None else self.data.train.get("classes", {})
        prompts = () if denoiser is None else denoiser.sample.prompts
        return Example(
            prompt=(drawn and drawn.prompt) or next(iter(prompts), "a picture"),
            label=(drawn and drawn.label) or next(iter(classes), "0"),
        )

    def course(self, stage: str) -> Course | None:
        return next((each for each in self.courses if each.stage == stage), None)


def write_page(
    folder: Path,
    *,
    look: LookBack | None = None,
    data: Data | None = None,
    commands: Sequence[Command] = (),
    machine: str | None = None,
) -> Path:
    """`report.html` of a run folder, written anew, atomically; what is not there yet is left out with a sentence.

    look: samples and their neighbours (`look_back`) · commands: what else can be done with the run, such as going on ·
    machine: where it was trained, in words (`this_machine`). The rest is read from the folder: recipe, logs, reports,
    reconstructions. Nothing on the page is fetched from elsewhere and nothing in it runs.
    """
    recipe = read_recipe(folder / RECIPE)
    text = (folder / RECIPE).read_text(encoding="utf-8")
    run = _Run(folder, recipe, text, courses(folder, recipe), look, data)
    page = document(
        f"{recipe.name}: a run of Darkroom",
        _header(run),
        _samples(run),
        _neighbours(run),
        _reconstructions(run),
        _course(run, machine),
        _data(run),
        _use(run, commands),
        _recipe(run),
        element("footer", "Written by Darkroom at the end of training. This file is complete in itself."),
    )
    with atomic(folder / PAGE) as temporary:
        temporary.write_bytes(page.encode("utf-8", errors="replace"))  # file names may hold bytes that are no text
    return folder / PAGE


def this_machine(device: torch.device) -> str:
    """What trains here, in words."""
    accelerator = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    kind = f"{platform.system()} on {platform.machine()}, PyTorch {torch.__version__}"
    return f"{accelerator}{os.cpu_count()} CPU cores, {kind}"


def duration(seconds: Number) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _header(run: _Run) -> Html:
    warned = Html() if run.look is None else gallery.warning(run.look.memorisation)
    return element(
        "header",
        element("h1", run.recipe.name),
        element("p", run.recipe.summary, css="lead"),
        element("p", _state(run), css="soft"),
        warned,
        figures(_tiles(run)),
    )


def _state(run: _Run) -> str:
    """Is it finished, and if not, where does it stand?"""
    made = [f"{number(each.steps)} steps of the {each.name}" for each in run.courses]
    if run.finished:
        seconds = sum(each.seconds for each in run.courses)
        short = few(run.recipe)
        trained = f"Trained for {' and '.join(made)}, in {duration(seconds)}." if made else "Finished."
        return f"{trained} {short}." if short else trained
    for each in run.courses:
        if each.steps < each.wanted:
            return f"Not finished: the {each.name} stands at step {number(each.steps)} of {number(each.wanted)}."
    return "Not finished: there is no model file yet."


def _tiles(run: _Run) -> list[tuple[str, str, str]]:
    """The key figures: (name, value, what else)."""
    size, first, second = run.recipe.data.size, run.course("first_stage"), run.course("denoiser")
    tiles: list[tuple[str, str, str]] = []
    if run.data is not None:
        kept = f"and {number(run.data.test)} kept apart for testing"
        tiles.append(("Training pictures", number(run.data.train["count"]), kept))
    latent = "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}".join(map(str, latent_shape(run.recipe)))
    tiles.append(("Picture", f"{size} × {size}", f"pixels; latent {latent}"))
    tiles.append(("Parameters", _millions(sum(count(run.recipe).values())), ""))
    if first is not None and "psnr" in first.report:
        beside = f"bicubic {first.report['bicubic_psnr']:.2f} dB" if "bicubic_psnr" in first.report else ""
        tiles.append(("Reconstruction", f"{first.report['psnr']:.2f} dB", beside))
    if second is not None and "validation_loss" in second.report:
        lowest = min((value for _, value in second.points("validation_loss")), default=None)
        best = "" if lowest is None else f"lowest {lowest:#.4g}"
        tiles.append(("Validation loss", f"{second.report['validation_loss']:#.4g}", best))
    if run.look is not None:
        memory = run.look.memorisation
        tiles.append(("Near copies", f"{memory.copies} of {len(memory.copied)}", "samples"))
    return tiles


def _samples(run: _Run) -> Html:
    if run.look is not None:
        return gallery.samples(run.look)
    if run.recipe.denoiser is None:
        return Html()
    sheet, course = run.folder / "denoiser" / "samples.png", run.course("denoiser")
    if not sheet.exists():
        return section("Samples", element("p", "There are none yet: the denoiser has not drawn any."))
    step = 0 if course is None else course.report.get("step", 0)
    return gallery.preview(open_picture(sheet), side=run.recipe.data.size, step=step)


def _neighbours(run: _Run) -> Html:
    if run.look is not None:
        return gallery.neighbours(run.look)
    if run.recipe.denoiser is None:
        return Html()
    said = "Samples are compared with the training pictures when the model is finished."
    if run.finished:
        said = "Samples of this model were not compared with its training pictures."
    return section("Nearest training pictures", element("p", said))


def _reconstructions(run: _Run) -> Html:
    course, path = run.course("first_stage"), run.folder / "first_stage" / "reconstructions.png"
    if course is None:
        return Html()
    if not path.exists():
        return section("Reconstructions", element("p", "There are none yet."))
    rows, said = ["Test picture", "Reconstruction"], "below it what the first stage makes of it"
    if run.recipe.first_stage.only is not None:
        rows = ["Test picture", "Reconstruction by the full decoder", "Reconstruction by the decoder trained here"]
        said = "below it what the full decoder makes of its latent, then what the decoder trained here makes of it"
    sheet = open_picture(path)
    tiles = gallery.cut_sheet(sheet, side=run.recipe.data.size)
    if tiles is None or len(tiles) != len(rows):
        shown = image(sheet, alt="Test pictures above their reconstructions", most=2048)
    else:
        shown = gallery.reconstructions(tiles, rows=rows)
    return section("Reconstructions", element("p", f"Above a test picture, {said}."), shown, _compared(course.report))


def _compared(report: Mapping[str, Any]) -> Html:
    """What reconstructions are worth beside making pictures smaller and larger again."""
    if "psnr" not in report:
        return element("p", "They are measured when the first stage is finished.")
    columns = {"": "this first stage", "full_": "the full decoder", "bicubic_": "bicubic at the same factor"}
    present = {prefix: words for prefix, words in columns.items() if f"{prefix}psnr" in report}
    measures = {"psnr": ("PSNR, dB (higher is better)", 2), "distance": ("feature distance (lower is better)", 4)}
    rows = [
        [words, *(f"{report[prefix + key]:.{digits}f}" for prefix in present)]
        for key, (words, digits) in measures.items()
        if all(prefix + key in report for prefix in present)
    ]
    said = f"Means over {number(report['pictures'])} test pictures." if "pictures" in report else ""
    return joined([table(["", *present.values()], rows), paragraphs([said], css="soft")])


def _course(run: _Run, machine: str | None) -> Html:
    if not run.courses:
        return Html()
    parts: list[Html] = []
    for each in run.courses:
        charts = each.charts()
        shown = element("div", *charts, css="charts") if charts else element("p", "Nothing is logged yet.")
        parts += [element("h3", each.name.capitalize()), paragraphs(each.sentences()), shown]
    rows = [
        [each.name, f"{number(each.steps)} of {number(each.wanted)}", duration(each.seconds), _rate(each)]
        for each in run.courses
    ]
    spent = table(["", "steps", "time", "pictures a second"], rows)
    return section("Training", *parts, spent, paragraphs([f"On {machine}." if machine else ""], css="soft"))


def _rate(course: Course) -> str:
    rates = sorted(value for _, value in course.points("pictures_per_second"))
    return number(rates[len(rates) // 2]) if rates else "–"


def _data(run: _Run) -> Html:
    if run.data is None:
        return Html()
    train, license_ = run.data.train, run.recipe.data.license
    sizes = " × ".join(_extent(train[side]) for side in ("width", "height") if side in train)
    rows = [
        ["training pictures", number(train["count"])],
        ["test pictures", number(run.data.test)],
        *([["width × height, pixels", sizes]] if sizes else []),
        ["fields", ", ".join(train.get("fields", ())) or "none"],
        *([["licence", license_]] if license_ else []),
    ]
    return section(
        "Data", table(["", str(train.get("name", ""))], rows), _classes(train.get("classes", {})), _left_out(run.data)
    )


def _classes(counts: Mapping[str, int]) -> Html:
    if not counts:
        return Html()
    ranked = sorted(counts.items(), key=lambda pair: -pair[1])
    parts = [element("h3", f"{number(len(ranked))} classes"), _chips(ranked[:CLASSES])]
    if len(ranked) > CLASSES:
        parts.append(details(f"the other {number(len(ranked) - CLASSES)}", _chips(ranked[CLASSES:])))
    return joined(parts)


def _chips(counts: Iterable[tuple[str, int]]) -> Html:
    items = (element("li", f"{name} ", element("b", number(times))) for name, times in counts)
    return element("ul", *items, css="chips")


def _left_out(data: Data) -> Html:
    """How many pictures were left out for which reason, and all of them by name."""
    if not data.left_out:
        return element("p", "No picture was left out.")
    reasons = Counter(reason for _, reason in data.left_out).most_common()
    rows = [[reason, number(times)] for reason, times in reasons[:REASONS]]
    rest = sum(times for _, times in reasons[REASONS:])
    if rest:
        rows.append(["other reasons", number(rest)])
    items = (element("li", element("b", name), f": {reason}") for name, reason in data.left_out)
    return joined(
        [
            element("h3", f"{number(len(data.left_out))} left out"),
            table(["reason", "pictures"], rows),
            details("all of them by name", element("ol", *items)),
        ]
    )


def _use(run: _Run, commands: Sequence[Command]) -> Html:
    """What can be done with the run now."""
    shown: list[Html] = []
    if run.finished:
        shown = [_line(each) for each in own_commands(run.folder, run.recipe, example=run.example)]
    shown += [_line(each) for each in commands]
    if run.finished:
        lines = python_lines(run.folder, run.recipe, example=run.example)
        shown += [element("p", "In Python:"), code(lines)]
    return section("What to do with it", *shown) if shown else Html()


def _line(command: Command) -> Html:
    return joined([element("p", f"{command.does}:"), code(command.line)])


def _recipe(run: _Run) -> Html:
    sizes = {"first_stage": STAGES["first_stage"], "network": "network", "conditioner": "conditioner"}
    rows = [[sizes[part], number(found)] for part, found in count(run.recipe).items() if found]
    reports = [
        details(f"all figures of the {each.name}", table(["", ""], [[key, number(value)] for key, value in kept]))
        for each in run.courses
        if (kept := [(key, value) for key, value in each.report.items() if isinstance(value, int | float)])
    ]
    return section("Recipe", table(["", "parameters"], rows), *reports, details("recipe.yaml", code(run.text)))


def _extent(values: Mapping[str, int]) -> str:
    """`64`, or `64 to 512`."""
    low, high = values["min"], values["max"]
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _millions(value: int) -> str:
    return f"{value / 1e6:.1f} M" if value >= 1e5 else number(value)

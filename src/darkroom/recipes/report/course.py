"""How the stages of a run went, read from its folder: figures, plots, and sentences about them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from darkroom.core.record import read_json, read_log
from darkroom.pages.markup import Html
from darkroom.pages.plot import Line, Point, chart, number, percent, smoothed
from darkroom.recipes.length import trained
from darkroom.recipes.schema import Recipe

STAGES: Final = {"first_stage": "first stage", "denoiser": "denoiser"}
NOTEWORTHY: Final = 0.05  # a loss that rose by this share says more than that it wavers


@final
class Watched(NamedTuple):
    """A figure of held-out pictures that the log follows: its name there and in words, and which way is better."""

    key: str
    words: str
    higher: bool = False


WATCHED: Final = (
    Watched("validation_loss", "validation loss"),
    Watched("test_psnr", "PSNR of test pictures", higher=True),
    Watched("test_distance", "feature distance of test pictures"),
)


@final
@dataclass(frozen=True)
class Course:
    """One stage: the lines of its log, what its report says (empty before it ends), the steps it is to make."""

    stage: str
    lines: list[dict[str, Any]]
    report: dict[str, Any]
    wanted: int

    @property
    def name(self) -> str:
        """In words."""
        return STAGES[self.stage]

    @property
    def steps(self) -> int:
        """Made so far, as far as the log knows."""
        return max((line["step"] for line in self.lines), default=0)

    @property
    def seconds(self) -> float:
        """Spent on training, over all interruptions."""
        return float(max((line["seconds"] for line in self.lines if "seconds" in line), default=0.0))

    def points(self, key: str) -> list[Point]:
        """(step, value) of a figure, wherever the log has it."""
        return [(line["step"], line[key]) for line in self.lines if isinstance(line.get(key), int | float)]

    def charts(self) -> list[Html]:
        """Plots of all that the log follows; none for what it does not have."""
        report = self.report
        made = [chart(self._losses(), title="Loss")]
        for key, title, unit in (
            ("psnr", "Reconstruction of test pictures", "PSNR in dB, higher is better"),
            ("distance", "Feature distance of reconstructions", "lower is better"),
            ("perplexity", "Use of the codebook", "perplexity"),
        ):
            others = (("full_", "full decoder"), ("bicubic_", "bicubic at the same factor"))
            levels = [(words, report[prefix + key]) for prefix, words in others if prefix + key in report]
            held = Line("test pictures", self.points(f"test_{key}"), "held")
            if held.points:
                ends = (held.points[0][0], held.points[-1][0])
                lines = [held, *(Line(words, [(end, value) for end in ends], "level") for words, value in levels)]
                made.append(chart(lines, title=title, unit=unit))
        made.append(chart(self._smooth("opponent", "loss of the adversary"), title="Adversary"))
        return [each for each in made if each]

    def sentences(self) -> list[str]:
        """What a person should know who does not look at the plots."""
        said = [turned(self.points(each.key), each) for each in WATCHED]
        skipped = max((line.get("skipped", 0) for line in self.lines), default=0)
        if skipped:
            said.append(f"{number(skipped)} steps had a loss that was no finite number; they were left out.")
        return [each for each in said if each]

    def _losses(self) -> list[Line]:
        return [*self._smooth("loss", "training, smoothed"), Line("validation", self.points("validation_loss"), "held")]

    def _smooth(self, key: str, name: str) -> list[Line]:
        raw = self.points(key)
        return [Line("each step", raw, "faint"), Line(name, smoothed(raw))]


def courses(folder: Path, recipe: Recipe) -> list[Course]:
    """The stages that the recipe trains, as far as they went in this run folder."""
    found: list[Course] = []
    for stage, train in trained(recipe).items():
        path = folder / stage / "report.json"
        report = read_json(path) if path.exists() else {}
        found.append(Course(stage, read_log(folder / stage / "log.jsonl"), report, train.steps))
    return found


def turned(points: list[Point], watched: Watched) -> str:
    """A sentence when a held-out figure was better before than it is at the end; empty when it was not."""
    points = [point for point in points if math.isfinite(point[1])]
    if len(points) < 2:
        return ""
    best = (max if watched.higher else min)(points, key=lambda point: point[1])
    last = points[-1][1]
    if last == best[1]:
        return ""
    share = abs(last - best[1]) / abs(best[1]) if best[1] else 0.0
    if number(last) == number(best[1]):
        return ""
    most, way = ("highest", "fallen") if watched.higher else ("lowest", "risen")
    said = (
        f"The {watched.words} was {most} at step {number(best[0])} ({number(best[1])}) and has {way} since, "
        f"to {number(last)}"
    )
    if watched.key == "validation_loss" and share >= NOTEWORTHY:
        return (
            f"{said}, by {percent(share)}: from there on the model went on to fit its training pictures and no longer "
            "unseen ones. More pictures, or fewer steps, would help."
        )
    return f"{said}."

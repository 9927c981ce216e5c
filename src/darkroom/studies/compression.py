"""Figures 6 and 7: how much may a first stage compress? Equal networks, equal time, other latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from darkroom.autoencoder.model import AutoencoderSpec, PixelsSpec
from darkroom.core.errors import SpecError
from darkroom.pages.figure import Figure, Series
from darkroom.recipes.describe import count
from darkroom.recipes.schema import Recipe
from darkroom.studies import published
from darkroom.studies.cells import Against, Cell, Found, Pace, Quality, Sampling, Study, Training
from darkroom.studies.lengths import in_words, minutes_of, said_of_lengths
from darkroom.studies.models import asks
from darkroom.studies.reading import Reading, Table, short, times, told, value_of
from darkroom.studies.recipes import Bottleneck, denoiser, first_stage, of_size
from darkroom.studies.wishes import TRAINS, Wishes, base, lengthened, shared

TAKES: Final = (*TRAINS, "factors", "bottlenecks", "samplings")
FACTORS: Final = (1, 2, 4, 8, 16, 32)
STEPS: Final = (10, 20, 50)
CHANNELS: Final = {2: 2, 4: 3, 8: 4, 16: 8, 32: 32}  # of latents, Tab. 13
BATCHES: Final = {1: 8, 2: 16}  # Tab. 13 has smaller batches where latents are large; else the recipe's own
BATCH: Final = 16
COARSEST: Final = 4  # latents are halved while they stay as wide as this
LEVELS: Final = (1, 2, 2, 2)
DISTANCE: Final = "Fréchet distance"


@final
@dataclass(frozen=True)
class Rung:
    """A compression: its factor, and what stands between encoder and decoder (None: pixels)."""

    factor: int
    bottleneck: Bottleneck | None

    @property
    def name(self) -> str:
        """LDM-4-kl, as folders are called."""
        return f"ldm-{self.factor}" + ("" if self.bottleneck is None else f"-{self.bottleneck}")

    @property
    def first(self) -> str:
        """Its first stage."""
        return f"first-{self.factor}-{self.bottleneck}"


def compression(data: str, asked: Wishes) -> Study:
    """First stages of every factor and denoisers of one size on them, of equal minutes where minutes are given."""
    recipe = base(data, asked.model_copy(update={"parameters": None}), task="unconditional")
    rungs = _rungs(recipe, asked)
    stages = [each for each in rungs if each.bottleneck is not None]
    minutes = shared(asked, first_stages=len(stages), denoisers=len(rungs))
    assert recipe.denoiser is not None
    size = asked.parameters or count(recipe)["network"]
    firsts = {each: _first(recipe, each) for each in stages}
    cells: list[Cell] = [
        Training(name=each.first, recipe=lengthened(firsts[each], asked, minutes=minutes[0])) for each in stages
    ]
    for each in rungs:
        on = firsts[each].first_stage.model if each in firsts else PixelsSpec(image_channels=recipe.data.channels)
        made = lengthened(_second(recipe, each, on=on, parameters=size), asked, minutes=minutes[1])
        cells.append(Training(name=each.name, recipe=made, on=each.first if each in firsts else None, marks=True))
    for each in rungs:
        cells += _measured(each, data, asked)
    return Study(
        "compression",
        "Which factor of compression gives the best pictures in equal time, and which draws fastest?",
        cells,
        lambda found: _read(found, rungs, asked),
    )


def _rungs(recipe: Recipe, asked: Wishes) -> list[Rung]:
    side, wanted = recipe.data.size, asked.factors or FACTORS
    unknown = sorted(set(wanted) - set(FACTORS))
    if unknown:
        raise SpecError(f"factors={unknown[0]} does not fit; the study knows {', '.join(map(str, FACTORS))}")
    fitting = [each for each in sorted(set(wanted)) if side % each == 0 and side // each > 1]
    if not fitting:
        raise SpecError(f"none of the factors fits pictures of {side} px; give another size")
    return [
        Rung(each, kind)
        for each in fitting
        for kind in ((None,) if each == 1 else tuple(dict.fromkeys(asked.bottlenecks)))
    ]


def _first(recipe: Recipe, rung: Rung) -> Recipe:
    assert rung.bottleneck is not None
    channels = max(recipe.data.channels, CHANNELS[rung.factor])  # fewer than a picture has leave no straight way
    levels = (1, 2, 2, 2, 2)[: rung.factor.bit_length() - 1]
    changes = {"multipliers": levels, "stem": "patch2", "latent_channels": channels}
    return first_stage(recipe, name=f"{recipe.name}-{rung.first}", changes=changes, bottleneck=rung.bottleneck)


def _second(recipe: Recipe, rung: Rung, *, on: AutoencoderSpec | PixelsSpec, parameters: int) -> Recipe:
    """A network with as many halvings as its latents allow, which attends at 8 x 8 or where it is finest."""
    side, halvings = recipe.data.size // rung.factor, 0
    while halvings < len(LEVELS) - 1 and side % 2 ** (halvings + 1) == 0 and side // 2 ** (halvings + 1) >= COARSEST:
        halvings += 1
    attention = [2**level for level in range(halvings + 1) if side // 2**level <= 2 * COARSEST]
    network = {
        "multipliers": LEVELS[: halvings + 1],
        "attention": attention or [2**halvings],
        "heads": 1,  # Tab. 13
        "head_channels": None,
        "norm_groups": 8,
    }
    part = recipe.denoiser
    assert part is not None
    assert part.train is not None
    batch = min(part.train.batch, BATCHES.get(rung.factor, part.train.batch))
    made = denoiser(recipe, name=f"{recipe.name}-{rung.name}", on=on, network=network, train={"batch": batch})
    return of_size(made, parameters)


def _measured(rung: Rung, data: str, asked: Wishes) -> list[Cell]:
    against, samplings = Against(data=data, most=asked.real), asked.samplings or STEPS
    middle = _sampling(samplings[len(samplings) // 2], asked)
    cells: list[Cell] = [
        Quality(
            name=f"course-{rung.name}",
            model=rung.name,
            against=against,
            count=asked.count,
            sampling=middle,
            course=True,
        )
    ]
    for steps in samplings:
        drawn = _sampling(steps, asked)
        named = f"{rung.name}-{steps}"
        cells.append(
            Quality(name=f"quality-{named}", model=rung.name, against=against, count=asked.count, sampling=drawn)
        )
        cells.append(Pace(name=f"pace-{named}", model=rung.name, sampling=drawn, batch=BATCH))
    return cells


def _sampling(steps: int, asked: Wishes) -> Sampling:
    """DDIM without noise, as in Figures 6 and 7."""
    return Sampling(solver="ddim", eta=0.0, steps=steps, guidance=1.0, seed=asked.seed)


def _read(found: Mapping[str, Found], rungs: Sequence[Rung], asked: Wishes) -> Reading:
    samplings = asked.samplings or STEPS
    steps = samplings[len(samplings) // 2]
    rows = [_row(found, each, steps) for each in rungs if each.name in found]
    head = (
        "model",
        "parameters (M)",
        "first stage PSNR (dB)",
        "minutes of first stage",
        "minutes of denoiser",
        "steps",
        "training pictures/s",
        "pictures/s drawn",
        "Fréchet distance",
    )
    return Reading(
        tables=(
            Table(f"Compression, DDIM of {steps} steps", head, rows),
            Table("Beside pixels", ("model", "drawn faster", "distance lower"), _ratios(found, rungs, steps)),
            published.COMPRESSION,
        ),
        plots={
            "training": Figure(
                f"Quality against training time, {steps} steps",
                "minutes of training the denoiser",
                DISTANCE,
                [Series(each.name, _course(found, each)) for each in rungs],
            ),
            "throughput": Figure(
                f"Quality against throughput, {', '.join(map(str, samplings))} steps",
                "pictures drawn in a second",
                DISTANCE,
                [Series(each.name, _throughput(found, each, samplings)) for each in rungs],
            ),
        },
        notes=(
            *said_of_lengths(asked, found, models=[each.name for each in rungs]),
            "Minutes are those of the denoiser, as in Figure 6, with what it looked at on the way.",
            "The bias that Fréchet distances of equally few pictures share brings 'distance lower' nearer to 1.",
            *asks(found),
        ),
    )


def _row(found: Mapping[str, Found], rung: Rung, steps: int) -> tuple[str, ...]:
    run = found[rung.name]
    stage = run["stages"]["denoiser"]
    first = found.get(rung.first)
    report = None if first is None else first["stages"]["first_stage"]["report"]
    pace = found.get(f"pace-{rung.name}-{steps}")
    return (
        rung.name,
        f"{run['parameters']['network'] / 1e6:.2f}",
        short(None if report is None else report["psnr"]),
        in_words(minutes_of(first, stage="first_stage")),
        in_words(minutes_of(run, stage="denoiser")),
        str(stage["steps"]),
        short(stage["pictures_per_second"]),
        short(None if pace is None else pace["drawn_per_second"]),
        told(found.get(f"quality-{rung.name}-{steps}"), DISTANCE),
    )


def _ratios(found: Mapping[str, Found], rungs: Sequence[Rung], steps: int) -> list[tuple[str, ...]]:
    """How many times faster than LDM-1, and how many times nearer to the real pictures."""
    rows: list[tuple[str, ...]] = []
    pixels = [found.get(f"{kind}-ldm-1-{steps}") for kind in ("pace", "quality")]
    for each in rungs:
        pace, quality = (found.get(f"{kind}-{each.name}-{steps}") for kind in ("pace", "quality"))
        if each.factor == 1 or pace is None or quality is None or pixels[0] is None:
            continue
        faster = times(pace["drawn_per_second"], pixels[0]["drawn_per_second"])
        rows.append((each.name, faster, times(value_of(pixels[1], DISTANCE), value_of(quality, DISTANCE))))
    return rows


def _course(found: Mapping[str, Found], rung: Rung) -> list[tuple[float, float]]:
    points = [] if f"course-{rung.name}" not in found else found[f"course-{rung.name}"]["points"]
    known = [(each["seconds"], value_of(each, DISTANCE)) for each in points]
    return [(seconds / 60, value) for seconds, value in known if seconds is not None and value is not None]


def _throughput(found: Mapping[str, Found], rung: Rung, samplings: Sequence[int]) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for steps in samplings:
        pace, quality = (found.get(f"{kind}-{rung.name}-{steps}") for kind in ("pace", "quality"))
        value = value_of(quality, DISTANCE)
        if pace is not None and value is not None:
            points.append((pace["drawn_per_second"], value))
    return points

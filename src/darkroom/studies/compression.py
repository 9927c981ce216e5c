"""Figures 6 and 7: how much may a first stage compress? Equal networks, equal time, other latents."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from darkroom.autoencoder.model import AutoencoderSpec, PixelsSpec
from darkroom.core.errors import SpecError
from darkroom.core.spec import parse
from darkroom.pages.figure import Figure, Series
from darkroom.recipes.schema import Recipe
from darkroom.studies import published
from darkroom.studies.cells import Against, Cell, Found, HeldOut, Pace, Quality, Sampling, Study, Training
from darkroom.studies.lengths import in_words, minutes_of, said_of_lengths
from darkroom.studies.models import asks
from darkroom.studies.reading import NONE, Reading, Table, short, times, told, value_of
from darkroom.studies.recipes import CODES, Bottleneck, denoiser, first_stage, of_size, quick
from darkroom.studies.wishes import TRAINS, Wishes, base, lengthened, shared

TAKES: Final = (*TRAINS, "factors", "bottlenecks", "samplings")
FACTORS: Final = (1, 2, 4, 8, 16, 32)
STEPS: Final = (10, 20, 50)
CODED: Final = (4, 8)  # factors that the paper recommends: these are tried by codebooks too
CHANNELS: Final = {2: 2, 4: 3, 8: 4, 16: 8, 32: 32}  # of latents, Tab. 13
MULTIPLIERS: Final = {  # of widths, the finest level first, Tab. 13
    1: (1, 1, 2, 2, 4, 4),
    2: (1, 2, 2, 4, 4),
    4: (1, 2, 3, 5),
    8: (1, 2, 4),
    16: (1, 2, 4),
    32: (1, 2, 4),
}
COARSEST: Final = 4  # latents are halved while they stay as wide as this
PARAMETERS: Final = 4_400_000  # of the network, for minutes on two cores
BATCH: Final = 16  # drawn together
DISTANCE: Final = "Fréchet distance"
REAL: Final = "held-out-pictures"
HEAD: Final = (
    "model",
    "parameters (M)",
    "multiply-adds (M)",
    "first stage PSNR (dB)",
    "minutes of first stage",
    "minutes of denoiser",
    "steps",
    "training pictures/s",
    "pictures/s drawn",
    DISTANCE,
)


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
    several = _wanted(asked)
    recipe = base(data, asked.model_copy(update={"parameters": None}), task="unconditional", denoisers=len(several))
    rungs = _fitting(several, asked, side=recipe.data.size)
    size, against = asked.parameters or PARAMETERS, Against(data=data, most=asked.real)
    cells = [*_trainings(recipe, rungs, asked, parameters=size), *_paces(rungs, asked)]
    for each in rungs:
        cells += _measured(each, against, asked)
    known = {"size": recipe.data.size, "channels": recipe.data.channels, "seed": recipe.seed}
    cells.append(parse(HeldOut, {"name": REAL, "against": against, "count": asked.count, **known}, where=REAL))
    return Study(
        "compression",
        "Which factor of compression gives the best pictures in equal time, and which draws fastest?",
        cells,
        lambda found: _read(found, rungs, asked, unlike=_unlike(recipe, asked, parameters=size)),
    )


def _trainings(recipe: Recipe, rungs: Sequence[Rung], asked: Wishes, *, parameters: int) -> list[Cell]:
    """The first stages, then the denoisers."""
    stages = [each for each in rungs if each.bottleneck is not None]
    minutes = shared(asked, first_stages=len(stages), denoisers=len(rungs))
    firsts = {each: _first(recipe, each) for each in stages}
    cells: list[Cell] = [
        Training(name=each.first, recipe=lengthened(firsts[each], asked, minutes=minutes[0])) for each in stages
    ]
    for each in rungs:
        on = firsts[each].first_stage.model if each in firsts else PixelsSpec(image_channels=recipe.data.channels)
        made = quick(_second(recipe, each, on=on, parameters=parameters), batch=asked.batch)
        made = lengthened(made, asked, minutes=minutes[1])
        cells.append(Training(name=each.name, recipe=made, on=each.first if each in firsts else None, marks=True))
    return cells


def _wanted(asked: Wishes) -> list[Rung]:
    """Every factor by every bottleneck that is named; without names by KL, and some by codebooks too."""
    wanted = asked.factors or FACTORS
    unknown = sorted(set(wanted) - set(FACTORS))
    if unknown:
        raise SpecError(f"factors={unknown[0]} does not fit; the study knows {', '.join(map(str, FACTORS))}")
    return [Rung(each, kind) for each in wanted for kind in _bottlenecks(each, asked)]


def _bottlenecks(factor: int, asked: Wishes) -> tuple[Bottleneck | None, ...]:
    if factor == 1:
        return (None,)
    return asked.bottlenecks or (("kl", "vq") if factor in CODED else ("kl",))


def _fitting(rungs: Sequence[Rung], asked: Wishes, *, side: int) -> list[Rung]:
    """Those of our own that fit; what was asked for by name is refused where it does not."""
    fitting = [each for each in rungs if side % each.factor == 0 and side // each.factor > 1]
    if asked.factors and len(fitting) < len(rungs):
        wrong = next(each.factor for each in rungs if each not in fitting)
        raise SpecError(
            f"factors={wrong} does not fit pictures of {side} px, of which it must leave two places along a side or "
            "more; leave it away, or give another size"
        )
    return fitting


def _first(recipe: Recipe, rung: Rung) -> Recipe:
    assert rung.bottleneck is not None
    channels = max(recipe.data.channels, CHANNELS[rung.factor])  # fewer than a picture has leave no straight way
    levels = (1, 2, 2, 2, 2)[: rung.factor.bit_length() - 1]
    changes = {"multipliers": levels, "stem": "patch2", "latent_channels": channels}
    return first_stage(recipe, name=f"{recipe.name}-{rung.first}", changes=changes, bottleneck=rung.bottleneck)


def _second(recipe: Recipe, rung: Rung, *, on: AutoencoderSpec | PixelsSpec, parameters: int) -> Recipe:
    """A network with widths of Tab. 13 and as many halvings as its latents allow, which attends at 8 x 8 and below.

    Pixels have the narrowest levels where they are finest, as in the paper: nearly one width on all levels would cost
    LDM-1 four times as much for the same parameters.
    """
    side, widths, halvings = recipe.data.size // rung.factor, MULTIPLIERS[rung.factor], 0
    while halvings < len(widths) - 1 and side % 2 ** (halvings + 1) == 0 and side // 2 ** (halvings + 1) >= COARSEST:
        halvings += 1
    attention = [2**level for level in range(halvings + 1) if side // 2**level <= 2 * COARSEST]
    network = {
        "multipliers": widths[: halvings + 1],
        "attention": attention or [2**halvings],
        "heads": 1,  # Tab. 13
        "head_channels": None,
        "norm_groups": 8,
    }
    return of_size(denoiser(recipe, name=f"{recipe.name}-{rung.name}", on=on, network=network), parameters)


def _paces(rungs: Sequence[Rung], asked: Wishes) -> list[Cell]:
    """One soon after another, for the machine may be busier an hour later; of the same number of steps first."""
    return [
        Pace(name=f"pace-{each.name}-{steps}", model=each.name, sampling=_sampling(steps, asked), batch=BATCH)
        for steps in asked.samplings or STEPS
        for each in rungs
    ]


def _measured(rung: Rung, against: Against, asked: Wishes) -> list[Cell]:
    samplings = asked.samplings or STEPS
    middle = _sampling(samplings[len(samplings) // 2], asked)
    quality = functools.partial(Quality, model=rung.name, against=against, count=asked.count)
    return [
        quality(name=f"course-{rung.name}", sampling=middle, course=True),
        *(quality(name=f"quality-{rung.name}-{steps}", sampling=_sampling(steps, asked)) for steps in samplings),
    ]


def _sampling(steps: int, asked: Wishes) -> Sampling:
    """DDIM without noise, as in Figures 6 and 7."""
    return Sampling(solver="ddim", eta=0.0, steps=steps, guidance=1.0, seed=asked.seed)


def _read(found: Mapping[str, Found], rungs: Sequence[Rung], asked: Wishes, *, unlike: str) -> Reading:
    samplings = asked.samplings or STEPS
    steps = samplings[len(samplings) // 2]
    rows = [_row(found, each, steps) for each in rungs if each.name in found]
    if value_of(found.get(REAL), DISTANCE) is not None:
        rows.append((REAL, *[NONE] * (len(HEAD) - 2), told(found[REAL], DISTANCE)))
    beside = [row for each in samplings for row in _ratios(found, rungs, each)]
    return Reading(
        tables=(
            Table(f"Compression, DDIM of {steps} steps", HEAD, rows),
            Table("Beside pixels", ("model", "steps drawn", "drawn faster", "distance lower"), beside),
            published.COMPRESSION,
        ),
        plots=_plots(found, rungs, samplings),
        notes=(
            unlike,
            *said_of_lengths(asked, found, models=[each.name for each in rungs]),
            "Minutes are those of the denoiser, as in Figure 6, with opening, encoding all pictures and looks on the "
            "way; multiply-adds those of one pass through the network for one picture.",
            _of_bias(found.get(REAL, {}), count=asked.count),
            *asks(found),
        ),
    )


def _of_bias(real: Found, *, count: int) -> str:
    """What is wrong with distances of so few pictures. real: found of held-out pictures, which may be fewer."""
    said = "The bias that Fréchet distances of equally few pictures share brings 'distance lower' nearer to 1."
    match real.get("protocol"):
        case {"count": known} if known == count:
            return f"{said} How large it is {REAL} show: a perfect model comes as near as they do."
        case {"count": known}:
            return f"{said} {REAL} are only {known}, so theirs is larger: a perfect model comes nearer than they do."
        case _:
            return said


def _plots(found: Mapping[str, Found], rungs: Sequence[Rung], samplings: Sequence[int]) -> dict[str, Figure]:
    """Figures 6 and 7."""
    return {
        "training": Figure(
            f"Quality against training time, {samplings[len(samplings) // 2]} steps",
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
    }


def _unlike(recipe: Recipe, asked: Wishes, *, parameters: int) -> str:
    """What is not as in the paper, in a sentence."""
    part, samplings = recipe.denoiser, asked.samplings or STEPS
    assert part is not None
    return (
        f"Not as in the paper: nothing steers these models, pictures have {recipe.data.size} px, networks about "
        f"{parameters / 1e6:.1f} M parameters (390 M there), first stages KL or {CODES} codes (up to 16,384 there), "
        f"latents at least {recipe.data.channels} channels (2 of LDM-2 there). "
        "Both stages are trained far less long: there, first stages are finished and denoisers make 2 million steps. "
        f"Networks learn {part.prediction} along a {part.schedule.kind} schedule (noise along a linear one there), by "
        f"Muon in batches of {asked.batch or 'at most 32'} (by AdamW in batches of 7 to 112 there). "
        f"Course and table are drawn in {samplings[len(samplings) // 2]} steps (100 there); distances there are FIDs "
        "of 5,000 pictures."
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
        short(round(run["flops"]["network"] / 1e6)),
        short(None if report is None else report["psnr"]),
        in_words(minutes_of(first, stage="first_stage")),
        in_words(minutes_of(run, stage="denoiser")),
        str(stage["steps"]),
        short(stage["pictures_per_second"]),
        short(None if pace is None else pace["drawn_per_second"]),
        told(found.get(f"quality-{rung.name}-{steps}"), DISTANCE),
    )


def _ratios(found: Mapping[str, Found], rungs: Sequence[Rung], steps: int) -> list[tuple[str, ...]]:
    """How many times faster than LDM-1, and how many times nearer to the real pictures, in so many steps."""
    rows: list[tuple[str, ...]] = []
    pixels = [found.get(f"{kind}-ldm-1-{steps}") for kind in ("pace", "quality")]
    for each in rungs:
        pace, quality = (found.get(f"{kind}-{each.name}-{steps}") for kind in ("pace", "quality"))
        if each.factor == 1 or pace is None or quality is None or pixels[0] is None:
            continue
        faster = times(pace["drawn_per_second"], pixels[0]["drawn_per_second"])
        nearer = times(value_of(pixels[1], DISTANCE), value_of(quality, DISTANCE))
        rows.append((each.name, str(steps), faster, nearer))
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

"""The left half of Table 6: pictures a second in training and sampling, on latents and on pixels; nothing is learnt."""

from collections.abc import Mapping, Sequence
from typing import Final

from darkroom.autoencoder.model import AutoencoderSpec, PixelsSpec
from darkroom.core.errors import SpecError
from darkroom.pages.figure import Figure, Series
from darkroom.recipes.given import on_pixels
from darkroom.recipes.schema import Recipe
from darkroom.studies import published
from darkroom.studies.cells import Cell, Found, Pace, Sampling, Study
from darkroom.studies.reading import Reading, Table, short, times
from darkroom.studies.recipes import denoiser
from darkroom.studies.wishes import Wishes, base

TAKES: Final = ("pictures", "size", "batch", "parameters", "seed", "factors", "samplings")
FACTORS: Final = (1, 2, 4, 8)
STEPS: Final = 50
BATCH: Final = 8


def speed(data: str, asked: Wishes) -> Study:
    """One network on latents of each factor, with untrained weights, which are as fast as any.

    On pixels it has a narrow level for each halving more, as `darkroom train --first-stage pixels` makes it.
    `SpecError` for factors that are no powers of two, or leave nothing for the network to halve.
    """
    recipe = base(data, asked, task="unconditional")
    steps = asked.samplings or (STEPS,)
    factors = _factors(recipe, asked)
    made = {each: _of_factor(recipe, each) for each in factors}
    cells: list[Cell] = [
        Pace(
            name=_cell(factor, size, each),
            recipe=made[factor],
            sampling=Sampling(solver="ddim", eta=0.0, guidance=1.0, steps=each, seed=asked.seed),
            size=size,
            batch=BATCH,
        )
        for each in steps
        for size in _sizes(recipe)
        for factor in factors
    ]
    return Study(
        "speed",
        "How much faster are training and sampling on latents than on pixels?",
        cells,
        lambda found: _read(found, factors, _sizes(recipe), steps=steps),
    )


def _factors(recipe: Recipe, asked: Wishes) -> list[int]:
    """Those asked for, each refused where it does not fit; without a wish those of our own that do."""
    side = recipe.data.size
    for each in asked.factors or ():
        if each & (each - 1):
            raise SpecError(f"factors={each} does not fit; a first stage halves, so powers of two do")
        if side % (4 * each):
            raise SpecError(
                f"factors={each} does not fit: the network halves latents twice, and {side} px leave too few"
            )
    return [each for each in asked.factors or FACTORS if side % (4 * each) == 0]


def _sizes(recipe: Recipe) -> tuple[int, int]:
    """That of training, and twice as large, as in Tab. 6."""
    return recipe.data.size, 2 * recipe.data.size


def _cell(factor: int, size: int, steps: int) -> str:
    return f"ldm-{factor}-at-{size}-in-{steps}"


def _of_factor(recipe: Recipe, factor: int) -> Recipe:
    if factor == 1:
        return on_pixels(recipe)
    before = recipe.first_stage.model
    assert isinstance(before, AutoencoderSpec)
    levels = (1, *[2] * (factor.bit_length() - 2))
    on: AutoencoderSpec | PixelsSpec = before.model_copy(update={"multipliers": levels})
    return denoiser(recipe, name=f"{recipe.name}-ldm-{factor}", on=on)


def _read(
    found: Mapping[str, Found], factors: Sequence[int], sizes: tuple[int, int], *, steps: Sequence[int]
) -> Reading:
    small, large = sizes
    head = (
        "model",
        "parameters (M)",
        "training pictures/s",
        f"drawn/s at {small}",
        f"drawn/s at {large}",
        "hours an epoch",
        "training faster",
        "drawing faster",
    )
    tables = [Table(f"Speed, DDIM of {each} steps", head, _rows(found, factors, sizes, steps=each)) for each in steps]
    lines = [
        Series(f"{size} px, {each} steps", _line(found, factors, size, steps=each)) for each in steps for size in sizes
    ]
    notes = dict.fromkeys(sentence for each in found.values() for sentence in each["notes"])
    return Reading(
        tables=(*tables, published.EFFICIENCY),
        plots={"drawing": Figure("Drawing against compression", "factor f", "pictures drawn in a second", lines)},
        notes=(
            f"Batches of {BATCH} are drawn together, decoding included. Training is that of the denoiser on cached "
            "latents: encoding and measuring are not in it, nor in the epoch. 'Faster' is beside the first row.",
            "Not as in the paper: Tab. 6 times inpainting at 256 and 512 px on one A100; here nothing steers, at "
            f"{small} and {large} px, and the network on pixels is narrow where they are finest.",
            *notes,
        ),
    )


def _rows(
    found: Mapping[str, Found], factors: Sequence[int], sizes: tuple[int, int], *, steps: int
) -> list[tuple[str, ...]]:
    cells = {each: [found.get(_cell(each, size, steps)) for size in sizes] for each in factors}
    first = next(iter(cells.values()), [None, None])[0] or {}
    return [
        (
            f"LDM-{factor}",
            f"{small['parameters'] / 1e6:.2f}",
            short(small["trained_per_second"]),
            short(small["drawn_per_second"]),
            short(None if large is None else large["drawn_per_second"]),
            short(small["pictures"] / small["trained_per_second"] / 3600),
            times(small["trained_per_second"], first.get("trained_per_second")),
            times(small["drawn_per_second"], first.get("drawn_per_second")),
        )
        for factor, (small, large) in cells.items()
        if small is not None
    ]


def _line(found: Mapping[str, Found], factors: Sequence[int], size: int, *, steps: int) -> list[tuple[float, float]]:
    known = ((each, found.get(_cell(each, size, steps))) for each in factors)
    return [(factor, cell["drawn_per_second"]) for factor, cell in known if cell is not None]

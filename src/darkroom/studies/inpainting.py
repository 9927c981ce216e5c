"""Tables 6 and 7: painting holes on pixels or latents, KL or VQ, with attention in the first stage or not, or big."""

import math
from collections.abc import Mapping
from typing import Any, Final

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.pages.figure import Figure, Series
from darkroom.recipes.given import on_pixels
from darkroom.recipes.schema import Recipe
from darkroom.studies import published
from darkroom.studies.cells import Against, Cell, Found, Pace, Quality, Sampling, Study, Training
from darkroom.studies.models import asks
from darkroom.studies.reading import Reading, Table, short, times, told, value_of
from darkroom.studies.recipes import Bottleneck, denoiser, first_stage
from darkroom.studies.wishes import TRAINS, Wishes, base, lengthened, shared

TAKES: Final = (*TRAINS, "samplings")
FIRST_STAGES: Final[dict[str, tuple[Bottleneck, bool]]] = {
    "first-kl-attention": ("kl", True),
    "first-vq-attention": ("vq", True),
    "first-vq": ("vq", False),
}
MODELS: Final[dict[str, str | None]] = {
    "ldm-1": None,
    "ldm-4-kl-attention": "first-kl-attention",
    "ldm-4-vq-attention": "first-vq-attention",
    "ldm-4-vq": "first-vq",
    "ldm-4-vq-big": "first-vq",
}
BIG: Final = 1.34  # times as wide: 387 M beside 215 M parameters, which grow with the square
GROUPS: Final = 32  # widths are multiples of it
STEPS: Final = 50  # the original's script
BATCH: Final = 16
# Least and most share that is painted. Tab. 7 has its second and its last.
HOLES: Final[dict[str, tuple[float, float] | None]] = {
    "10–20 %": (0.1, 0.2),
    "40–50 %": (0.4, 0.5),
    "all": None,
}
MEASURES: Final = ("Fréchet distance", "LPIPS", "judge distance", "PSNR (dB)", "SSIM")


def inpainting(data: str, asked: Wishes) -> Study:
    """Three first stages, five models, three kinds of holes; each first stage and each model as long in training."""
    recipe = base(data, asked, task="inpainting")
    minutes = shared(asked, first_stages=len(FIRST_STAGES), denoisers=len(MODELS))
    firsts = {name: _first(recipe, name) for name in FIRST_STAGES}
    steps = asked.samplings or (STEPS,)
    cells: list[Cell] = [
        Training(name=name, recipe=lengthened(each, asked, minutes=minutes[0])) for name, each in firsts.items()
    ]
    cells += [
        Training(name=name, recipe=lengthened(_second(recipe, name, firsts), asked, minutes=minutes[1]), on=on)
        for name, on in MODELS.items()
    ]
    for name in MODELS:
        cells += _measured(name, data, asked, steps=steps[-1])
    return Study(
        "inpainting",
        "Are holes painted better and faster on latents, and what do attention, codebooks and width do for it?",
        cells,
        _read,
    )


def _first(recipe: Recipe, name: str) -> Recipe:
    kind, attends = FIRST_STAGES[name]
    return first_stage(recipe, name=f"{recipe.name}-{name}", changes={"middle_attention": attends}, bottleneck=kind)


def _second(recipe: Recipe, name: str, firsts: Mapping[str, Recipe]) -> Recipe:
    on, named = MODELS[name], f"{recipe.name}-{name}"
    if on is None:
        return on_pixels(recipe).model_copy(update={"name": named})
    spec = firsts[on].first_stage.model
    assert isinstance(spec, AutoencoderSpec)
    return denoiser(recipe, name=named, on=spec, network=_big(recipe) if name.endswith("big") else None)


def _big(recipe: Recipe) -> dict[str, Any]:
    """Wider, attending on three levels, halved and doubled by residual blocks, as `inpainting_big` of the original."""
    assert recipe.denoiser is not None
    width = math.ceil(recipe.denoiser.network.channels * BIG / GROUPS) * GROUPS
    return {"channels": width, "attention": (1, 2, 4), "resample": "residual"}


def _measured(model: str, data: str, asked: Wishes, *, steps: int) -> list[Cell]:
    how = Sampling(solver="ddim", eta=0.0, steps=steps, seed=asked.seed)
    against = Against(data=data, most=asked.real)
    return [
        *(
            Quality(
                name=_cell(model, words), model=model, against=against, count=asked.count, sampling=how, holes=holes
            )
            for words, holes in HOLES.items()
        ),
        Pace(name=f"pace-{model}", model=model, sampling=how, batch=BATCH),
    ]


def _cell(model: str, words: str) -> str:
    holes = HOLES[words]
    return f"{model}-holes-" + ("all" if holes is None else f"{holes[0]:g}-{holes[1]:g}")


def _read(found: Mapping[str, Found]) -> Reading:
    pixels = found.get("pace-ldm-1", {}).get("drawn_per_second")
    speeds = [
        (
            name,
            f"{run['parameters']['network'] / 1e6:.2f}",
            short(stage["pictures_per_second"]),
            short(pace.get("drawn_per_second")),
            times(pace.get("drawn_per_second"), pixels),
            short(run["pictures"] / stage["pictures_per_second"] / 3600 if stage["pictures_per_second"] else None),
            told(found.get(_cell(name, "all")), "Fréchet distance"),
        )
        for name in MODELS
        if (run := found.get(name)) is not None
        for stage, pace in [(run["stages"]["denoiser"], found.get(f"pace-{name}", {}))]
    ]
    head = (
        "model",
        "parameters (M)",
        "training pictures/s",
        "pictures/s drawn",
        "drawn faster than ldm-1",
        "hours an epoch",
        "Fréchet distance",
    )
    return Reading(
        tables=(
            Table("Efficiency", head, speeds),
            published.EFFICIENCY,
            *_by_holes(found),
            published.INPAINTING,
        ),
        plots={"holes": _figure(found)},
        notes=(
            "Holes of all sizes are those of training. Models are trained and measured at one size: the paper's "
            "fine-tuning at 512 is not repeated.",
            *asks(found),
        ),
    )


def _by_holes(found: Mapping[str, Found]) -> list[Table]:
    """One table for each kind of holes."""
    seen = [each for each in MEASURES if any(value_of(card, each) is not None for card in found.values())]
    return [
        Table(
            f"Holes of {words}",
            ("model", *seen),
            [
                (name, *(told(found[_cell(name, words)], each) for each in seen))
                for name in MODELS
                if _cell(name, words) in found
            ],
        )
        for words in HOLES
    ]


def _figure(found: Mapping[str, Found]) -> Figure:
    return Figure(
        "Distance to the true picture against the share that is painted",
        "share of the picture (%)",
        "judge distance",
        [
            Series(
                name,
                [
                    (50 * (holes[0] + holes[1]), value)
                    for words, holes in HOLES.items()
                    if holes is not None
                    and (value := value_of(found.get(_cell(name, words)), "judge distance")) is not None
                ],
            )
            for name in MODELS
        ],
    )

"""Tables 6 and 7: painting holes on pixels or latents, KL or VQ, with attention in the first stage or not, or big."""

import functools
from collections.abc import Mapping
from typing import Final

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.pages.figure import Figure, Series
from darkroom.recipes.describe import count
from darkroom.recipes.given import on_pixels
from darkroom.recipes.schema import Recipe
from darkroom.studies import published
from darkroom.studies.cells import Against, Cell, Found, Pace, Quality, Sampling, Study, Training
from darkroom.studies.lengths import in_words, minutes_of, said_of_lengths
from darkroom.studies.models import asks
from darkroom.studies.reading import Reading, Table, short, times, told, value_of
from darkroom.studies.recipes import CODES, Bottleneck, denoiser, first_stage, of_size, quick
from darkroom.studies.wishes import TRAINS, Wishes, base, lengthened, one_sampling, shared

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
BIG: Final = 387 / 215  # times the parameters, as in the original
STEPS: Final = 50  # the original's script
BATCH: Final = 16
ALL: Final = "all sizes"
# Least and most share that is painted. Tab. 7 has its second and its last.
HOLES: Final[dict[str, tuple[float, float] | None]] = {
    "10–20 %": (0.1, 0.2),
    "40–50 %": (0.4, 0.5),
    ALL: None,
}
MEASURES: Final = ("Fréchet distance", "LPIPS", "judge distance", "PSNR (dB)", "SSIM")


def inpainting(data: str, asked: Wishes) -> Study:
    """Three first stages, five models, three kinds of holes; of equal minutes where minutes are given.

    Holes are left as drawn, the known pixels put back: moving what is drawn to where it meets them, which `darkroom
    sample` may do, costs gradients of the decoder at every step, and models of pixels do not pay that. `SpecError` for
    several numbers of steps.
    """
    recipe = base(data, asked, task="inpainting", denoisers=len(MODELS))
    minutes = shared(asked, first_stages=len(FIRST_STAGES), denoisers=len(MODELS))
    firsts = {name: _first(recipe, name) for name in FIRST_STAGES}
    steps = one_sampling(asked, study="inpainting") or STEPS
    cells: list[Cell] = [
        Training(name=name, recipe=lengthened(each, asked, minutes=minutes[0])) for name, each in firsts.items()
    ]
    cells += [
        Training(name=name, recipe=lengthened(each, asked, minutes=minutes[1]), on=MODELS[name])
        for name in MODELS
        for each in [quick(_second(recipe, name, firsts), batch=asked.batch)]
    ]
    how = Sampling(solver="ddim", eta=0.0, steps=steps, match=0, seed=asked.seed)
    # One soon after another, for the machine may be busier an hour later.
    cells += [Pace(name=f"pace-{name}", model=name, sampling=how, batch=BATCH) for name in MODELS]
    quality = functools.partial(Quality, against=Against(data=data, most=asked.real), count=asked.count, sampling=how)
    cells += [
        quality(name=_cell(name, words), model=name, holes=holes) for name in MODELS for words, holes in HOLES.items()
    ]
    return Study(
        "inpainting",
        "Are holes painted better and faster on latents, and what do attention, codebooks and width do for it?",
        cells,
        lambda found: _read(found, asked, unlike=_unlike(recipe)),
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
    made = denoiser(recipe, name=named, on=spec)
    return _big(made) if name.endswith("big") else made


def _big(made: Recipe) -> Recipe:
    """Attending on three levels, halved and doubled by residual blocks, wider, as `inpainting_big` of the original."""
    network = {"attention": (1, 2, 4), "resample": "residual"}
    other = denoiser(made, name=made.name, on=made.first_stage.model, network=network)
    return of_size(other, round(BIG * count(made)["network"]))


def _cell(model: str, words: str) -> str:
    holes = HOLES[words]
    return f"{model}-holes-" + ("all" if holes is None else f"{holes[0]:g}-{holes[1]:g}")


def _unlike(recipe: Recipe) -> str:
    """What is not as in the paper, in a sentence."""
    size, channels = recipe.data.size, recipe.first_stage.model.latent_channels
    return (
        f"Not as in the paper: {size} px (256 in Tab. 6, 512 in Tab. 7), latents of {channels} channels (3 there), "
        f"codebooks of {CODES} entries (8,192 there), trained far less long and not fine-tuned at 512 px; distances "
        "there are FIDs, of 2,000 pictures in Tab. 6 and of 30,000 in Tab. 7."
    )


def _read(found: Mapping[str, Found], asked: Wishes, *, unlike: str) -> Reading:
    pixels = found.get("pace-ldm-1", {}).get("drawn_per_second")
    speeds = [
        (
            name,
            f"{run['parameters']['network'] / 1e6:.2f}",
            in_words(minutes_of(run, stage="denoiser")),
            short(stage["pictures_per_second"]),
            short(pace.get("drawn_per_second")),
            times(pace.get("drawn_per_second"), pixels),
            short(run["pictures"] / stage["pictures_per_second"] / 3600 if stage["pictures_per_second"] else None),
            told(found.get(_cell(name, ALL)), "Fréchet distance"),
        )
        for name in MODELS
        if (run := found.get(name)) is not None
        for stage, pace in [(run["stages"]["denoiser"], found.get(f"pace-{name}", {}))]
    ]
    head = (
        "model",
        "parameters (M)",
        "minutes of training",
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
            unlike,
            "Holes of all sizes are those of training. Holes are left as drawn (match 0), known pixels put back.",
            *said_of_lengths(asked, found, models=list(MODELS)),
            "An epoch is training on cached latents alone; the paper's has validation in it.",
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

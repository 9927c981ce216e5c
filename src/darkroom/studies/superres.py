"""Table 5: enlarging by diffusion on latents, by regression on the same latents, by diffusion on pixels."""

import functools
from collections.abc import Mapping
from typing import Any, Final

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.core.spec import parse
from darkroom.pages.figure import Figure, Series
from darkroom.recipes.given import first_stage_alone, on_pixels
from darkroom.recipes.schema import Recipe
from darkroom.studies import published
from darkroom.studies.cells import Against, Cell, Found, Pace, Quality, Sampling, Study, Training
from darkroom.studies.lengths import in_words, minutes_of, said_of_lengths
from darkroom.studies.models import asks
from darkroom.studies.reading import Reading, Table, short, told, value_of
from darkroom.studies.recipes import denoiser, quick
from darkroom.studies.wishes import TRAINS, Wishes, base, lengthened, shared

TAKES: Final = (*TRAINS, "samplings")
FIRST: Final = "first-stage"
MODELS: Final = ("latent-diffusion", "latent-regression", "pixel-diffusion")
STEPS: Final = 100  # Tab. 5
BATCH: Final = 16
MEASURES: Final = ("PSNR (dB)", "SSIM", "judge distance", "LPIPS", "Fréchet distance", "inception score")


def superres(data: str, asked: Wishes) -> Study:
    """Three models, each as long in training where minutes are given, measured on held-out pictures made small.

    What they draw is left as drawn: held to the small picture, as `darkroom sample` does, the three would differ less.
    """
    recipe = base(data, asked, task="super-resolution", denoisers=len(MODELS))
    first, denoisers = shared(asked, first_stages=1, denoisers=len(MODELS))
    recipes = {name: quick(each, batch=asked.batch) for name, each in _recipes(recipe).items()}
    cells: list[Cell] = [Training(name=FIRST, recipe=lengthened(first_stage_alone(recipe), asked, minutes=first))]
    cells += [
        Training(
            name=name,
            recipe=lengthened(each, asked, minutes=denoisers),
            on=FIRST if isinstance(each.first_stage.model, AutoencoderSpec) else None,
        )
        for name, each in recipes.items()
    ]
    drawn = [(name, steps) for name in MODELS for steps in _samplings(name, asked)]
    cells += [  # one soon after another, for the machine may be busier an hour later
        Pace(name=f"pace-{name}-{steps}", model=name, sampling=_sampling(steps, asked), batch=BATCH)
        for name, steps in drawn
    ]
    quality = functools.partial(Quality, against=Against(data=data, most=asked.real), count=asked.count)
    cells += [
        quality(name=f"quality-{name}-{steps}", model=name, sampling=_sampling(steps, asked)) for name, steps in drawn
    ]
    return Study(
        "super-resolution",
        "Does diffusion on latents enlarge better than regression, and better than diffusion on pixels?",
        cells,
        lambda found: _read(found, asked, unlike=_unlike(recipe)),
    )


def _sampling(steps: int, asked: Wishes) -> Sampling:
    return Sampling(solver="ddim", eta=0.0, steps=steps, match=0, seed=asked.seed)


def _samplings(model: str, asked: Wishes) -> tuple[int, ...]:
    """A regression answers in one step."""
    return (1,) if model == "latent-regression" else asked.samplings or (STEPS,)


def _recipes(recipe: Recipe) -> dict[str, Recipe]:
    on = recipe.first_stage.model
    assert isinstance(on, AutoencoderSpec)
    latent = denoiser(recipe, name=f"{recipe.name}-{MODELS[0]}", on=on)
    values: dict[str, Any] = latent.plain()
    values["name"] = f"{recipe.name}-{MODELS[1]}"
    values["denoiser"]["objective"] = {"times": {"kind": "noisiest"}}
    values["denoiser"]["sample"] |= {"solver": "ddim", "steps": 1, "eta": 0.0}
    regression = parse(Recipe, values, where=values["name"])
    pixels = on_pixels(recipe).model_copy(update={"name": f"{recipe.name}-{MODELS[2]}"})
    return dict(zip(MODELS, (latent, regression, pixels), strict=True))


def _unlike(recipe: Recipe) -> str:
    """What is not as in the paper, in a sentence."""
    side, small, on = recipe.data.size, recipe.data.degradation.factor, recipe.first_stage.model
    return (
        f"Not as in the paper: {side // small} to {side} px (64 to 256 there), latents of {on.latent_channels} "
        "channels (3 there), trained far less long (860,000 steps there); its image regression works on pixels and "
        "has another network, and its distances are FIDs on ImageNet."
    )


def _read(found: Mapping[str, Found], asked: Wishes, *, unlike: str) -> Reading:
    cells = [(name, steps, f"{name}-{steps}") for name in MODELS for steps in _samplings(name, asked)]
    cards = [found.get(f"quality-{named}") for *_, named in cells]
    seen = [each for each in MEASURES if any(value_of(card, each) is not None for card in cards)]
    rows = [
        (
            name,
            str(steps),
            *(told(found[f"quality-{named}"], each) for each in seen),
            f"{found[name]['parameters']['network'] / 1e6:.2f}",
            in_words(minutes_of(found[name], stage="denoiser")),
            short(found.get(f"pace-{named}", {}).get("drawn_per_second")),
        )
        for name, steps, named in cells
        if f"quality-{named}" in found
    ]
    head = ("model", "steps", *seen, "parameters (M)", "minutes of training", "pictures/s drawn")
    points = {
        name: [
            (value, distance)
            for steps in _samplings(name, asked)
            for card in [found.get(f"quality-{name}-{steps}")]
            for value, distance in [(value_of(card, "PSNR (dB)"), value_of(card, "Fréchet distance"))]
            if value is not None and distance is not None
        ]
        for name in MODELS
    }
    return Reading(
        tables=(Table("Super-resolution", head, rows), published.SUPER_RESOLUTION),
        plots={
            "trade": Figure(
                "Right on the whole, or like a picture",
                "PSNR (dB)",
                "Fréchet distance",
                [Series(name, each) for name, each in points.items()],
            )
        },
        notes=(
            unlike,
            "The regression is the network of the first row on the same latents, trained at pure noise alone: the mean "
            "of what fits. Inception scores are there where the network names classes (--features inception).",
            *said_of_lengths(asked, found, models=MODELS),
            "Nothing drawn is held to the small picture afterwards (match 0), as in the paper.",
            *asks(found),
        ),
    )

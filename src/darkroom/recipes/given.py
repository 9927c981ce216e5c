"""Recipes on a first stage that exists already: taken as it is, or given another decoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, PixelsSpec, without_decoder
from darkroom.autoencoder.statistics import LatentStatistics
from darkroom.autoencoder.tiny import standardise
from darkroom.checkpoint.store import StoredModel, build, first_stage_of
from darkroom.conditioning.conditioner import ConditionerSpec, plane_channels
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.core.errors import SpecError
from darkroom.core.spec import parse
from darkroom.network.unet import UNetSpec
from darkroom.recipes.clock import RECIPE
from darkroom.recipes.read import read_recipe
from darkroom.recipes.schema import DenoiserRecipe, FirstStageRecipe, Recipe
from darkroom.tasks.find import find, read_stage

WIDTH: Final = 32  # channels of the first level on pixels, at least
DETAIL: Final = 0.4  # deviation of latents that say what the small picture in the others does not


def first_stage_alone(recipe: Recipe) -> Recipe:
    """The recipe without its denoiser, under a name of its own; as it is when it has none."""
    if recipe.denoiser is None:
        return recipe
    return recipe.model_copy(update={"denoiser": None, "name": f"{recipe.name}-first"})


def pictures_of(first_stage: str) -> str | None:
    """The data source that a run's first stage learnt from; None for what is no run folder."""
    path = Path(first_stage) / RECIPE
    return read_recipe(path).data.source if path.is_file() else None


def with_first_stage(
    recipe: Recipe, stored: StoredModel, *, size: int | None = None, source: str | None = None
) -> Recipe:
    """The recipe on a given first stage: the network's channels follow its latents, whose scale is measured anew.

    A recipe that trains only a decoder keeps its tiny decoder, loss and training, and takes all else from the given
    first stage; its pictures have that one's channels, the side `size`, and come from `source` (None: the recipe's
    own). A tiny decoder of the given first stage is replaced like any other.
    """
    spec = first_stage_of(stored).spec
    assert isinstance(spec, AutoencoderSpec)
    values = recipe.plain()
    if recipe.first_stage.only is None:
        values["first_stage"] = {"model": spec.plain(), "train": None}
    else:
        values["first_stage"]["model"] = {**spec.plain(), "tiny": values["first_stage"]["model"]["tiny"]}
        values["data"] |= {"channels": spec.image_channels, "size": size or recipe.data.size}
        values["data"]["source"] = source or recipe.data.source
    if recipe.denoiser is not None:
        conditioners, channels = on_latents(recipe.denoiser, spec, small=recipe.data.degradation.factor)
        values["denoiser"] |= {"conditioners": conditioners, "scale": None}
        values["denoiser"]["network"] |= channels
        if values["denoiser"]["spread"] is not None:
            values["denoiser"]["spread"] = coarse_first(spec)
    return parse(Recipe, values, where=f"recipe {recipe.name!r} with the given first stage")


def on_pixels(recipe: Recipe, *, patches: bool = False) -> Recipe:
    """The recipe without a learnt first stage, the paper's baseline.

    Its network gets a narrow level for each halving that the first stage made, and attends where it attended before.
    patches: instead, the squares of pixels that became one place of the first stage become channels, and the network
    has the levels that it had. `SpecError` for a first stage alone.
    """
    if recipe.denoiser is None:
        raise SpecError(f"recipe {recipe.name!r} is a first stage alone, and pixels need none")
    before, part = recipe.first_stage.model, recipe.denoiser
    if isinstance(before, PixelsSpec):
        return recipe
    pixels = PixelsSpec(image_channels=before.image_channels, patch=before.factor if patches else 1)
    conditioners, channels = on_latents(part, pixels, small=recipe.data.degradation.factor)
    values = recipe.plain()
    values["name"] = f"{recipe.name}-{'patches' if patches else 'pixels'}"
    values["first_stage"] = {"model": pixels.plain(), "train": None}
    values["denoiser"] |= {"scale": None, "spread": None, "conditioners": conditioners}
    values["denoiser"]["network"] |= ({} if patches else _deeper(part.network, factor=before.factor)) | channels
    return parse(Recipe, values, where=f"recipe {recipe.name!r} on pixels")


def _deeper(network: UNetSpec, *, factor: int) -> dict[str, Any]:
    """Plain changes to a network so that it makes the halvings that a first stage of this factor made."""
    narrow = max(WIDTH, network.channels // 4 // WIDTH * WIDTH)
    widened = tuple(max(1, each * network.channels // narrow) for each in network.multipliers)
    return {
        "channels": narrow,
        "multipliers": (*(min(1 + level, widened[0]) for level in range(factor.bit_length() - 1)), *widened),
        "attention": [each * factor for each in network.attention],
        "norm_groups": min(network.norm_groups, 16),
    }


def on_latents(
    part: DenoiserRecipe, first_stage: AutoencoderSpec | PixelsSpec, *, small: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The conditioners of a denoiser on the latents of this first stage, and its network's channels, as plain values.

    small: see `at_latents`.
    """
    conditioners = [at_latents(each, first_stage, small=small) for each in part.conditioners]
    latent = first_stage.latent_channels
    channels = {"in_channels": latent + plane_channels(conditioners), "out_channels": latent}
    return [each.plain() for each in conditioners], channels


def at_latents(
    conditioner: ConditionerSpec, first_stage: AutoencoderSpec | PixelsSpec, *, small: int
) -> ConditionerSpec:
    """A condition that lies beside latents, brought to the size and channels of those of this first stage.

    small: how many times smaller than the result low-resolution pictures are; `SpecError` where that is neither a
    multiple of f nor a part of it.
    """
    match conditioner:
        case MapSpec():
            halvings = min(conditioner.halvings, first_stage.factor.bit_length() - 1)
            return conditioner.model_copy(update={"halvings": halvings, "patch": first_stage.factor // 2**halvings})
        case LowResSpec():
            channels, times = first_stage.image_channels, max(1, small // first_stage.factor)
            guesses = first_stage.latent_channels if conditioner.guesses else 0
            if small % first_stage.factor == 0:
                lie = {"patch": 1, "enlarge": times, "channels": channels, "guesses": guesses}
                return conditioner.model_copy(update=lie)
            if first_stage.factor % small:
                raise SpecError(
                    f"pictures {small} times smaller do not lie beside latents of f = {first_stage.factor}; "
                    f"data.degradation.factor must be a multiple or a part of {first_stage.factor}"
                )
            patch = first_stage.factor // small
            lie = {"patch": patch, "enlarge": 1, "channels": channels * patch**2, "guesses": guesses}
            return conditioner.model_copy(update=lie)
        case MaskedSpec():
            return conditioner.model_copy(update={"channels": first_stage.latent_channels + 1})
        case _:
            return conditioner


def coarse_first(first_stage: AutoencoderSpec) -> tuple[float, ...] | None:
    """Deviations for the latents of a first stage that began as resizing; None for any other.

    Its first channels are the picture made small and the rest is detail, which may well spread twice as wide: then
    edges come out of the noise before there is a colour for them to bound.
    """
    if first_stage.shortcut == "none":
        return None
    small = first_stage.image_channels
    return (1.0,) * small + (DETAIL,) * (first_stage.latent_channels - small)


def check_begin(part: FirstStageRecipe) -> None:
    """`ModelFileError` or `SpecError` for weights to begin with that are not there, or are of another first stage."""
    if part.begin is not None:
        _weights_to_begin_with(part)


def begin_first_stage(model: Autoencoder, part: FirstStageRecipe) -> None:
    """Put the weights that training begins with into a first stage; nothing where it begins with fresh ones."""
    if part.begin is not None:
        model.load_state_dict(dict(_weights_to_begin_with(part).state))


def _weights_to_begin_with(part: FirstStageRecipe) -> StoredModel:
    assert part.begin is not None
    stored = first_stage_of(read_stage(find(part.begin)))
    ours, theirs = part.model.plain(), stored.spec.plain()
    other = next((key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)), None)
    if other is not None:
        raise SpecError(
            f"first_stage.begin: {part.begin} is another first stage ({other} is {theirs.get(other)!r}, the recipe's "
            f"{ours.get(other)!r}); begin with one that is the same, or with fresh weights: first_stage.begin=null"
        )
    return stored


def begin_decoder(
    model: Autoencoder, given: StoredModel, *, measure: Callable[[Autoencoder], LatentStatistics]
) -> tuple[Autoencoder, LatentStatistics]:
    """Put the weights of a given first stage into a model with another decoder, which begins at standardised latents.

    Answers the given one with the decoder it came with, and how its latents are spread, measured if it does not tell.
    """
    full = build(given)
    assert isinstance(full, Autoencoder)
    model.load_state_dict(without_decoder(given.state), strict=False)
    statistics = given.latents or measure(model.eval())
    standardise(model.from_latent, statistics)
    return full, statistics

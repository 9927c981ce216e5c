"""Recipes that would fail later are refused before a folder is claimed or a step is made."""

from darkroom.autoencoder.adversary import check_adversary
from darkroom.autoencoder.bottleneck import VQSpec
from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.core.compute import missing_compiler
from darkroom.core.errors import SpecError
from darkroom.data.sources import SCENES
from darkroom.nn.features import perceptual
from darkroom.nn.taps import SMALLEST
from darkroom.recipes import length
from darkroom.recipes.schema import FirstStageRecipe, Recipe
from darkroom.scenes.vocabulary import CANVAS


def check_trainable(recipe: Recipe, *, given: bool) -> None:
    """`SpecError` for a recipe that cannot be carried out, `InputError` where a network that it needs is not here.

    given: is there a first stage that exists already?
    """
    first_stage, denoiser, name = recipe.first_stage, recipe.denoiser, recipe.name
    if first_stage.only is not None and not given:
        raise SpecError(
            f"recipe {name!r} trains a decoder for a first stage that exists; say which with --first-stage MODEL"
        )
    if recipe.data.source in SCENES and recipe.data.size < CANVAS // 2:
        raise SpecError(
            f"data.size {recipe.data.size} is too small for {recipe.data.source}; at least {CANVAS // 2} fits"
        )
    trained = isinstance(first_stage.model, AutoencoderSpec) and (first_stage.only is not None or not given)
    if trained:
        _check_first_stage(first_stage, name=name, size=recipe.data.size)
    elif denoiser is None:
        raise SpecError(f"recipe {name!r} leaves nothing to train: its first stage is given or has no weights")
    if denoiser is not None and denoiser.train is None:
        raise SpecError(f"recipe {name!r} does not say how its denoiser is trained (denoiser.train)")
    _check_compiled(recipe)


def _check_compiled(recipe: Recipe) -> None:
    stages = [stage for stage, train in length.trained(recipe).items() if train.compiled]
    if "first_stage" in stages:
        raise SpecError("first_stage.train.compiled does not fit: only the network of a denoiser is compiled")
    lacking = missing_compiler()
    if stages and lacking is not None:
        raise SpecError(f"denoiser.train.compiled needs a C++ compiler, and there is no {lacking}; leave it out")


def _check_first_stage(part: FirstStageRecipe, *, name: str, size: int) -> None:
    assert isinstance(part.model, AutoencoderSpec)
    if part.train is None:
        raise SpecError(f"recipe {name!r} does not train its first stage; give one with --first-stage MODEL")
    if part.loss.revival is not None and not isinstance(part.model.bottleneck, VQSpec):
        raise SpecError("first_stage.loss.revival keeps a codebook alive, and this first stage has none; remove it")
    check_adversary(part.loss.adversary, size=size)
    if part.loss.perceptual_weight:
        if size < SMALLEST:
            raise SpecError(
                f"pictures of {size} px are too small to compare features; at least {SMALLEST} fits, or set "
                "first_stage.loss.perceptual_weight=0"
            )
        perceptual(part.loss.perceptual)

"""Recipes that differ in one thing alone: the first stage, its factor, the width of the network."""

import math
from typing import Any, Final, Literal

from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import AutoencoderSpec, PixelsSpec
from darkroom.core.hollow import hollow, parameters_of
from darkroom.core.spec import parse
from darkroom.network.unet import UNet
from darkroom.recipes.given import coarse_first, on_latents
from darkroom.recipes.schema import Recipe

Bottleneck = Literal["kl", "vq"]
CODES: Final = 1024  # of a codebook, for pictures far smaller than those of the paper
WIDEST: Final = 1024  # channels
FINE: Final = 16  # places along a side of latents, above which a small machine makes few steps


def first_stage(recipe: Recipe, *, name: str, changes: dict[str, Any], bottleneck: Bottleneck) -> Recipe:
    """The first stage alone, some of its spec changed, with a bottleneck whose dead codes come back."""
    values = recipe.plain()
    kind = KLSpec() if bottleneck == "kl" else VQSpec(codes=CODES)
    values |= {"name": name, "denoiser": None}
    values["first_stage"]["model"] |= {**changes, "bottleneck": kind.plain()}
    if bottleneck == "vq":
        values["first_stage"]["loss"]["revival"] = {}
    return parse(Recipe, values, where=name)


def denoiser(
    recipe: Recipe,
    *,
    name: str,
    on: AutoencoderSpec | PixelsSpec,
    network: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
) -> Recipe:
    """The second stage alone on latents of this first stage, some of its network and its training changed."""
    values = recipe.plain()
    part = recipe.denoiser
    assert part is not None
    conditioners, channels = on_latents(part, on, small=recipe.data.degradation.factor)
    values |= {"name": name, "first_stage": {"model": on.plain(), "train": None}}
    values["denoiser"]["conditioners"] = conditioners
    values["denoiser"]["network"] |= (network or {}) | channels
    values["denoiser"]["train"] |= train or {}
    if values["denoiser"]["spread"] is not None:
        values["denoiser"]["spread"] = coarse_first(on) if isinstance(on, AutoencoderSpec) else None
    return parse(Recipe, values, where=name)


def quick(recipe: Recipe, *, batch: int | None) -> Recipe:
    """The recipe as it learns most in few minutes on a small machine: by Muon, what takes long in smaller batches.

    As folders are trained (`recipes.folder`); Tab. 13 has batches of 7 on pixels and of 112 on the smallest latents,
    too, and about one learning rate for all. batch: that of every recipe instead.
    """
    side = recipe.data.size // recipe.first_stage.model.factor
    values = recipe.plain()
    few = 16 if side > FINE else 32
    values["denoiser"]["train"] |= {"batch": batch or few, "learning_rate": 2e-3, "optimizer": "muon"}
    return parse(Recipe, values, where=recipe.name)


def of_size(recipe: Recipe, parameters: int) -> Recipe:
    """The recipe with the width at which its network has as nearly as can be so many parameters."""
    low, high = 1, WIDEST // _grain(recipe)
    while low < high:  # the narrowest that has as many
        middle = (low + high) // 2
        low, high = (low, middle) if _parameters(recipe, middle) >= parameters else (middle + 1, high)
    near = min((max(1, low - 1), low), key=lambda width: abs(_parameters(recipe, width) - parameters))
    return _as_wide(recipe, near)


def _parameters(recipe: Recipe, width: int) -> int:
    assert recipe.denoiser is not None
    spec = recipe.denoiser.network.model_copy(update={"channels": width * _grain(recipe)})
    with hollow():
        return parameters_of(UNet(spec))


def _as_wide(recipe: Recipe, width: int) -> Recipe:
    values = recipe.plain()
    values["denoiser"]["network"]["channels"] = width * _grain(recipe)
    return parse(Recipe, values, where=recipe.name)


def _grain(recipe: Recipe) -> int:
    """What widths are multiples of: groups and heads divide them."""
    assert recipe.denoiser is not None
    network = recipe.denoiser.network
    return math.lcm(network.norm_groups, network.head_channels or 1, network.heads or 1)

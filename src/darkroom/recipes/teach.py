"""Teaching a model what it was not steered by: its network with other ports, and all weights that fit them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from darkroom.conditioning.conditioner import ConditionerSpec, plane_channels
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec
from darkroom.conditioning.spatial import LowResSpec, MaskedSpec
from darkroom.conditioning.text import TextSpec
from darkroom.core.errors import SpecError
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.recipes.given import at_latents
from darkroom.recipes.schema import DenoiserRecipe

STEM = "network.stem.weight"
PORTS = ("in_channels", "context_width")  # of a network: what follows from its conditioners


def taught(part: DenoiserRecipe, spec: ModelSpec, *, name: str, small: int) -> dict[str, Any]:
    """Network, conditioners and objective (plain) of a model `name` that learns to be steered as a recipe says.

    What steers both stays the model's but for `drop`; the network has the model's body and the ports that are needed,
    tokens the width of the model's; of the objective only what counts how much is the recipe's. small: how many times
    smaller low-resolution pictures are. `SpecError` for tokens where the model attends to nothing.
    """
    known = {each.field: each for each in spec.conditioners}
    conditioners = [
        _kept(known[each.field], each) if each.field in known else _new(each, spec, small=small)
        for each in part.conditioners
    ]
    widths = [each.width for each in conditioners if each.port == "tokens"]
    if widths and spec.network.transformer_depth == 0:
        raise SpecError(
            f"{name} attends to nothing but itself (transformer_depth 0), so it can be taught maps, small pictures and "
            "holes, but no captions, classes or layouts"
        )
    ports = (spec.first_stage.latent_channels + plane_channels(conditioners), widths[0] if widths else None)
    weighed = {"weighting": part.objective.weighting, "times": part.objective.times}
    return {
        "network": spec.network.plain() | dict(zip(PORTS, ports, strict=True)),
        "conditioners": [each.plain() for each in conditioners],
        "objective": spec.objective.model_copy(update=weighed).plain(),
    }


def _kept(ours: ConditionerSpec, asked: ConditionerSpec) -> ConditionerSpec:
    """The model's conditioner, dropped as often as the recipe says if it has a null condition."""
    without_null = isinstance(ours, ClassSpec) and ours.null is None
    return ours if without_null else ours.model_copy(update={"drop": asked.drop})


def _new(asked: ConditionerSpec, spec: ModelSpec, *, small: int) -> ConditionerSpec:
    """A conditioner that lies beside the model's latents, or gives tokens of the width that it attends to."""
    width = spec.network.context_width
    match asked:
        case TextSpec() | LayoutSpec() if width is not None:
            return asked.model_copy(update={"encoder": asked.encoder.model_copy(update={"width": width})})
        case ClassSpec(port="tokens") if width is not None:
            return asked.model_copy(update={"width": width})
        case ClassSpec(port="vector"):
            return asked.model_copy(update={"width": spec.network.embedding_width})
        case LowResSpec():  # without a guess, for the network knows whole latents
            return at_latents(asked.model_copy(update={"guesses": 0}), spec.first_stage, small=small)
        case MaskedSpec():
            return at_latents(asked.model_copy(update={"guesses": False}), spec.first_stage, small=small)
        case _:
            return at_latents(asked, spec.first_stage, small=small)


def fitted(model: LatentDiffusion, state: Mapping[str, Tensor], *, before: ModelSpec) -> dict[str, Tensor]:
    """The weights of a model of spec `before` for one with other ports; what they lack begins as in `model`.

    New planes enter with weight zero, and so do new vectors. Cross-attention begins anew, its output with zero, unless
    tokens of one width came in before as well.
    """
    vectors = {each.field for each in model.spec.conditioners if each.port == "vector"} - set(before.fields)
    silent = tuple(f"conditioning.by_field.{field}." for field in vectors)
    own, network = model.state_dict(), model.spec.network
    attends_alike = network.context_width == before.network.context_width
    found: dict[str, Tensor] = {}
    for key, fresh in own.items():
        old = state.get(key)
        if key == STEM:
            assert old is not None
            found[key] = _stem(old, fresh, now=model.spec, before=before)
        elif silent and key.startswith(silent):
            found[key] = torch.zeros_like(fresh)
        elif not attends_alike and ".cross_attention." in key:
            found[key] = torch.zeros_like(fresh) if ".out." in key else fresh
        else:
            found[key] = old if old is not None and old.shape == fresh.shape else fresh
    return found


def _stem(old: Tensor, fresh: Tensor, *, now: ModelSpec, before: ModelSpec) -> Tensor:
    """The first convolution: latents, then the planes of each field where they lie now."""
    made = torch.zeros_like(fresh)
    latent = now.first_stage.latent_channels
    made[:, :latent] = old[:, :latent]
    lay, lie = _places(before), _places(now)
    for field in lay.keys() & lie.keys():
        made[:, lie[field]] = old[:, lay[field]]
    return made


def _places(spec: ModelSpec) -> dict[str, slice]:
    """Where the planes of each field enter."""
    found: dict[str, slice] = {}
    start = spec.first_stage.latent_channels
    for each in spec.conditioners:
        if each.port == "planes":
            found[each.field] = slice(start, start + each.channels)
            start += each.channels
    return found

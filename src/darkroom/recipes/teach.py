"""Teaching a model what it was not steered by: its network with other ports, and all weights that fit them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.recipes.schema import DenoiserRecipe

STEM = "network.stem.weight"
PORTS = ("in_channels", "context_width")  # of a network: what follows from its conditioners


def taught(part: DenoiserRecipe, spec: ModelSpec) -> dict[str, Any]:
    """Network, conditioners and objective (plain) of a model that learns to be steered as a recipe says.

    What steers both stays the model's but for `drop`; the network has the model's body and the ports that are needed;
    of the objective only what counts how much is the recipe's.
    """
    known = {each.field: each for each in spec.conditioners}
    conditioners = [
        known[each.field].model_copy(update={"drop": each.drop}) if each.field in known else each
        for each in part.conditioners
    ]
    planes = sum(each.channels for each in conditioners if each.port == "planes")
    widths = [each.width for each in conditioners if each.port == "tokens"]
    ports = (spec.first_stage.latent_channels + planes, widths[0] if widths else None)
    weighed = part.objective.plain()
    objective = spec.objective.plain() | {key: weighed[key] for key in ("weighting", "times") if key in weighed}
    return {
        "network": spec.network.plain() | dict(zip(PORTS, ports, strict=True)),
        "conditioners": [each.plain() for each in conditioners],
        "objective": objective,
    }


def fitted(model: LatentDiffusion, state: Mapping[str, Tensor], *, before: ModelSpec) -> dict[str, Tensor]:
    """The weights of a model of spec `before` for one with other ports; what they lack begins as in `model`.

    New planes enter with weight zero. Cross-attention begins anew, its output with zero, unless tokens of one width
    came in before as well.
    """
    own, network = model.state_dict(), model.spec.network
    attends_alike = network.context_width == before.network.context_width
    found: dict[str, Tensor] = {}
    for key, fresh in own.items():
        old = state.get(key)
        if key == STEM:
            assert old is not None
            found[key] = _stem(old, fresh, now=model.spec, before=before)
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

"""What a recipe would cost, known before anything is allocated: parameters, operations, memory."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, FirstStageSpec, build_first_stage
from darkroom.conditioning.conditioner import ConditionerSpec, Conditioning, extent
from darkroom.core.conditions import Conditions
from darkroom.core.hollow import hollow, parameters_of
from darkroom.core.spec import parse
from darkroom.diffusion.model import ModelSpec
from darkroom.network.unet import UNet, UNetSpec
from darkroom.recipes.held import CAST, FLOAT, held_by_denoiser, held_by_first_stage
from darkroom.recipes.length import trained
from darkroom.recipes.schema import DataSpec, DenoiserRecipe, FirstStageRecipe, Recipe
from darkroom.train.optim import TrainSpec


def describe(recipe: Recipe) -> dict[str, Any]:
    """JSON-ready facts about a recipe; everything is built on the meta device, so no memory is taken.

    parameters: of first_stage, network, conditioner · flops: multiply-adds of one `network` evaluation,
    `encode` and `decode`, batch 1 · memory: bytes of float32 `weights`, and of all that training each stage keeps but
    activations: weights, gradients, the optimiser's moments, averages, also of what judges or teaches · latent:
    (c, h, w) · factor: f · size_multiple: sides of pictures must be multiples of it.
    """
    part, spec, size = recipe.denoiser, recipe.model_spec(), recipe.data.size
    latent = latent_shape(recipe)
    parameters = count(recipe)
    return {
        "name": recipe.name,
        "summary": recipe.summary,
        "source": recipe.source,
        "parameters": parameters,
        "flops": _flops(recipe, latent=latent),
        "memory": _memory(recipe, parameters),
        "size": size,
        "factor": recipe.first_stage.model.factor,
        "latent": list(latent),
        "size_multiple": recipe.first_stage.model.factor if spec is None else spec.size_multiple,
        "fields": [] if spec is None else list(spec.fields),
        "schedule": None if part is None else part.schedule.plain(),
        "prediction": None if part is None else part.prediction,
        "training": {
            "first_stage": _training(recipe.first_stage.train),
            "denoiser": None if part is None else _training(part.train),
        },
        "sampling": None if part is None else part.sample.plain(),
    }


def describe_model(spec: ModelSpec | AutoencoderSpec, *, size: int | None = None) -> dict[str, Any]:
    """`parameters`, `flops` and `memory` (bytes of float32 `weights`) of a model, as `describe` tells them.

    size: side in pixels of the pictures of a first stage alone, which does not say it (None: 16 latents wide).
    """
    whole = isinstance(spec, ModelSpec)
    first_stage = spec.first_stage if whole else spec
    side = spec.image_size if whole else size or 16 * spec.factor
    recipe = Recipe(
        name="model",
        summary="",
        data=parse(DataSpec, {"size": side, "channels": first_stage.image_channels}, where="model"),
        first_stage=FirstStageRecipe(model=first_stage),
        denoiser=DenoiserRecipe(network=spec.network, conditioners=spec.conditioners, schedule=spec.schedule)
        if whole
        else None,
    )
    found = describe(recipe)
    memory = {"weights": found["memory"]["weights"]}
    return {"parameters": found["parameters"], "flops": found["flops"], "memory": memory}


def latent_shape(recipe: Recipe) -> tuple[int, int, int]:
    """(c, h, w) of the latent of a training picture."""
    spec = recipe.first_stage.model
    side = recipe.data.size // spec.factor
    return spec.latent_channels, side, side


def count(recipe: Recipe) -> dict[str, int]:
    """Parameters of `first_stage`, `network` and `conditioner`; 0 for what the recipe does not have."""
    part = recipe.denoiser
    return {
        "first_stage": _first_stage_parameters(recipe.first_stage.model),
        "network": 0 if part is None else _network_parameters(part.network),
        "conditioner": _conditioner_parameters(() if part is None else part.conditioners),
    }


@functools.cache  # each kind by itself: many recipes share a first stage
def _first_stage_parameters(spec: FirstStageSpec) -> int:
    with hollow():
        return parameters_of(build_first_stage(spec))


@functools.cache
def _network_parameters(spec: UNetSpec) -> int:
    with hollow():
        return parameters_of(UNet(spec))


@functools.cache
def _conditioner_parameters(specs: tuple[ConditionerSpec, ...]) -> int:
    with hollow():
        return parameters_of(Conditioning(specs))


def _flops(recipe: Recipe, *, latent: tuple[int, int, int]) -> dict[str, int]:
    part = recipe.denoiser
    flops = dict(_first_stage_flops(recipe.first_stage.model, recipe.data.size))
    flops["network"] = 0 if part is None else _network_flops(part.network, part.conditioners, latent=latent)
    return flops


@functools.cache
def _first_stage_flops(spec: FirstStageSpec, size: int) -> dict[str, int]:
    """Both directions; quantising is left out (its distances are a matter of the codebook, not of the picture)."""
    if not isinstance(spec, AutoencoderSpec):
        return {"encode": 0, "decode": 0}
    with torch.device("meta"), torch.no_grad():
        model = Autoencoder(spec).eval()
        images = torch.empty(1, spec.image_channels, size, size)
        latents = torch.empty(1, *model.latent_shape((size, size)))
        return {
            "encode": _counted(lambda: model.moments(images)),
            "decode": _counted(lambda: model.decode_raw(latents)),
        }


@functools.cache
def _network_flops(spec: UNetSpec, conditioners: tuple[ConditionerSpec, ...], *, latent: tuple[int, int, int]) -> int:
    with torch.device("meta"), torch.no_grad():
        network = UNet(spec).eval()
        x, t = torch.empty(1, *latent), torch.zeros(1, dtype=torch.long)
        conditions = _conditions(conditioners, latent=latent)
        return _counted(lambda: network(x, t, conditions))


def _counted(act: Callable[[], object]) -> int:
    """Half of what torch counts: to it a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops() // 2


def _conditions(specs: tuple[ConditionerSpec, ...], *, latent: tuple[int, int, int]) -> Conditions:
    """Empty ports of the shapes that the conditioners would fill."""
    tokens = [torch.empty(1, extent(spec), spec.width) for spec in specs if spec.port == "tokens"]
    planes = [torch.empty(1, extent(spec), *latent[1:]) for spec in specs if spec.port == "planes"]
    vectors = [torch.empty(1, spec.width) for spec in specs if spec.port == "vector"]
    return Conditions(
        tokens=torch.cat(tokens, dim=1) if tokens else None,
        vector=vectors[0] if vectors else None,
        planes=torch.cat(planes, dim=1) if planes else None,
    )


def _memory(recipe: Recipe, parameters: dict[str, int]) -> dict[str, int]:
    """Bytes; 0 for a stage that is not trained. Without the copy that autocast keeps, which not every device makes."""
    first, denoiser = parameters["first_stage"], parameters["network"] + parameters["conditioner"]
    part, stages = recipe.denoiser, trained(recipe)
    alone = held_by_first_stage(recipe.first_stage, whole=first) if "first_stage" in stages else {}
    both = {}
    if part is not None and part.train is not None:
        both = held_by_denoiser(part, trained=denoiser, first_stage=first)
    return {
        "weights": FLOAT * (first + denoiser),
        "train_first_stage": sum(each for name, each in alone.items() if name != CAST),
        "train_denoiser": sum(each for name, each in both.items() if name != CAST),
    }


def _training(train: TrainSpec | None) -> dict[str, Any] | None:
    return None if train is None else train.plain()

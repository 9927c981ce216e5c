"""What training a denoiser would take on GPUs that are not here: counted on tensors without memory, nothing is tried.

Parameters, optimiser and operations are exact. Activations are what a forward pass keeps for the backward pass. Time is
operations over what a GPU is rated for, at an assumed share of it (`RATE`), or that of averaging gradients over assumed
links where this is longer; it is an estimate and no measurement.
"""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from darkroom.conditioning.conditioner import Conditioning
from darkroom.conditioning.spatial import MapSpec, MaskedSpec
from darkroom.core.errors import SpecError, did_you_mean
from darkroom.core.hollow import hollow
from darkroom.diffusion.model import ModelSpec
from darkroom.network.unet import UNet
from darkroom.recipes.describe import FLOAT, count, latent_shape
from darkroom.recipes.pace import like
from darkroom.recipes.schema import DenoiserRecipe, Recipe
from darkroom.train.optim import TrainSpec
from darkroom.train.parted import units

RATE: Final = 0.3  # of a GPU's rated operations that a step is assumed to reach
USABLE: Final = 0.9  # of its memory
MACHINE: Final = 8  # GPUs of one machine
INSIDE, BETWEEN = 300e9, 50e9  # bytes a second that a GPU sends, within a machine and between several (400 Gbit/s)
PASSES: Final = 3  # as many operations as the forward pass: it, and two products for each in the backward pass
AGAIN: Final = 4  # where activations are worked out again


@final
@dataclass(frozen=True)
class Gpu:
    """Bytes of memory, and multiply-adds a second of dense bfloat16 products as its maker rates it."""

    memory: float
    rated: float


GPUS: Final = {
    "a100": Gpu(80e9, 312e12 / 2),
    "h100": Gpu(80e9, 989e12 / 2),
    "h200": Gpu(141e9, 989e12 / 2),
    "l40s": Gpu(48e9, 362e12 / 2),
}


@final
@dataclass(frozen=True)
class Step:
    """What a picture costs in training: bytes kept for the backward pass (float32), multiply-adds forward."""

    kept: int
    operations: int


def plan_for(recipe: Recipe, *, gpus: int, gpu: str) -> dict[str, Any]:
    """Memory of a GPU, the largest batch that fits, and days, for the denoiser of a recipe, by its `train.strategy`.

    `SpecError` for an unknown GPU, and for a recipe that trains no denoiser or whose batch they cannot share.
    """
    if gpu not in GPUS:
        raise SpecError(f"gpu={gpu} is unknown{did_you_mean(gpu, GPUS)}")
    part = recipe.denoiser
    if part is None or part.train is None:
        raise SpecError(f"recipe {recipe.name!r} trains no denoiser, which is what can be planned for other machines")
    if gpus < 1 or part.train.batch % gpus:
        raise SpecError(f"train.batch is {part.train.batch}, which gpus={gpus} cannot share evenly")
    has, parameters, step = GPUS[gpu], count(recipe), step_of(recipe)
    trained = parameters["network"] + parameters["conditioner"]
    held = _held(part, part.train, trained=trained, gpus=gpus)
    held["first_stage"] = FLOAT * parameters["first_stage"]
    each, kept = part.train.batch // gpus, step.kept if part.train.precision == "float32" else step.kept // 2
    room = USABLE * has.memory - sum(held.values())
    passes = AGAIN if part.network.recompute else PASSES
    working = passes * step.operations * each / (RATE * has.rated)
    sent = _sent(part.train, trained=trained) * (gpus - 1) / gpus
    averaging = sent / (INSIDE if gpus <= MACHINE else BETWEEN)
    seconds = max(working, averaging)  # gradients go out while others are still worked out
    return {
        "recipe": recipe.name,
        "gpus": gpus,
        "gpu": gpu,
        "strategy": part.train.strategy,
        "parameters": parameters,
        "operations": step.operations,
        "memory": held | {"activations": kept * each},
        "largest_batch": max(0, int(room // kept)) * gpus,
        "fits": kept * each <= room,
        "batch": part.train.batch,
        "steps": part.train.steps,
        "seconds_a_step": {"working": working, "averaging_gradients": averaging},
        "days": seconds * part.train.steps / 86400,
        "gpu_hours": seconds * part.train.steps / 3600 * gpus,
    }


def _held(part: DenoiserRecipe, train: TrainSpec, *, trained: int, gpus: int) -> dict[str, int]:
    """Bytes that a GPU holds whatever the batch is; with FSDP its shares, and what is whole at a time.

    In bfloat16 that is a cast of all weights, too, which the backward pass needs unless it works activations out again.
    """
    values = {"weights": 1, "gradients": 1, "optimizer": 2, "average": int(train.ema > 0)}
    if train.strategy == "ddp" or gpus == 1:
        return {name: FLOAT * trained * copies for name, copies in values.items()}
    shares = {name: FLOAT * trained * copies // gpus for name, copies in values.items()}
    casts = 0 if train.precision == "float32" or part.network.recompute else FLOAT * trained // 2
    return shares | {"whole_at_a_time": FLOAT * _whole_at_a_time(part) + casts}


def _whole_at_a_time(part: DenoiserRecipe) -> int:
    """Values of what no unit owns and of the largest unit, with gradients; the next unit's are fetched meanwhile."""
    with hollow():
        parts = (UNet(part.network), Conditioning(part.conditioners))
    sizes = [sum(each.numel() for each in unit.parameters()) for module in parts for unit in units(module)]
    rest = sum(each.numel() for module in parts for each in module.parameters()) - sum(sizes)
    return 2 * rest + 3 * max(sizes)


def _sent(train: TrainSpec, *, trained: int) -> int:
    """Bytes that a GPU sends to many others in a step: gradients twice; in parts gradients once and weights twice."""
    return FLOAT * trained * (2 if train.strategy == "ddp" else 3)


def told_for(plan: Mapping[str, Any]) -> str:
    """The plan in words."""
    memory, batch = plan["memory"], plan["batch"]
    total, seconds = sum(memory.values()), plan["seconds_a_step"]
    sends = "averages gradients" if plan["strategy"] == "ddp" else "gathers weights and averages gradients"
    fits = "fits" if plan["fits"] else f"does NOT fit: lower train.micro, or {plan['largest_batch']} pictures a step"
    return "\n".join(
        [
            f"{plan['recipe']} on {plan['gpus']} x {plan['gpu']}, by {plan['strategy'].upper()}, the denoiser alone",
            "parameters  " + ", ".join(f"{name} {each / 1e6:.2f} M" for name, each in plan["parameters"].items()),
            f"operations  {plan['operations'] / 1e9:.1f} G multiply-adds a picture, forward",
            f"memory      {total / 1e9:.1f} GB of each GPU, which {fits}: "
            + ", ".join(f"{name} {each / 1e9:.1f}" for name, each in memory.items()),
            f"batch       {batch} pictures ({batch // plan['gpus']} a GPU); at most {plan['largest_batch']} fit",
            f"time        {plan['days']:.1f} days for {plan['steps']} steps, {plan['gpu_hours']:.0f} GPU hours: a step "
            f"works for {seconds['working']:.3f} s and {sends} for {seconds['averaging_gradients']:.3f} s, "
            f"the longer counts; assumed: {RATE:.0%} of what GPUs are rated for, {BETWEEN / 1e9:.0f} GB/s outside",
        ]
    )


def step_of(recipe: Recipe) -> Step:
    """A picture's cost in network and conditioners, counted on tensors without memory."""
    model = recipe.model_spec()
    assert model is not None
    latent = latent_shape(recipe)
    with hollow(), _Alive() as alive, FlopCounterMode(display=False) as counter:
        network, conditioning = UNet(model.network).train(), Conditioning(model.conditioners).train()
        fields = blank(model, latent=latent)
        x, t = torch.empty(1, *latent), torch.zeros(1, dtype=torch.long)
        before = alive.bytes()
        output = network(x, t, conditioning(fields))
        kept = alive.bytes() - before
    del output
    return Step(kept, counter.get_total_flops() // 2)


def blank(model: ModelSpec, *, latent: tuple[int, int, int], batch: int = 1) -> dict[str, Tensor]:
    """What conditioners read, prepared, all of it zeros. latent: (c, h, w)."""
    side = model.image_size
    fields: dict[str, Tensor] = {}
    for each in model.conditioners:
        match each:
            case MapSpec():
                fields[each.field] = torch.zeros(batch, each.classes, side, side)
            case MaskedSpec():
                fields[each.field] = torch.zeros(batch, each.channels, *latent[1:])
            case _:
                fields[each.field] = like(each, model, batch=batch, latent=latent)
    return fields


@final
class _Alive(TorchDispatchMode):
    """Knows the memory of every tensor made inside that something still holds."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:  # ids are looked at, and here all are 0
            return 0
        answer = func(*args, **(kwargs or {}))
        for each in answer if isinstance(answer, (tuple, list)) else (answer,):
            if isinstance(each, Tensor):
                storage = each.untyped_storage()
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return answer

    def bytes(self) -> int:
        """Of all that is alive."""
        gc.collect()
        return sum(size for reference, size in self._made.values() if not reference.expired())

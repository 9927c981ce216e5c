"""What training a denoiser would take on GPUs that are not here: counted on tensors without memory, nothing is tried.

Parameters, optimiser and operations are exact. Activations are what a forward pass keeps for the backward pass, of the
pictures that a GPU takes at a time. Time is operations over what a GPU is rated for, at an assumed share of that
(`RATE`), or that of averaging gradients over assumed links where this is longer: an estimate and no measurement.
"""

import functools
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
from darkroom.recipes.describe import FLOAT, count, denoiser_moments, latent_shape
from darkroom.recipes.pace import like
from darkroom.recipes.schema import DenoiserRecipe, Recipe
from darkroom.train.optim import TrainSpec
from darkroom.train.parted import units
from darkroom.train.ranks import pieces_of

RATE: Final = 0.3  # of a GPU's rated operations that a step is assumed to reach
USABLE: Final = 0.9  # of its memory
MACHINE: Final = 8  # GPUs of one machine
LINK: Final = 50e9  # bytes a second that a machine sends to others: one link of 400 Gbit/s
PASSES: Final = 3  # as many operations as the forward pass: it, and two products for each in the backward pass
AGAIN: Final = 4  # where activations are worked out again


@final
@dataclass(frozen=True)
class Gpu:
    """Bytes of memory; multiply-adds a second of dense products in bfloat16 (half) and float32 (single), as its maker
    rates it; bytes a second that it is assumed to send to others inside its machine.
    """

    memory: float
    half: float
    single: float
    inside: float


GPUS: Final = {
    "a100": Gpu(80e9, half=312e12 / 2, single=19.5e12 / 2, inside=300e9),
    "h100": Gpu(80e9, half=989e12 / 2, single=67e12 / 2, inside=300e9),
    "h200": Gpu(141e9, half=989e12 / 2, single=67e12 / 2, inside=300e9),
    "l40s": Gpu(48e9, half=362e12 / 2, single=91.6e12 / 2, inside=25e9),  # by PCIe
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
    train = _training(recipe, gpus=gpus)
    has, parameters, step = GPUS[gpu], count(recipe), step_of(recipe)
    assert recipe.denoiser is not None
    held, each = _held(recipe.denoiser, parameters, gpus=gpus), train.batch // gpus
    piece = each // pieces_of(each, micro=train.micro)
    kept = step.kept if train.precision == "float32" else step.kept // 2
    room = USABLE * has.memory - sum(held.values())
    working = _operations(recipe, step) * each / (RATE * (has.single if train.precision == "float32" else has.half))
    trained = parameters["network"] + parameters["conditioner"]
    averaging = _averaging(train, trained=trained, gpus=gpus, has=has)
    seconds = max(working, averaging)  # gradients go out while others are still worked out
    return {
        "recipe": recipe.name,
        "gpus": gpus,
        "gpu": gpu,
        "strategy": train.strategy,
        "parameters": parameters,
        "operations": step.operations,
        "memory": held | {"activations": kept * piece},
        "largest_batch": max(0, int(room // kept)) * gpus,
        "fits": kept * piece <= room,
        "batch": train.batch,
        "at_a_time": piece * gpus,
        "steps": train.steps,
        "seconds_a_step": {"working": working, "averaging_gradients": averaging},
        "days": seconds * train.steps / 86400,
        "gpu_hours": seconds * train.steps / 3600 * gpus,
    }


def _training(recipe: Recipe, *, gpus: int) -> TrainSpec:
    train = None if recipe.denoiser is None else recipe.denoiser.train
    if train is None:
        raise SpecError(f"recipe {recipe.name!r} trains no denoiser, which is what can be planned for other machines")
    if train.precision == "float64":
        raise SpecError("train.precision float64 is for checks, and no GPU is rated for it here; take another")
    if gpus < 1 or train.batch % gpus:
        raise SpecError(f"train.batch is {train.batch}, which gpus={gpus} cannot share evenly")
    return train


def _held(part: DenoiserRecipe, parameters: Mapping[str, int], *, gpus: int) -> dict[str, int]:
    """Bytes that a GPU holds whatever the batch is; with FSDP its shares, and what is whole at a time.

    Autocast keeps a second copy of the weights, in two bytes each; with FSDP only where the backward pass needs it,
    which does not where it works activations out again.
    """
    train = part.train
    assert train is not None
    trained = parameters["network"] + parameters["conditioner"]
    averages = int(train.ema > 0) + (0 if train.averages is None else len(train.averages.widths))
    values = {"weights": 1, "gradients": 1, "averages": averages}
    if part.distill is not None:
        values |= {"teacher": 1, "follower": 1}
    parted = train.strategy == "fsdp" and gpus > 1
    kept = {name: trained * copies for name, copies in values.items()} | {"optimizer": denoiser_moments(part)}
    held = {name: FLOAT * each // (gpus if parted else 1) for name, each in kept.items()}
    if parted:
        held["whole_at_a_time"] = FLOAT * _whole_at_a_time(part)
    uncast = train.precision == "float32" or (parted and part.network.recompute)
    held["cast_weights"] = 0 if uncast else FLOAT // 2 * trained
    held["first_stage"] = FLOAT * parameters["first_stage"]
    return held


def _whole_at_a_time(part: DenoiserRecipe) -> int:
    """Values of what no unit owns and of the largest unit, with gradients; the next unit's are fetched meanwhile."""
    with hollow():
        parts = (UNet(part.network), Conditioning(part.conditioners))
    sizes = [sum(each.numel() for each in unit.parameters()) for module in parts for unit in units(module)]
    rest = sum(each.numel() for module in parts for each in module.parameters()) - sum(sizes)
    return 2 * rest + 3 * max(sizes)


def _operations(recipe: Recipe, step: Step) -> int:
    """Multiply-adds of a picture, forward and backward, and of those that a student learns from."""
    part = recipe.denoiser
    assert part is not None
    return step.operations * ((AGAIN if part.network.recompute else PASSES) + _asked_too(part))


def _averaging(train: TrainSpec, *, trained: int, gpus: int, has: Gpu) -> float:
    """Seconds that a step's exchange takes around a ring, in which each machine has one way in and one out.

    Gradients go around twice; where weights are in parts, gradients once and weights twice.
    """
    slowest = has.inside if gpus <= MACHINE else min(has.inside, LINK)
    rounds = 2 if train.strategy == "ddp" else 3
    return rounds * FLOAT * trained * (gpus - 1) / gpus / slowest


def _asked_too(part: DenoiserRecipe) -> int:
    """Forward passes of those that a student learns from: its average, and its teacher, twice where it is guided."""
    if part.distill is None:
        return 0
    return 2 if part.distill.guidance == 1 else 3


def told_for(plan: Mapping[str, Any]) -> str:
    """The plan in words."""
    memory, batch, gpus = plan["memory"], plan["batch"], plan["gpus"]
    total, seconds = sum(memory.values()), plan["seconds_a_step"]
    assumed = f"{RATE:.0%} of what GPUs are rated for"
    if gpus > MACHINE:
        assumed += f", machines of {MACHINE} with one link of {8 * LINK / 1e9:.0f} Gbit/s each"
    sends = "averages gradients" if plan["strategy"] == "ddp" else "gathers weights and averages gradients"
    return "\n".join(
        [
            f"{plan['recipe']} on {gpus} x {plan['gpu']}, by {plan['strategy'].upper()}, the denoiser alone",
            "parameters  " + ", ".join(f"{name} {each / 1e6:.2f} M" for name, each in plan["parameters"].items()),
            f"operations  {plan['operations'] / 1e9:.1f} G multiply-adds a picture, forward",
            f"memory      {total / 1e9:.1f} GB of each GPU, which {_fit(plan)}: "
            + ", ".join(f"{name} {each / 1e9:.1f}" for name, each in memory.items() if each),
            f"batch       {batch} pictures, {batch // gpus} a GPU, {plan['at_a_time'] // gpus} at a time; "
            f"at most {plan['largest_batch'] // gpus} at a time fit",
            f"time        {plan['days']:.1f} days for {plan['steps']} steps, {plan['gpu_hours']:.0f} GPU hours: a step "
            f"works for {seconds['working']:.3f} s and {sends} for {seconds['averaging_gradients']:.3f} s, "
            f"the longer counts; assumed: {assumed}",
        ]
    )


def _fit(plan: Mapping[str, Any]) -> str:
    most = plan["largest_batch"] // plan["gpus"]
    if plan["fits"]:
        return "fits"
    return f"does NOT fit; train.micro={most} does" if most else "does NOT fit, with however few pictures at a time"


def step_of(recipe: Recipe) -> Step:
    """A picture's cost in network and conditioners, counted on tensors without memory."""
    model = recipe.model_spec()
    assert model is not None
    return _counted(model, latent_shape(recipe))


@functools.lru_cache(maxsize=8)
def _counted(model: ModelSpec, latent: tuple[int, int, int]) -> Step:
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

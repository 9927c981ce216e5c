"""What training would take on GPUs that are not here: counted on tensors without memory, nothing is tried.

Parameters, optimiser and operations are exact. Activations are what a forward pass keeps for the backward pass, of the
pictures that a GPU takes at a time. Time is operations over what a GPU is rated for, at an assumed share of that
(`RATE`), or that of averaging gradients over assumed links where this is longer: an estimate and no measurement.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from darkroom.core.errors import SpecError, did_you_mean
from darkroom.recipes.counted import Step, first_stage_step, step_of
from darkroom.recipes.describe import count
from darkroom.recipes.held import FLOAT, held_by_denoiser, held_by_first_stage
from darkroom.recipes.length import trained
from darkroom.recipes.schema import Recipe
from darkroom.train.optim import TrainSpec
from darkroom.train.ranks import pieces_of

RATE: Final = 0.3  # of a GPU's rated operations that a step is assumed to reach
USABLE: Final = 0.9  # of its memory
MACHINE: Final = 8  # GPUs of one machine
LINK: Final = 50e9  # bytes a second that a machine sends to others: one link of 400 Gbit/s


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


def plan_for(recipe: Recipe, *, gpus: int, gpu: str) -> dict[str, Any]:
    """Memory of a GPU, the largest batch that fits, and days, for the denoiser of a recipe, by its `train.strategy`.

    Where a recipe trains both stages, the plan of its first one stands under `first_stage`, or under `unplanned` there
    why these GPUs cannot train it; where it trains that alone, it is the plan. `SpecError` for an unknown GPU, a recipe
    that trains nothing, and a batch that they cannot share.
    """
    if gpu not in GPUS:
        raise SpecError(f"gpu={gpu} is unknown{did_you_mean(gpu, GPUS)}")
    stages = trained(recipe)
    if not stages:
        raise SpecError(f"recipe {recipe.name!r} does not say how anything is trained, so nothing can be planned")
    plan = functools.partial(_planned, recipe, gpus=gpus, gpu=gpu)
    if "denoiser" not in stages:
        return plan("first_stage", stages["first_stage"])
    found = plan("denoiser", stages["denoiser"])
    if "first_stage" in stages:
        try:
            found["first_stage"] = plan("first_stage", stages["first_stage"])
        except SpecError as error:  # the paper's first stages take a few pictures at a time
            found["first_stage"] = {"stage": "first_stage", "unplanned": str(error)}
    return found


@final
@dataclass(frozen=True)
class _Asked:
    """What a stage asks of a GPU, whatever the batch is. trained: values whose gradients are averaged · held: bytes, by
    what they are for, of each strategy.
    """

    step: Step
    trained: int
    held: Mapping[str, Mapping[str, int]]


def _planned(recipe: Recipe, stage: str, train: TrainSpec, *, gpus: int, gpu: str) -> dict[str, Any]:
    _check(train, stage=stage, gpus=gpus)
    has, whole = GPUS[gpu], train.precision == "float32"
    asked = _of_denoiser(recipe, gpus=gpus) if stage == "denoiser" else _of_first_stage(recipe)
    each, held, kept = train.batch // gpus, asked.held[train.strategy], asked.step.kept // (1 if whole else 2)
    piece = each // pieces_of(each, micro=train.micro)
    room = USABLE * has.memory - sum(held.values())
    working = asked.step.work * each / (RATE * (has.single if whole else has.half))
    averaging = _averaging(train.strategy, trained=asked.trained, pieces=each // piece, gpus=gpus, has=has)
    seconds = max(working, averaging)  # gradients go out while others are still worked out
    return {
        "recipe": recipe.name,
        "stage": stage,
        "gpus": gpus,
        "gpu": gpu,
        "strategy": train.strategy,
        "optimizer": train.optimizer,
        "parameters": count(recipe),
        "flops": asked.step.flops,
        "memory": {**held, "activations": kept * piece},
        "by_strategy": {name: sum(values.values()) + kept * piece for name, values in asked.held.items()},
        "largest_batch": max(0, int(room // kept)) * gpus,
        "fits": kept * piece <= room,
        "batch": train.batch,
        "at_a_time": piece * gpus,
        "steps": train.steps,
        "seconds_a_step": {"working": working, "averaging_gradients": averaging},
        "days": seconds * train.steps / 86400,
        "gpu_hours": seconds * train.steps / 3600 * gpus,
    }


def _check(train: TrainSpec, *, stage: str, gpus: int) -> None:
    if train.precision == "float64":
        raise SpecError(f"{stage}.train.precision float64 is for checks, and no GPU is rated for it here; take another")
    if gpus < 1:
        raise SpecError(f"gpus={gpus} leaves nothing to plan for; 1 or more fits")
    if train.batch % gpus:
        fits = -(-train.batch // gpus) * gpus
        raise SpecError(
            f"{stage}.train.batch is {train.batch}, which gpus={gpus} cannot share evenly; {stage}.train.batch={fits} "
            "fits"
        )


def _of_denoiser(recipe: Recipe, *, gpus: int) -> _Asked:
    parameters, part = count(recipe), recipe.denoiser
    assert part is not None
    trained = parameters["network"] + parameters["conditioner"]
    strategies = {"ddp": 1} | ({"fsdp": gpus} if part.distill is None else {})  # students are not shared out yet
    held = {
        name: held_by_denoiser(part, trained=trained, first_stage=parameters["first_stage"], parts=parts)
        for name, parts in strategies.items()
    }
    return _Asked(step_of(recipe), trained, held)


def _of_first_stage(recipe: Recipe) -> _Asked:
    held = held_by_first_stage(recipe.first_stage, whole=count(recipe)["first_stage"])
    return _Asked(first_stage_step(recipe), held["gradients"] // FLOAT, {"ddp": held})


def _averaging(strategy: str, *, trained: int, pieces: int, gpus: int, has: Gpu) -> float:
    """Seconds that a step's exchange takes around a ring, in which each machine has one way in and one out.

    Gradients go around twice; where weights are in parts, gradients once and weights twice, in every piece of a step.
    """
    slowest = has.inside if gpus <= MACHINE else min(has.inside, LINK)
    rounds = 2 if strategy == "ddp" else 3 * pieces
    return rounds * FLOAT * trained * (gpus - 1) / gpus / slowest


def told_for(plan: Mapping[str, Any]) -> str:
    """The plan in words, that of a first stage before its denoiser's."""
    before = [*_lines(plan["first_stage"]), ""] if "first_stage" in plan else []
    return "\n".join([*before, *_lines(plan)])


def _lines(plan: Mapping[str, Any]) -> list[str]:
    if "unplanned" in plan:
        return [f"not planned: {plan['unplanned']}"]
    memory, batch, gpus = plan["memory"], plan["batch"], plan["gpus"]
    total, seconds = sum(memory.values()), plan["seconds_a_step"]
    assumed = f"{RATE:.0%} of what GPUs are rated for"
    if gpus > MACHINE:
        assumed += f", machines of {MACHINE} with one link of {8 * LINK / 1e9:.0f} Gbit/s each"
    sends = "averages gradients" if plan["strategy"] == "ddp" else "gathers weights and averages gradients"
    others = {name: each for name, each in plan["by_strategy"].items() if name != plan["strategy"] and gpus > 1}
    then = {"fsdp": ", with optimizer=adamw"} if plan["optimizer"] == "muon" else {}
    return [
        f"{plan['recipe']} on {gpus} x {plan['gpu']}, by {plan['strategy'].upper()}, "
        f"the {plan['stage'].replace('_', ' ')}",
        "parameters  " + ", ".join(f"{name} {each / 1e6:.2f} M" for name, each in plan["parameters"].items()),
        f"operations  {plan['flops'] / 1e9:.1f} G multiply-adds a picture, forward",
        f"memory      {total / 1e9:.1f} GB of each GPU, which {_fit(plan)}: "
        + ", ".join(f"{name} {each / 1e9:.1f}" for name, each in memory.items() if each),
        *(f"            {each / 1e9:.1f} GB by {name.upper()}{then.get(name, '')}" for name, each in others.items()),
        f"batch       {batch} pictures, {batch // gpus} a GPU, {plan['at_a_time'] // gpus} at a time; "
        f"at most {plan['largest_batch'] // gpus} at a time fit",
        f"time        {plan['days']:.1f} days for {plan['steps']} steps, {plan['gpu_hours']:.0f} GPU hours: a step "
        f"works for {seconds['working']:.3f} s and {sends} for {seconds['averaging_gradients']:.3f} s, "
        f"the longer counts; assumed: {assumed}",
    ]


def _fit(plan: Mapping[str, Any]) -> str:
    most = plan["largest_batch"] // plan["gpus"]
    if plan["fits"]:
        return "fits"
    return f"does NOT fit; train.micro={most} does" if most else "does NOT fit, with however few pictures at a time"

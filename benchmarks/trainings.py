"""Training steps of a denoiser for `speed.py`: the same weights, latents, times and noise, by our loop and theirs."""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from runs import TOKENS, latent_model
from sides import (
    BFLOAT16,
    EXACT,
    MIDDLE,
    OURS,
    STAGE,
    Case,
    Inputs,
    Run,
    had,
    millions,
    network_operations,
    theirs_first_stage,
    theirs_network,
)
from torch import Tensor

from darkroom.core import seeds
from darkroom.core.compute import Compute
from darkroom.diffusion.model import LatentDiffusion
from darkroom.process.objective import TimesSpec
from darkroom.train.denoiser_objective import LatentBatch, denoiser_objective, draw_times
from darkroom.train.ema import Ema
from darkroom.train.loop import train
from darkroom.train.optim import TrainSpec, build_optimizer
from darkroom.train.state import Training

SMALL: Final = MIDDLE.model_copy(update={"channels": 96})
BATCH: Final = 8
PLAN: Final = TrainSpec(steps=10**6, batch=BATCH, learning_rate=1e-4, warmup=0, clip=1.0, ema=0.9999)
COMPILED: Final = ("ours bfloat16 compiled", "diffusers bfloat16 compiled")  # minutes each, so only where asked for


@final
@dataclass(frozen=True)
class Theirs:
    """How diffusers' loop is run.

    codes: pictures are coded at every step, as its scripts do · mixed: under autocast to bfloat16, as accelerate does
    it · best: kernels in channels_last, AdamW fused, averages and clipping by `foreach` · compiled: by inductor.
    """

    codes: bool = False
    mixed: bool = False
    best: bool = False
    compiled: bool = False


def training(sides: Sequence[str] | None, *, side: int = 32) -> Case:
    """A training step; answers are losses, which agree as long as all sides have learnt the same so far.

    Whoever codes pictures is given the same latents afterwards, so that losses compare.
    """

    def inputs(number: int) -> Inputs:
        dice = torch.Generator().manual_seed(number)
        pixels = side * STAGE.factor
        indices = torch.arange(number * BATCH, (number + 1) * BATCH)
        return (
            torch.rand(BATCH, 3, pixels, pixels, generator=dice) * 2 - 1,
            torch.randn(BATCH, 4, side, side, generator=dice),
            torch.randn(BATCH, TOKENS, 512, generator=dice),
            indices,
        )

    model = latent_model(SMALL)  # whose weights all begin with
    ours, theirs = functools.partial(_our_training, model), functools.partial(_their_training, model)
    made: dict[str, Callable[[], Run]] = {
        EXACT: lambda: ours(torch.float32),
        OURS: lambda: ours(BFLOAT16),
        "diffusers' script float32": lambda: theirs(Theirs(codes=True)),
        "diffusers float32": lambda: theirs(Theirs()),
        "diffusers bfloat16": lambda: theirs(Theirs(mixed=True)),
        "diffusers bfloat16 at its best": lambda: theirs(Theirs(mixed=True, best=True)),
        COMPILED[0]: lambda: ours(BFLOAT16, compiled=True),
        COMPILED[1]: lambda: theirs(Theirs(mixed=True, best=True, compiled=True)),
    }
    usual = [each for each in made if each not in COMPILED] if sides is None else sides
    return Case(
        what=f"a training step: {BATCH} latents of {side} x {side}, {millions(model.network)} M parameters",
        operations=3 * BATCH // 2 * network_operations(SMALL, side=side, tokens=TOKENS),
        inputs=inputs,
        sides=had(made, usual, gradients=True),
    )


def _our_training(given: LatentDiffusion, dtype: torch.dtype, *, compiled: bool = False) -> Run:
    compute = Compute(torch.device("cpu"), dtype)
    model = compute.host(copy.deepcopy(given)).train()
    model.first_stage.requires_grad_(requires_grad=False).eval()
    spec = PLAN.model_copy(update={"compiled": compiled})
    weights = model.denoising_parameters
    moving = Training(model, build_optimizer(weights, spec), Ema(weights, decay=spec.ema))
    queue: list[LatentBatch] = []

    def batches() -> Iterator[LatentBatch]:
        while True:
            yield queue.pop()

    objective = denoiser_objective(model, train=spec, compute=compute, seed=0)
    steps = train(moving, batches(), losses=objective, spec=spec, compute=compute, pieces=objective.pieces)

    def step(inputs: Inputs) -> Tensor:
        _, latents, context, indices = inputs
        queue.append(LatentBatch(latents, {"embedding": context}, indices.tolist()))
        return next(steps).values["loss"].reshape(1)

    return step


def _their_training(model: LatentDiffusion, way: Theirs) -> Run:
    """A step as `train_text_to_image.py --use_ema` makes it, without its text encoder."""
    from diffusers import DDPMScheduler  # noqa: PLC0415  (a package that only this needs)
    from diffusers.training_utils import EMAModel  # noqa: PLC0415  (a package that only this needs)

    network: Any = theirs_network(model.network).train()
    stage: Any = theirs_first_stage(model.first_stage).requires_grad_(requires_grad=False)
    if way.best:
        network.to(memory_format=torch.channels_last)
    if way.compiled:
        network.compile()
    scheduler = DDPMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
    fused = True if way.best else None
    optimizer = torch.optim.AdamW(network.parameters(), lr=PLAN.learning_rate, weight_decay=1e-2, fused=fused)
    averages = EMAModel(network.parameters(), decay=PLAN.ema, foreach=way.best)

    def step(inputs: Inputs) -> Tensor:
        images, latents, context, indices = inputs
        if way.codes:
            with torch.no_grad():
                stage.encode(images).latent_dist.sample()
        noise, t = _drawn(model, latents, indices)
        noisy = scheduler.add_noise(latents, noise, t)
        with torch.autocast("cpu", dtype=BFLOAT16, enabled=way.mixed):
            made = network(noisy, t, encoder_hidden_states=context, return_dict=False)[0]
            loss = F.mse_loss(made.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), PLAN.clip, foreach=way.best or None)
        optimizer.step()
        optimizer.zero_grad()
        averages.step(network.parameters())
        return loss.detach().reshape(1)

    return step


def _drawn(model: LatentDiffusion, latents: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Noise and times as our loop draws them."""
    times: TimesSpec = model.spec.objective.times
    numbers = indices.tolist()
    noise = seeds.normal(latents.shape[1:], seed=0, indices=numbers, purpose="diffusion")
    return noise, draw_times(model.schedule, times=times, seed=0, indices=numbers)

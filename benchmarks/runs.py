"""Whole guided runs and training steps for `speed.py`: the same work, done by our loops and by those of diffusers."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from sides import (
    BFLOAT16,
    EXACT,
    MIDDLE,
    OURS,
    STAGE,
    Case,
    Inputs,
    Run,
    filled,
    had,
    millions,
    network_operations,
    theirs_first_stage,
    theirs_network,
)
from torch import Tensor

from darkroom.conditioning.embedding import EmbeddingSpec
from darkroom.core.compute import Compute, sampling_compute
from darkroom.core.conditions import Conditions
from darkroom.diffusion.engine import Eager
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.diffusion.walk import sample_latents
from darkroom.network.unet import UNetSpec
from darkroom.process.schedule import LinearSpec
from darkroom.tasks.model import Model
from darkroom.train.denoiser_objective import LatentBatch, denoiser_objective
from darkroom.train.ema import Ema
from darkroom.train.loop import train
from darkroom.train.optim import TrainSpec, build_optimizer
from darkroom.train.state import Training

STEPS: Final = 50
GUIDANCE: Final = 3.0
TOKENS: Final = 77
SMALL: Final = MIDDLE.model_copy(update={"channels": 96})
RATE: Final = 1e-4


def whole_run(sides: Sequence[str] | None, *, side: int = 32) -> Case:
    """A guided run of 50 steps of DDIM and the decoder, one picture."""
    model = _model(MIDDLE)
    shape = (1, 4, side, side)

    def inputs(number: int) -> Inputs:
        dice = torch.Generator().manual_seed(number)
        context = torch.randn(2, TOKENS, 512, generator=dice)
        return torch.randn(shape, generator=dice), context

    def ours(compute: Compute) -> Run:
        ready = Model(model, compute=compute, engine=Eager())

        def draw(inputs: Inputs) -> Tensor:
            noise, context = inputs
            null, asked = (Conditions(tokens=each) for each in context.split(1))
            latents = sample_latents(
                ready, noise, conditions=asked, null=null, steps=STEPS, guidance=GUIDANCE, times="original"
            )
            return ready.decode(latents)

        return draw

    made: dict[str, Callable[[], Run]] = {
        EXACT: lambda: ours(sampling_compute("cpu", "float32")),
        OURS: lambda: ours(sampling_compute("cpu", "bfloat16")),
        "diffusers float32": lambda: _pipeline(model, torch.float32, compiled=False),
        "diffusers bfloat16": lambda: _pipeline(model, BFLOAT16, compiled=False),
        "diffusers bfloat16 compiled": lambda: _pipeline(model, BFLOAT16, compiled=True),
    }
    return Case(
        what=f"{STEPS} guided steps of DDIM, decoding to {side * STAGE.factor} px, {millions(model)} M parameters",
        operations=STEPS * network_operations(MIDDLE, side=side, tokens=TOKENS),
        inputs=inputs,
        sides=had(made, sides),
    )


def _pipeline(model: LatentDiffusion, dtype: torch.dtype, *, compiled: bool) -> Run:
    """What diffusers' pipelines do between a prompt's embedding and a picture."""
    from diffusers import DDIMScheduler  # noqa: PLC0415

    network: Any = theirs_network(model.network).to(dtype, memory_format=torch.channels_last)
    stage: Any = theirs_first_stage(model.first_stage).to(dtype, memory_format=torch.channels_last)
    if compiled:
        network.compile()
    scheduler = DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )

    def draw(inputs: Inputs) -> Tensor:
        noise, context = (each.to(dtype) for each in inputs)
        scheduler.set_timesteps(STEPS)
        latents = noise
        for t in scheduler.timesteps:
            twice = torch.cat([latents, latents]).to(memory_format=torch.channels_last)
            nothing, asked = network(twice, t, encoder_hidden_states=context, return_dict=False)[0].chunk(2)
            guided = nothing + GUIDANCE * (asked - nothing)
            latents = scheduler.step(guided, t, latents, return_dict=False)[0]
        return stage.decode(latents, return_dict=False)[0]

    return draw


def training(sides: Sequence[str] | None, *, side: int = 32, batch: int = 16) -> Case:
    """A training step of a denoiser; ours and `cached` read latents, diffusers' script codes pictures at every step."""

    def inputs(number: int) -> Inputs:
        dice = torch.Generator().manual_seed(number)
        images = torch.rand(batch, 3, side * STAGE.factor, side * STAGE.factor, generator=dice) * 2 - 1
        return (
            images,
            torch.randn(batch, 4, side, side, generator=dice),
            torch.randn(batch, TOKENS, 512, generator=dice),
        )

    made: dict[str, Callable[[], Run]] = {
        EXACT: functools.partial(_our_training, torch.float32),
        OURS: functools.partial(_our_training, BFLOAT16),
        "diffusers' script float32": functools.partial(_their_training, cached=False, mixed=False),
        "diffusers' script bfloat16": functools.partial(_their_training, cached=False, mixed=True),
        "diffusers bfloat16 cached": functools.partial(_their_training, cached=True, mixed=True),
    }
    return Case(
        what=f"a training step: {batch} latents of {side} x {side}, {millions(_model(SMALL).network)} M parameters",
        operations=3 * batch // 2 * network_operations(SMALL, side=side, tokens=TOKENS),
        inputs=inputs,
        sides=had(made, sides, gradients=True),
    )


def _our_training(dtype: torch.dtype) -> Run:
    compute = sampling_compute("cpu", str(dtype).removeprefix("torch."))
    model = compute.host(_model(SMALL))
    spec = TrainSpec(steps=10**6, batch=16, learning_rate=RATE, warmup=0)
    weights = list(model.network.parameters())
    moving = Training(model, build_optimizer(weights, spec), Ema(weights, decay=0.999))
    queue: list[LatentBatch] = []

    def batches() -> Iterator[LatentBatch]:
        while True:
            yield queue.pop()

    objective = denoiser_objective(model, train=spec, compute=compute, seed=0)
    steps = train(moving, batches(), losses=objective, spec=spec, compute=compute)

    def step(inputs: Inputs) -> Tensor:
        _, latents, context = inputs
        queue.append(LatentBatch(latents, {"embedding": context}, list(range(len(latents)))))
        return next(steps).values["loss"].reshape(1)

    return step


def _their_training(*, cached: bool, mixed: bool) -> Run:
    """A step as `train_text_to_image.py` makes it, without its text encoder: AdamW, clipping, no averages."""
    from diffusers import DDPMScheduler  # noqa: PLC0415

    model = _model(SMALL)
    network: Any = theirs_network(model.network).train()
    stage: Any = theirs_first_stage(model.first_stage).requires_grad_(requires_grad=False)
    if cached:
        network.to(memory_format=torch.channels_last)
    if mixed:
        stage.to(BFLOAT16)
    scheduler = DDPMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)

    def step(inputs: Inputs) -> Tensor:
        images, latents, context = inputs
        if not cached:
            with torch.no_grad():
                latents = stage.encode(images.to(stage.dtype)).latent_dist.sample().float()
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (len(latents),))
        with torch.autocast("cpu", dtype=BFLOAT16, enabled=mixed):
            noisy = scheduler.add_noise(latents, noise, t)
            made = network(noisy, t, encoder_hidden_states=context, return_dict=False)[0]
            loss = F.mse_loss(made.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach().reshape(1)

    return step


def _model(network: UNetSpec) -> LatentDiffusion:
    spec = ModelSpec(
        image_size=256,
        first_stage=STAGE,
        network=network,
        conditioners=(EmbeddingSpec(width=512, length=TOKENS),),
        schedule=LinearSpec(),
        scale=1.0,
    )
    return filled(LatentDiffusion(spec)).eval()

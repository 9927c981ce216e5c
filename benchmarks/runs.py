"""Whole guided runs for `speed.py`: the same work, done by our walk and by what diffusers' pipelines do."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from sides import (
    BFLOAT16,
    EXACT,
    MIDDLE,
    OPENVINO,
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
from torch import Tensor, nn

from darkroom.conditioning.embedding import EmbeddingSpec
from darkroom.core.compute import sampling_compute
from darkroom.core.conditions import Conditions
from darkroom.diffusion.engine import build_engine
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.diffusion.walk import sample_latents
from darkroom.network.unet import UNetSpec
from darkroom.process.schedule import LinearSpec
from darkroom.tasks.model import Model

STEPS: Final = 50
GUIDANCE: Final = 3.0
TOKENS: Final = 77


def whole_run(sides: Sequence[str] | None, *, side: int = 32) -> Case:
    """A guided run of 50 steps of DDIM and the decoder, one picture."""
    model = latent_model(MIDDLE)
    shape = (1, 4, side, side)

    def inputs(number: int) -> Inputs:
        dice = torch.Generator().manual_seed(number)
        context = torch.randn(2, TOKENS, 512, generator=dice)
        return torch.randn(shape, generator=dice), context

    def ours(dtype: str, engine: str = "eager") -> Run:
        compute = sampling_compute("cpu", dtype)
        own = copy.deepcopy(model)  # engines put forms of their own into it
        ready = Model(own, compute=compute, engine=build_engine(engine, compute=compute))

        def draw(inputs: Inputs) -> Tensor:
            noise, context = inputs
            null, asked = (Conditions(tokens=each) for each in context.split(1))
            latents = sample_latents(
                ready, noise, conditions=asked, null=null, steps=STEPS, guidance=GUIDANCE, times="original"
            )
            return ready.decode(latents)

        return draw

    made: dict[str, Callable[[], Run]] = {
        EXACT: lambda: ours("float32"),
        OURS: lambda: ours("bfloat16"),
        OPENVINO: lambda: ours("bfloat16", "openvino"),
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
    from diffusers import DDIMScheduler  # noqa: PLC0415  (a package that only this needs)

    network = at_its_best(theirs_network(model.network), dtype, compiled=compiled)
    stage = at_its_best(theirs_first_stage(model.first_stage), dtype)
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
        latents = guided_latents(network, noise, context=context, scheduler=scheduler, scale=GUIDANCE)
        return stage.decode(latents, return_dict=False)[0]

    return draw


def at_its_best(module: nn.Module, dtype: torch.dtype, *, compiled: bool = False) -> Any:
    """As it comes in float32; in bfloat16 with kernels in channels_last."""
    made: Any = module if dtype == torch.float32 else module.to(dtype, memory_format=torch.channels_last)
    if compiled:
        made.compile()
    return made


def guided_latents(network: Any, noise: Tensor, *, context: Tensor, scheduler: Any, scale: float) -> Tensor:
    """What diffusers' pipelines do between embeddings and latents. context: of nothing, then of the prompts."""
    scheduler.set_timesteps(STEPS)
    latents = noise
    for t in scheduler.timesteps:
        twice = torch.cat([latents, latents])
        twice = twice if twice.dtype == torch.float32 else twice.to(memory_format=torch.channels_last)
        nothing, asked = network(twice, t, encoder_hidden_states=context, return_dict=False)[0].chunk(2)
        latents = scheduler.step(nothing + scale * (asked - nothing), t, latents, return_dict=False)[0]
    return latents


def latent_model(network: UNetSpec) -> LatentDiffusion:
    """With a network and random weights; steered by embeddings made elsewhere, of which training drops none."""
    spec = ModelSpec(
        image_size=256,
        first_stage=STAGE,
        network=network,
        conditioners=(EmbeddingSpec(width=512, length=TOKENS, drop=0.0),),
        schedule=LinearSpec(),
        scale=1.0,
    )
    return filled(LatentDiffusion(spec)).eval()

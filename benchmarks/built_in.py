"""The built-in text model for `speed.py`: our defaults beside fifty steps of diffusers' pipeline, and who obeys.

diffusers has no configuration for this network: its attention is told where it is, and it halves and doubles without
weights. So a network of its own blocks is given what it lacks, in the cheapest form, and all weights. Its prompts come
embedded and its latents are decoded by our first stage, of a kind that it has not; both are free for it or as for us.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, final

import torch
from einops import rearrange
from runs import STEPS, at_its_best, guided_latents
from sides import BFLOAT16, EXACT, OURS, Case, Inputs, Run, had, millions
from torch import Tensor, nn

from darkroom.checkpoint.diffusers_config import unet_config
from darkroom.checkpoint.diffusers_keys import unet_table
from darkroom.checkpoint.diffusers_schedule import scheduler_config
from darkroom.checkpoint.keymap import Table, to_original
from darkroom.core import seeds
from darkroom.core.pictures import from_bytes, to_bytes, to_pictures
from darkroom.data.sources import ShapesSource
from darkroom.evaluate.obedience import SEED
from darkroom.metrics.agreement import obeys, read_scene
from darkroom.metrics.shares import wilson
from darkroom.network.unet import UNet
from darkroom.nn.embed import place_waves
from darkroom.tasks.load import DEFAULT, load
from darkroom.tasks.model import Model

BATCH: Final = 16
MOST: Final = 10**6  # scenes of a seed; they are drawn when they are asked for


def built_in_run(sides: Sequence[str] | None) -> Case:
    """Pictures of captions that nobody trained on by name; the same captions, first noise and scale for all sides."""
    scenes = ShapesSource(SEED, count=MOST)
    exact, quick = (load(DEFAULT, device="cpu", dtype=dtype) for dtype in ("auto", "bfloat16"))
    shape = exact.diffusion.latent_shape((exact.spec.image_size,) * 2)

    def inputs(number: int) -> Inputs:
        rows = torch.arange(number * BATCH, (number + 1) * BATCH)
        asked = exact.condition(caption=[_caption(scenes, int(row)) for row in rows])
        nothing = exact.null(asked)
        assert asked.tokens is not None
        assert nothing.tokens is not None
        noise = seeds.normal(shape, seed=0, indices=rows.tolist(), purpose="noise")
        return rows, noise, torch.cat([nothing.tokens, asked.tokens])

    def judged(answers: Sequence[Tensor]) -> dict[str, float]:
        pictures = to_pictures(torch.cat(list(answers)))
        right = [obeys(read_scene(each), _caption(scenes, row)) for row, each in enumerate(pictures)]
        share, (low, high) = sum(right) / len(right), wilson(sum(right) / len(right), count=len(right))
        return {"obeyed": share, "low": low, "high": high, "pictures": len(right)}

    made: dict[str, Callable[[], Run]] = {
        EXACT: lambda: _ours(exact, scenes),
        OURS: lambda: _ours(quick, scenes),
        "diffusers float32": lambda: _theirs(exact, torch.float32),
        "diffusers bfloat16": lambda: _theirs(quick, BFLOAT16),
        "diffusers bfloat16 compiled": lambda: _theirs(quick, BFLOAT16, compiled=True),
    }
    known = exact.card["sample"]
    return Case(
        what=f"{BATCH} pictures of 64 x 64 by the built-in model `{exact.name}` (a network of "
        f"{millions(exact.diffusion.network)} M parameters), guidance {known['guidance']:g}: ours by its defaults, "
        f"{known['steps']} steps of {known['solver']} with eta {known['eta']:g}; diffusers' by {STEPS} of DDIM",
        operations=None,
        inputs=inputs,
        sides=had(made, sides, needed=(EXACT,)),
        ours=EXACT,
        reference=None,
        judged=judged,
    )


def _caption(scenes: ShapesSource, row: int) -> str:
    return scenes.caption(row) or ""


def _ours(model: Model, scenes: ShapesSource) -> Run:
    def draw(inputs: Inputs) -> Tensor:
        rows = inputs[0].tolist()
        drawn = model.sample([_caption(scenes, row) for row in rows], first=rows[0], batch=BATCH)
        return from_bytes(torch.stack([to_bytes(each) for each in drawn]))

    return draw


def _theirs(model: Model, dtype: torch.dtype, *, compiled: bool = False) -> Run:
    from diffusers import DDIMScheduler  # noqa: PLC0415  (a package that only this needs)

    spec, scale = model.spec, float(model.default("guidance", 1.0))
    side = spec.image_size // spec.first_stage.factor
    network = theirs_built_in(model.diffusion.network, side=side)
    _check_same(model, network, side=side)
    network = at_its_best(network, dtype, compiled=compiled)
    scheduler = DDIMScheduler.from_config(scheduler_config(spec.schedule, spec.prediction))

    def draw(inputs: Inputs) -> Tensor:
        _, noise, context = inputs
        placed = context.to(dtype)
        latents = guided_latents(network, noise.to(dtype), context=placed, scheduler=scheduler, scale=scale)
        pictures = to_pictures(model.decode(latents.float()))
        return from_bytes(torch.stack([to_bytes(each) for each in pictures]))

    return draw


@torch.no_grad()
def _check_same(model: Model, theirs: Any, *, side: int) -> None:
    """Do both networks answer the same, in float32?"""
    ours, dice = model.diffusion.network, torch.Generator().manual_seed(0)
    x, t = torch.randn(2, ours.spec.in_channels, side, side, generator=dice), torch.tensor([10, 900])
    conditions = model.condition(caption=["a red heart", "a small blue star left of a ring"])
    exact = ours(x, t, conditions)
    off = theirs(x, t, encoder_hidden_states=conditions.tokens, return_dict=False)[0] - exact
    if off.norm() > 1e-4 * exact.norm():
        raise SystemExit(f"diffusers' network differs by {off.norm() / exact.norm():.2%}: its weights are not ours")


def theirs_built_in(network: UNet, *, side: int) -> nn.Module:
    """A U-Net of diffusers' blocks that answers what ours does. side: of the latents."""
    from diffusers import UNet2DConditionModel  # noqa: PLC0415  (a package that only this needs)

    plain = network.spec.model_copy(update={"places": "none", "resample": "conv"})
    made: Any = UNet2DConditionModel.from_config(unet_config(plain, size=side))
    if network.spec.resample == "pool":
        _without_weights(made)
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    entries = [each for each in unet_table(plain).entries if each.ours[0] in state]
    made.load_state_dict(to_original(Table(tuple(entries)), state))
    if network.spec.places == "waves":
        _told_places(made, side=side)
    return made.eval()


def _without_weights(made: Any) -> None:
    """Halving by the mean and doubling alone, by diffusers' own layers."""
    from diffusers.models.downsampling import Downsample2D  # noqa: PLC0415  (a package that only this needs)
    from diffusers.models.upsampling import Upsample2D  # noqa: PLC0415  (a package that only this needs)

    for levels, name, kind in (
        (made.down_blocks, "downsamplers", Downsample2D),
        (made.up_blocks, "upsamplers", Upsample2D),
    ):
        for level in levels:
            if getattr(level, name) is not None:
                width = level.resnets[-1].out_channels
                setattr(level, name, nn.ModuleList([kind(width, use_conv=False, name="op")]))


def _told_places(made: Any, *, side: int) -> None:
    """Every transformer gets the waves of its map."""
    depth = len(made.down_blocks)
    down = [(level, place) for place, level in enumerate(made.down_blocks)]
    up = [(level, depth - 1 - place) for place, level in enumerate(made.up_blocks)]
    for level, halvings in [*down, (made.mid_block, depth - 1), *up]:
        for transformer in getattr(level, "attentions", ()):
            transformer.proj_in = Placed(transformer.proj_in, side=side // 2**halvings)


@final
class Placed(nn.Module):
    """A transformer's way in, after which every cell is told where it lies: the same numbers for every picture."""

    def __init__(self, way_in: nn.Conv2d, *, side: int) -> None:
        super().__init__()
        self.way_in = way_in
        waves = place_waves((side, side), way_in.out_channels, device=torch.device("cpu"))
        self.register_buffer("waves", rearrange(waves, "(h w) d -> 1 d h w", h=side))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) to (b, d, h, w)."""
        return self.way_in(x) + self.waves

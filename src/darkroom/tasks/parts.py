"""Parts of a model alone: a first stage, a decoder for its latents, a U-Net."""

from pathlib import Path
from typing import Any

import torch

from darkroom.autoencoder.model import Autoencoder
from darkroom.autoencoder.preview import Preview
from darkroom.checkpoint.diffusers import load_unet
from darkroom.checkpoint.previews import find_preview
from darkroom.checkpoint.store import build, is_ours
from darkroom.core.compute import sampling_compute
from darkroom.core.conditions import Conditions
from darkroom.core.errors import ModelFileError
from darkroom.core.shapes import Latent, Time
from darkroom.diffusion.engine import Engine, build_engine
from darkroom.diffusion.model import LatentDiffusion
from darkroom.network.unet import UNet
from darkroom.nn.packed import pack
from darkroom.tasks.find import check_no_config, find, read, read_stage


def load_autoencoder(
    source: str | Path,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Autoencoder:
    """A first stage alone, or the one inside a whole model; weights in `dtype` (auto: float32)."""
    module = build(read_stage(find(source), config=config))
    first_stage = module.first_stage if isinstance(module, LatentDiffusion) else module
    if not isinstance(first_stage, Autoencoder):
        raise ModelFileError(f"{source}: this model works on pixels, it has no first stage")
    return pack(_placed(first_stage, device=device, dtype=dtype))


def load_decoder(source: str | Path, *, device: str = "auto") -> Autoencoder | Preview:
    """What makes pictures of latents: a first stage, or a tiny decoder of others (TAESD's, diffusers' AutoencoderTiny).

    Weights in float32. `ModelFileError` as for `load_autoencoder`.
    """
    path = find(source)
    ours = path.is_file() and is_ours(path)
    found = None if ours else find_preview(path)
    if found is None:
        return load_autoencoder(source, device=device)
    return sampling_compute(device, "auto").host(pack(found.built())).eval()


def load_network(
    source: str | Path,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    engine: str = "auto",
) -> UNet:
    """The U-Net of a model alone, called as (x_t, t, conditions); weights in `dtype` (auto: float32).

    Also of diffusers folders that hold nothing else, or more than is read yet. x_t, and with it the answer, is of the
    type of the weights. engine: see `load`; calls that ask for gradients go by the module itself.
    """
    running = build_engine(engine, compute=sampling_compute(device, dtype))
    path = find(source)
    if path.is_dir():
        check_no_config(path, config)
        return _run_by(running, _placed(load_unet(path), device=device, dtype=dtype))
    module = build(read(path, config=config))
    if not isinstance(module, LatentDiffusion):
        raise ModelFileError(f"{source}: a first stage alone, it has no U-Net")
    return _run_by(running, _placed(module.network, device=device, dtype=dtype))


def _run_by(engine: Engine, module: UNet) -> UNet:
    """The module, whose calls without gradients go through the engine's form of it."""
    itself, form = module.forward, engine.network(module)
    if form is not module:

        def forward(x: Latent, t: Time, conditions: Conditions | None = None) -> Latent:
            x = x.to(module.stem.weight.dtype)  # as packed layers take it
            asked = torch.is_grad_enabled() and (x.requires_grad or module.stem.weight.requires_grad)
            return (itself if asked else form)(x, t, conditions or Conditions())

        module.forward = forward
    return module


def _placed(module: Any, *, device: str, dtype: str) -> Any:
    compute = sampling_compute(device, dtype)
    return compute.host(module).to(compute.dtype).eval()

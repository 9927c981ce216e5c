"""Darkroom: train, sample, evaluate and serve latent diffusion models."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Autoencoder": "darkroom.autoencoder.model",
    "Conditions": "darkroom.core.conditions",
    "DarkroomError": "darkroom.core.errors",
    "InputError": "darkroom.core.errors",
    "Model": "darkroom.tasks.model",
    "UNet": "darkroom.network.unet",
    "load": "darkroom.tasks.load",
    "load_autoencoder": "darkroom.tasks.parts",
    "load_network": "darkroom.tasks.parts",
    "sample_latents": "darkroom.diffusion.walk",
    "walk": "darkroom.diffusion.walk",
}
_ROOMS = ("metrics",)  # rooms that may be used by name after `import darkroom` alone
__all__ = sorted([*_HOMES, *_ROOMS])


def __getattr__(name: str) -> Any:
    """Public names resolve on first use (PEP 562), so that `import darkroom` does not import torch."""
    if name in _ROOMS:
        return import_module(f"darkroom.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'darkroom' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

"""Floor 4: numbers that measure pictures.

The names below are stable and resolve on first use (PEP 562), so that importing the room costs nothing.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Gaussian": "darkroom.metrics.sets",
    "frechet_distance": "darkroom.metrics.sets",
    "inception_score": "darkroom.metrics.sets",
    "kernel_distance": "darkroom.metrics.sets",
    "precision_recall": "darkroom.metrics.sets",
    "psnr": "darkroom.metrics.pairs",
    "read_scene": "darkroom.metrics.agreement",
    "ssim": "darkroom.metrics.pairs",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'darkroom.metrics' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)

"""The networks that judge, if they are here: nothing is downloaded to evaluate."""

from pathlib import Path

import torch

from darkroom.core.compute import Compute
from darkroom.nn.features import Judge, PerceptualDistance, judge, perceptual
from darkroom.nn.vgg import HEADS, VGG16, cached


def present_judge(compute: Compute) -> Judge:
    """The judge that comes with the package, on the device."""
    return compute.host(judge())


def present_lpips(compute: Compute) -> PerceptualDistance | None:
    """LPIPS on the device, when its published weights were fetched before."""
    theirs = Path(torch.hub.get_dir()) / "checkpoints" / cached(VGG16).name
    here = cached(HEADS).is_file() and (cached(VGG16).is_file() or theirs.is_file())
    return compute.host(perceptual("lpips")) if here else None

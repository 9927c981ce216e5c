"""The networks that judge, if they are here: nothing is downloaded to evaluate."""

from darkroom.core.compute import Compute
from darkroom.nn.features import Judge, PerceptualDistance, judge, perceptual
from darkroom.nn.vgg import present


def present_judge(compute: Compute) -> Judge:
    """The judge that comes with the package, on the device."""
    return compute.host(judge())


def present_lpips(compute: Compute) -> PerceptualDistance | None:
    """LPIPS on the device, when its published weights were fetched before."""
    return compute.host(perceptual("lpips")) if present() else None

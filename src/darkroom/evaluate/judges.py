"""The networks that judge, if they are here: nothing is downloaded to evaluate."""

from dataclasses import replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from darkroom.core.compute import Compute
from darkroom.core.shapes import Images, PerSample
from darkroom.metrics.extractors import Extractor, PairDistance
from darkroom.nn.features import judge, perceptual
from darkroom.nn.vgg import present


@final
class Seated:
    """A judge on a device; it takes pictures from any device and answers on the CPU."""

    def __init__(self, judge: Extractor, compute: Compute) -> None:
        self._judge, self._compute = judge, replace(compute, dtype=torch.float32)
        self.name, self.hash = judge.name, judge.hash

    def features(self, images: Images) -> Float[Tensor, "b d"]:
        """What the judge sees in each picture."""
        with self._compute.autocast():
            return self._judge.features(self._compute.place(images)).cpu()

    def distance(self, images: Images, others: Images) -> PerSample:
        """The judge's distances."""
        with self._compute.autocast():
            return self._judge.distance(self._compute.place(images), self._compute.place(others)).cpu()


@final
class SeatedDistance:
    """A distance between pictures on a device; likewise."""

    def __init__(self, distance: PairDistance, compute: Compute) -> None:
        self._distance, self._compute = distance, replace(compute, dtype=torch.float32)
        self.name, self.hash = distance.name, distance.hash

    def __call__(self, images: Images, others: Images) -> PerSample:
        """How unlike two pictures look."""
        with self._compute.autocast():
            return self._distance(self._compute.place(images), self._compute.place(others)).cpu()


def present_judge(compute: Compute) -> Extractor:
    """The judge that comes with the package, on the device."""
    return Seated(compute.host(judge()), compute)


def present_lpips(compute: Compute) -> PairDistance | None:
    """LPIPS on the device, when its published weights were fetched before."""
    return SeatedDistance(compute.host(perceptual("lpips")), compute) if present() else None

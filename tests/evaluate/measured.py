"""A judge whose answers are known, and first stages without training."""

import torch
from torch import Tensor

from darkroom.autoencoder.bottleneck import BottleneckSpec, KLSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec


class CornerJudge:
    """Features are the means of the four quarters of each channel; the distance is that of mean brightness."""

    name, hash = "corners", "c0ffee"

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def features(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        return (images.mean((1, 2, 3)) - others.mean((1, 2, 3))).abs()


def first_stage(bottleneck: BottleneckSpec | None = None, *, channels: int = 3, levels: int = 3) -> Autoencoder:
    """f = 2 ** (levels - 1), weights drawn from a fixed seed."""
    torch.manual_seed(3)
    spec = AutoencoderSpec(
        image_channels=channels,
        channels=8,
        multipliers=(1,) * levels,
        blocks=1,
        latent_channels=3,
        norm_groups=4,
        middle_attention=False,
        bottleneck=bottleneck or KLSpec(),
    )
    return Autoencoder(spec).eval()

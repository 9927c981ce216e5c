"""A linear shortcut past encoder and decoder, so that a first stage begins as resizing and improves from there.

It carries what resizing keeps, from pictures to latents and back, and the networks learn the rest. In the spirit of the
residual autoencoding of DC-AE (Chen et al. 2024), which has such a shortcut past every level.
"""

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from darkroom.core.shapes import Images, Latent
from darkroom.nn.resample import enlarge

FIRST = (
    "cpu"  # where starting weights are computed: on meta tensors that would import torch's compiler, which takes 2 s
)
NOISE = -9.0  # log-variance of the posterior at the start: 1.4 of 256 levels


@final
class ShortcutIn(nn.Module):
    """Pictures (b, c, f h, f w) to latents (b, k, h, w): a kernel of 2 f pixels at stride f, f even.

    At the start the first c channels are the picture made f times smaller, by triangle filters. The others measure the
    coarsest cosine waves of brightness (DCT-II) under the same triangles, made blind to flat pictures.
    """

    def __init__(self, *, image_channels: int, latent_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.kernel = nn.Parameter(torch.empty(latent_channels, image_channels, 2 * factor, 2 * factor))
        with torch.no_grad(), torch.device(FIRST):
            self.kernel.copy_(_analysis(image_channels, latent_channels, factor=factor))

    def forward(self, images: Images) -> Latent:
        """(b, c, f h, f w) to (b, k, h, w); beyond the picture its edge pixels are repeated."""
        margin = self.factor // 2
        return F.conv2d(F.pad(images, (margin,) * 4, mode="replicate"), self.kernel, stride=self.factor)


@final
class ShortcutOut(nn.Module):
    """Latents (b, k, h, w) to pictures (b, c, f h, f w): a mixture of channels, enlarged bicubically."""

    def __init__(self, *, image_channels: int, latent_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.mix = nn.Conv2d(latent_channels, image_channels, 1)
        nn.init.zeros_(self.mix.bias)
        with torch.no_grad(), torch.device(FIRST):
            self.mix.weight.copy_(torch.eye(image_channels, latent_channels)[..., None, None])

    def forward(self, latents: Latent) -> Images:
        """(b, k, h, w) to (b, c, f h, f w), not clipped."""
        return enlarge(self.mix(latents), self.factor)


@torch.no_grad()
def begin_as_resizing(to_latent: nn.Conv2d, head: nn.Conv2d, *, latent_channels: int) -> None:
    """Begin with the shortcut alone: encoder and decoder answer 0, with hardly any posterior noise."""
    to_latent.weight[:latent_channels] = 0
    to_latent.bias.zero_()
    if to_latent.out_channels > latent_channels:
        to_latent.weight[latent_channels:] = 0
        to_latent.bias[latent_channels:] = NOISE
    head.weight.zero_()
    head.bias.zero_()


def _analysis(image_channels: int, latent_channels: int, *, factor: int) -> Float[Tensor, "k c s s"]:
    """The starting kernels of `ShortcutIn`, each scaled to a unit sum of absolute values."""
    side = 2 * factor
    middle = (torch.arange(side) + 0.5) / side
    triangle = torch.minimum(middle, 1 - middle)
    smooth = torch.outer(triangle, triangle)
    kernel = torch.zeros(latent_channels, image_channels, side, side)
    for channel in range(min(image_channels, latent_channels)):
        kernel[channel, channel] = smooth
    waves = sorted(
        ((down, across) for down in range(factor) for across in range(factor) if down or across),
        key=lambda wave: (sum(wave), wave),
    )
    for channel, (down, across) in zip(range(image_channels, latent_channels), waves, strict=False):
        wave = torch.outer(triangle * _wave(down, side), triangle * _wave(across, side))
        kernel[channel] = wave - wave.sum() / smooth.sum() * smooth
    return kernel / kernel.abs().sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-9)


def _wave(frequency: int, side: int) -> Float[Tensor, " s"]:
    return torch.cos(math.pi * frequency * (torch.arange(side) + 0.5) / side)

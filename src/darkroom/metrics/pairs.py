"""How alike two pictures are."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from darkroom.core.shapes import Images, PerSample


def psnr(images: Images, others: Images) -> PerSample:
    """Peak signal-to-noise ratio in dB of each pair, pictures in [-1, 1]: 10 log10(4 / MSE), at most 100.

    Both are clipped to [-1, 1] first, as pictures on disk are.
    """
    error = (images.clamp(-1, 1).float() - others.clamp(-1, 1).float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / error.clamp(min=4e-10))


def bicubic_round_trip(images: Images, factor: int) -> Float[Tensor, "b c h w"]:
    """Pictures made `factor` times smaller (antialiased) and larger again: what compression without learning keeps."""
    small = F.interpolate(images, scale_factor=1 / factor, mode="bicubic", antialias=True, align_corners=False)
    return F.interpolate(small, size=images.shape[-2:], mode="bicubic", align_corners=False)

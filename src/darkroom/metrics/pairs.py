"""How alike two pictures are."""

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from darkroom.core.errors import InputError
from darkroom.core.shapes import Images, PerSample

WINDOW = 11  # pixels: the side of SSIM's Gaussian window, and of the smallest picture it can judge
_SIGMA = 1.5
_STABLE_MEAN, _STABLE_CONTRAST = 0.01**2, 0.03**2  # C1 and C2 for pictures in 0..1


def psnr(images: Images, others: Images) -> PerSample:
    """Peak signal-to-noise ratio in dB of each pair, pictures in [-1, 1]: 10 log10(4 / MSE), at most 100.

    Both are clipped to [-1, 1] first, as pictures on disk are.
    """
    error = (images.clamp(-1, 1).float() - others.clamp(-1, 1).float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / error.clamp(min=4e-10))


def ssim(images: Images, others: Images) -> PerSample:
    """Structural similarity of each pair, at most 1; pictures in [-1, 1], clipped first, at least 11 x 11 pixels.

    (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)) with K1 = 0.01, K2 = 0.03, in a Gaussian window
    of 11 x 11 pixels and sigma 1.5, averaged over channels and the places where the window lies inside the picture.
    The means are those of pictures in 0..1, where black is 0. `InputError` for smaller pictures. Wang et al. 2004.
    """
    if images.shape != others.shape or min(images.shape[-2:]) < WINDOW:
        came = " and ".join(" x ".join(map(str, each.shape[1:])) for each in (images, others))
        raise InputError(f"SSIM needs two pictures of one size, {WINDOW} x {WINDOW} pixels at least; {came} came")
    one, other = (_unit(each) for each in (images, others))
    mean, other_mean = _blurred(one), _blurred(other)
    variance, other_variance = _blurred(one**2) - mean**2, _blurred(other**2) - other_mean**2
    covariance = _blurred(one * other) - mean * other_mean
    likeness = (2 * mean * other_mean + _STABLE_MEAN) * (2 * covariance + _STABLE_CONTRAST)
    largest = (mean**2 + other_mean**2 + _STABLE_MEAN) * (variance + other_variance + _STABLE_CONTRAST)
    return reduce(likeness / largest, "b c h w -> b", "mean")


def bicubic_round_trip(images: Images, factor: int) -> Float[Tensor, "b c h w"]:
    """Pictures made `factor` times smaller (antialiased) and larger again: what compression without learning keeps."""
    small = F.interpolate(images, scale_factor=1 / factor, mode="bicubic", antialias=True, align_corners=False)
    return F.interpolate(small, size=images.shape[-2:], mode="bicubic", align_corners=False)


def _unit(images: Images) -> Images:
    """[-1, 1] to 0..1."""
    return (images.clamp(-1, 1).float() + 1) / 2


def _blurred(images: Images) -> Float[Tensor, "b c h w"]:
    """Weighted means in the Gaussian window, only where it lies inside the picture."""
    place = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    bell = torch.exp(-(place**2) / (2 * _SIGMA**2))
    bell = (bell / bell.sum()).to(images)
    flat = rearrange(images, "b c h w -> (b c) 1 h w")
    flat = F.conv2d(F.conv2d(flat, rearrange(bell, "k -> 1 1 k 1")), rearrange(bell, "k -> 1 1 1 k"))
    return rearrange(flat, "(b c) 1 h w -> b c h w", b=len(images))

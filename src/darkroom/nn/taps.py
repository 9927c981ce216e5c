"""Distances between pictures measured on the inner maps ("taps") of a network, as LPIPS does."""

from collections.abc import Sequence

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from darkroom.core.compute import wide
from darkroom.core.errors import InputError
from darkroom.core.shapes import Images, PerSample

SMALLEST = 16  # pixels; below, the coarsest maps are smaller than their own filters

Taps = Sequence[Tensor]


def as_rgb(images: Images, *, dtype: torch.dtype = torch.float32) -> Float[Tensor, "b 3 h w"]:
    """Pictures as the networks see them: three channels, in the type of their weights, values in [-1, 1] as they came.

    Grey is repeated; RGBA is laid over mid-grey (colour times opacity), so that what cannot be seen does not count.
    `InputError` for other numbers of channels, and for pictures under 16 x 16.
    """
    channels, height, width = images.shape[1:]
    if min(height, width) < SMALLEST:
        raise InputError(f"pictures of {height} x {width} are too small to compare; at least 16 x 16 fits")
    pictures = images.to(dtype)
    match channels:
        case 1:
            return repeat(pictures, "b 1 h w -> b 3 h w")
        case 3:
            return pictures
        case 4:
            return pictures[:, :3] * ((pictures[:, 3:] + 1) / 2)
        case _:
            raise InputError(f"pictures with {channels} channels cannot be compared; 1 (grey), 3 or 4 (RGBA) fit")


def unit(features: Float[Tensor, "b c h w"], *, eps: float) -> Float[Tensor, "b c h w"]:
    """Every position's feature vector divided by its length + eps."""
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + eps)


def tap_distance(first: Taps, second: Taps, *, heads: Sequence[Tensor], eps: float) -> PerSample:
    """Σ_l mean_hw Σ_c w_lc (u_lc - v_lc)², u and v of unit length at every position (Zhang et al. 2018, eq. 1).

    heads: (c,) non-negative weights per tap · eps: added to the length, in the taps' own units.
    """
    return torch.stack(
        [
            ((unit(wide(a), eps=eps) - unit(wide(b), eps=eps)).square().mean((2, 3)) * w).sum(1)
            for a, b, w in zip(first, second, heads, strict=True)
        ]
    ).sum(0)

"""Ways in which a picture gets worse, each with one strength per picture, and the strength that costs a given PSNR.

People mind them differently at equal PSNR: a shift of a pixel or a mild change of colour least, white noise more, blur
and blocks most (Wang & Bovik 2009, fig. 2; Ponomarenko et al. 2015, TID2013).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from darkroom.core.shapes import Images, PerSample

Kind = Literal["shift", "cast", "light", "contrast", "noise", "blur", "blocks"]
Degrade = Callable[[PerSample], Images]

STEPS = 9  # of bisection: within 1/512 of the strongest
MARGIN = 4  # pixels around a picture that degradations may draw on and that are cut off afterwards
STRONGEST: dict[Kind, float] = {
    "shift": 3.0,  # pixels
    "cast": 0.8,  # length of the colour added, pictures in [-1, 1]
    "light": 0.6,
    "contrast": 0.7,  # share of the contrast lost
    "noise": 0.5,  # deviation
    "blur": 4.0,  # deviation, pixels
    "blocks": 12.0,  # times the JPEG tables of quality 50
}
ORDER: tuple[tuple[Kind, Kind], ...] = (
    ("shift", "cast"),
    ("shift", "light"),
    ("shift", "noise"),
    ("cast", "noise"),
    ("light", "noise"),
    ("contrast", "noise"),
    ("noise", "blur"),
    ("noise", "blocks"),
    ("cast", "blur"),
    ("shift", "blur"),
)

_LUMINANCE = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]  # ITU-T T.81, table K.1
_TO_YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]


def trim(pictures: Images) -> Images:
    """The picture without its margin."""
    return pictures[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def degradation(kind: Kind, pictures: Images, *, generator: Generator) -> Degrade:
    """The pictures (with margin) as a function of strength; its random part is drawn once, here."""
    count = len(pictures)
    match kind:
        case "shift":
            turn = torch.rand(count, generator=generator) * 2 * math.pi
            return lambda s: _shift(pictures, s * turn.sin(), s * turn.cos())
        case "cast" | "light":
            added = _cast(count, generator) if kind == "cast" else _light(count, generator)
            return lambda s: (pictures + _wide(s) * added).clamp(-1, 1)
        case "contrast":
            mean = pictures.mean((1, 2, 3), keepdim=True)
            return lambda s: mean + (pictures - mean) * (1 - _wide(s))
        case "noise":
            noise = torch.randn(pictures.shape, generator=generator)
            return lambda s: (pictures + _wide(s) * noise).clamp(-1, 1)
        case "blur":
            return lambda s: _separable(pictures, _gaussian(s, pictures.shape[2]), _gaussian(s, pictures.shape[3]))
        case "blocks":
            return lambda s: _blocks(pictures, s)


def at_psnr(
    kind: Kind, pictures: Images, *, psnr: PerSample, generator: Generator
) -> tuple[Images, Bool[Tensor, " b"]]:
    """Trimmed pictures degraded to a PSNR (dB, peak 2), and whether it was reached within 0.5 dB.

    Bisection: PSNR falls with strength; where it does not reach the wanted value the strongest is taken.
    """
    apply, clean = degradation(kind, pictures, generator=generator), trim(pictures)
    low, high = torch.zeros(len(pictures)), torch.full((len(pictures),), STRONGEST[kind])
    for _ in range(STEPS):
        middle = (low + high) / 2
        weak = signal_to_noise(trim(apply(middle)), clean) > psnr
        low, high = torch.where(weak, middle, low), torch.where(weak, high, middle)
    degraded = trim(apply(high))
    return degraded, (signal_to_noise(degraded, clean) - psnr).abs() < 0.5


def signal_to_noise(images: Images, targets: Images) -> PerSample:
    """PSNR in dB of pictures in [-1, 1]."""
    return 10 * torch.log10(4 / (images - targets).square().mean((1, 2, 3)).clamp(min=1e-10))


def _wide(s: PerSample) -> Float[Tensor, "b 1 1 1"]:
    return rearrange(s, "b -> b 1 1 1")


def _cast(count: int, generator: Generator) -> Float[Tensor, "b 3 1 1"]:
    """Colours of length 1 without luminance of their own."""
    colour = torch.randn(count, 3, generator=generator)
    colour = colour - colour.mean(1, keepdim=True)
    return rearrange(F.normalize(colour, dim=1), "b c -> b c 1 1")


def _light(count: int, generator: Generator) -> Float[Tensor, "b 1 1 1"]:
    """Brighter or darker."""
    return _wide(torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1)


def _separable(pictures: Images, rows: Float[Tensor, "b h h2"], columns: Float[Tensor, "b w w2"]) -> Images:
    return rows[:, None] @ pictures @ columns.mT[:, None]


def _offsets(size: int) -> Float[Tensor, "n n"]:
    place = torch.arange(size, dtype=torch.float32)
    return place[None] - place[:, None]


def _gaussian(sigma: PerSample, size: int) -> Float[Tensor, "b n n"]:
    weights = torch.exp(-((_offsets(size) / sigma.clamp(min=0.05)[:, None, None]) ** 2) / 2)
    return weights / weights.sum(2, keepdim=True)


def _shift(pictures: Images, down: PerSample, right: PerSample) -> Images:
    """Moved by fractions of a pixel, Lanczos of three lobes, so that a shift is not a blur."""
    return _separable(pictures, _lanczos(down, pictures.shape[2]), _lanczos(right, pictures.shape[3]))


def _lanczos(shift: PerSample, size: int) -> Float[Tensor, "b n n"]:
    place = torch.arange(size, dtype=torch.float32)
    source = (place[None, :, None] + shift[:, None, None]).clamp(0, size - 1)
    away = source - place
    weights = torch.sinc(away) * torch.sinc(away / 3) * (away.abs() < 3)
    return weights / weights.sum(2, keepdim=True)


def _blocks(pictures: Images, strength: PerSample) -> Images:
    """Rounding of 8 x 8 cosine coefficients as in JPEG, without subsampling of colour."""
    frequency, place = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    basis = torch.cos(math.pi * (place + 0.5) * frequency / 8) / 2
    basis[0] /= math.sqrt(2)
    to_ycc, step = torch.tensor(_TO_YCC), torch.tensor(_LUMINANCE) / 127.5
    ycc = einsum(to_ycc, pictures, "y c, b c h w -> b y h w")
    tiles = rearrange(ycc, "b y (r i) (s j) -> b y r s i j", i=8, j=8)
    steps = rearrange(strength.clamp(min=1e-3), "b -> b 1 1 1 1 1") * step
    rounded = ((basis @ tiles @ basis.T) / steps).round() * steps
    ycc = rearrange(basis.T @ rounded @ basis, "b y r s i j -> b y (r i) (s j)")
    return einsum(torch.linalg.inv(to_ycc), ycc, "c y, b y h w -> b c h w").clamp(-1, 1)

"""Pictures out of nothing: dead leaves, fractal noise, marble and gratings; statistics near those of photographs.

Lee, Mumford & Huang 2001 (dead leaves); Baradad et al. 2021 (features learnt from such pictures serve real ones).
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor

FAMILIES = ("leaves", "fractal", "marble", "gratings", "textured leaves")
LEAVES = 120


def procedural(family: int, *, count: int, size: int, generator: Generator) -> Float[Tensor, "n 3 h w"]:
    """Pictures of one family, values in 0..1."""
    match FAMILIES[family]:
        case "leaves":
            pictures = _leaves(_flat(count, generator), size=size, generator=generator)
        case "fractal":
            pictures = _coloured(fractal(count, channels=3, size=size, generator=generator), generator)
        case "marble":
            pictures = _marble(count, size=size, generator=generator)
        case "gratings":
            pictures = _gratings(count, size=size, generator=generator)
        case _:
            pictures = _leaves(_textures(count, size=size, generator=generator), size=size, generator=generator)
    return pictures.clamp(0, 1)


def _uniform(*shape: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _flat(count: int, generator: Generator) -> Float[Tensor, "n k 3 1 1"]:
    """Colours of leaves: around one hue a picture, brightness spread widely."""
    base = torch.rand(count, 1, 3, generator=generator)
    spread = _uniform(count, 1, 1, low=0.05, high=0.4, generator=generator)
    light = _uniform(count, LEAVES, 1, low=-0.4, high=0.4, generator=generator)
    colours = base + light + spread * torch.randn(count, LEAVES, 3, generator=generator)
    return colours.clamp(0, 1)[..., None, None]


def _textures(count: int, *, size: int, generator: Generator) -> Float[Tensor, "n k 3 h w"]:
    """Colours of leaves plus one of four textures a picture, so that leaves differ in grain as well."""
    grain = fractal(count * 4, channels=1, size=size, generator=generator).view(count, 4, 1, size, size)
    depth = _uniform(count, LEAVES, 1, 1, 1, low=0.0, high=0.25, generator=generator)
    which = torch.arange(LEAVES) % 4
    return _flat(count, generator) + depth * grain[:, which]


def _leaves(colours: Tensor, *, size: int, generator: Generator) -> Float[Tensor, "n 3 h w"]:
    """Ellipses and rectangles falling on each other, the topmost first; radii follow r^-3."""
    count = len(colours)
    place = torch.linspace(-1, 1, size)
    y, x = place[None, :, None], place[None, None, :]
    picture, free = torch.zeros(count, 3, size, size), torch.ones(count, 1, size, size)
    for leaf in range(LEAVES):
        low, high = 0.06 ** (-2), 0.9 ** (-2)
        radius = (high + (low - high) * torch.rand(count, 1, 1, generator=generator)) ** -0.5
        radius = radius if leaf < LEAVES - 6 else radius * 8
        aspect = _uniform(count, 1, 1, low=0.4, high=1.0, generator=generator)
        turn = _uniform(count, 1, 1, low=0, high=math.pi, generator=generator)
        cy, cx = _uniform(2, count, 1, 1, low=-1.1, high=1.1, generator=generator)
        u = ((x - cx) * turn.cos() + (y - cy) * turn.sin()) / radius
        v = ((y - cy) * turn.cos() - (x - cx) * turn.sin()) / (radius * aspect)
        round_ = torch.rand(count, 1, 1, generator=generator) < 0.6
        reach = torch.where(round_, (u.square() + v.square()).sqrt(), torch.maximum(u.abs(), v.abs()))
        cover = ((1 - reach) * radius * size / 2 + 0.5).clamp(0, 1)[:, None] * free
        picture += cover * colours[:, leaf]
        free = free - cover
    return picture + free * 0.5


def fractal(count: int, *, channels: int, size: int, generator: Generator) -> Float[Tensor, "n c h w"]:
    """Noise with amplitude 1 / f^a, a in 0.6..2.2, stretched along one axis; deviation 1."""
    noise = torch.randn(count, channels, size, size, generator=generator)
    fy, fx = torch.fft.fftfreq(size)[None, :, None], torch.fft.rfftfreq(size)[None, None, :]
    turn = _uniform(count, 1, 1, low=0, high=math.pi, generator=generator)
    stretch = _uniform(count, 1, 1, low=1, high=3, generator=generator)
    u, v = fx * turn.cos() + fy * turn.sin(), (fy * turn.cos() - fx * turn.sin()) * stretch
    power = _uniform(count, 1, 1, low=0.6, high=2.2, generator=generator)
    gain = (u.square() + v.square() + size**-2.0) ** (-power / 2)
    field = torch.fft.irfft2(torch.fft.rfft2(noise) * gain[:, None], s=(size, size))
    return (field - field.mean((2, 3), keepdim=True)) / field.std((2, 3), keepdim=True)


def _coloured(field: Float[Tensor, "n 3 h w"], generator: Generator) -> Float[Tensor, "n 3 h w"]:
    """Channels mixed, mostly into luminance as in photographs."""
    count = len(field)
    mix = torch.randn(count, 3, 3, generator=generator) * 0.08
    mix[:, :, 0] += _uniform(count, 1, low=0.08, high=0.25, generator=generator)
    mean = torch.rand(count, 3, 1, 1, generator=generator) * 0.6 + 0.2
    mixed = mix @ rearrange(field, "n c h w -> n c (h w)")
    return mean + mixed.view_as(field)


def _marble(count: int, *, size: int, generator: Generator) -> Float[Tensor, "n 3 h w"]:
    """Smooth noise through a palette of hard and soft steps."""
    field = fractal(count, channels=1, size=size, generator=generator)
    palette = torch.rand(count, 3, 1, 6, generator=generator)
    sharp = torch.exp(_uniform(count, 1, 1, 1, low=0.0, high=3.5, generator=generator))
    levels = torch.sort(torch.randn(count, 1, 1, 5, generator=generator), dim=3).values
    picture = palette[..., :1].expand(count, 3, size, size).clone()
    for step in range(5):
        share = torch.sigmoid(sharp * (field - levels[..., step : step + 1]))
        picture = picture + share * (palette[..., step + 1 : step + 2] - palette[..., step : step + 1])
    return picture


def _gratings(count: int, *, size: int, generator: Generator) -> Float[Tensor, "n 3 h w"]:
    """Three waves with bent fronts over a soft ground."""
    bend = fractal(count, channels=2, size=size, generator=generator) * 0.15
    place = torch.linspace(-1, 1, size)
    picture = torch.rand(count, 3, 1, 1, generator=generator) * 0.7 + 0.15 + 0.1 * bend[:, :1]
    for _ in range(3):
        turn = _uniform(count, 1, 1, low=0, high=math.pi, generator=generator)
        rate = torch.exp(_uniform(count, 1, 1, low=0.7, high=3.6, generator=generator))
        wave = rate * ((place + bend[:, 0]) * turn.cos() + (place[:, None] + bend[:, 1]) * turn.sin())
        sharp = torch.exp(_uniform(count, 1, 1, low=0.0, high=2.0, generator=generator))
        colour = torch.randn(count, 3, 1, 1, generator=generator) * 0.15
        picture = picture + colour * torch.tanh(sharp * torch.sin(wave * math.pi))[:, None]
    return picture

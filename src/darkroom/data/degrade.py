"""Low-resolution pictures made of high-resolution ones: plain bicubic, or a lighter blind degradation."""

import io
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal, TypeAlias, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import Field, model_validator
from torch import Generator, Tensor

from darkroom.core.pictures import from_bytes, to_bytes, to_pictures
from darkroom.core.seeds import generator
from darkroom.core.shapes import Number
from darkroom.core.spec import Spec

Pictures: TypeAlias = UInt8[Tensor, "b c _h _w"]  # sides change from argument to answer
Picture: TypeAlias = Float[Tensor, "1 c _h _w"]  # in [-1, 1]
KERNELS: Final = ("bilinear", "bicubic", "area")


@final
class BicubicSpec(Spec):
    """Smaller by `factor`, bicubic with antialiasing: the paper's super-resolution on ImageNet (section 4.4)."""

    kind: Literal["bicubic"] = "bicubic"
    factor: int = Field(default=4, gt=1)


@final
class BlindSpec(Spec):
    """Smaller by `factor` after blur, resizing, noise and JPEG in random order and strength.

    The lighter variant that the paper trains LDM-BSR with (appendix D.6.1), after Zhang et al. 2021 (BSRGAN): each of
    the four happens to every other sample or so. blur: largest deviation in pixels of the small picture · noise:
    largest deviation, of 255 · quality: of JPEG, lowest and highest.
    """

    kind: Literal["blind"] = "blind"
    factor: int = Field(default=4, gt=1)
    blur: float = Field(default=0.6, ge=0)
    noise: float = Field(default=8.0, ge=0)
    quality: tuple[int, int] = (50, 95)

    @model_validator(mode="after")
    def _ordered(self) -> "BlindSpec":
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ValueError(f"quality must go from low to high within 1..100, {self.quality} came")
        return self


DegradationSpec: TypeAlias = Annotated[BicubicSpec | BlindSpec, Field(discriminator="kind")]


def degrade(pictures: Pictures, spec: BicubicSpec | BlindSpec, *, seed: int, indices: Sequence[int]) -> Pictures:
    """Pictures (b, c, h, w) `factor` times smaller, a function of (seed, sample index); sides are multiples of it."""
    match spec:
        case BicubicSpec():
            size = [side // spec.factor for side in pictures.shape[-2:]]
            return F.interpolate(pictures, size=size, mode="bicubic", antialias=True)
        case BlindSpec():
            made = [
                _blind(picture[None], spec, draws=generator(seed, index, purpose="degrade"))
                for picture, index in zip(pictures, indices, strict=True)
            ]
            return torch.cat(made)


def _blind(picture: UInt8[Tensor, "1 c h w"], spec: BlindSpec, *, draws: Generator) -> UInt8[Tensor, "1 c _h _w"]:
    target = [side // spec.factor for side in picture.shape[-2:]]
    acts: list[Callable[[Picture], Picture]] = [
        lambda each: _blurred(each, spec, target=target, draws=draws),
        lambda each: _resized(each, target=target, draws=draws),
        lambda each: _noisy(each, spec, draws=draws),
        lambda each: _compressed(each, spec, draws=draws),
    ]
    values = from_bytes(picture)
    for place in torch.randperm(len(acts), generator=draws).tolist():
        if _between(0, 1, draws) < 0.6:
            values = acts[place](values)
    small = _interpolated(values, target, draws=draws)
    if _between(0, 1, draws) < 0.6:
        small = _compressed(small, spec, draws=draws)
    return ((small.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _between(low: Number, high: Number, draws: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=draws, dtype=torch.float64))


def _blurred(values: Picture, spec: BlindSpec, *, target: Sequence[int], draws: Generator) -> Picture:
    """A Gaussian with two deviations, turned by a random angle."""
    pixels = values.shape[-1] / target[-1]  # of a pixel of the small picture
    deviations = [max(0.05, _between(0.1, 1, draws) * spec.blur * pixels) for _ in range(2)]
    angle, reach = _between(0, math.pi, draws), max(1, math.ceil(3 * spec.blur * pixels))
    at = torch.arange(-reach, reach + 1, dtype=torch.float32)
    y, x = torch.meshgrid(at, at, indexing="ij")
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    kernel = (-0.5 * ((along / deviations[0]) ** 2 + (across / deviations[1]) ** 2)).exp()
    kernel = (kernel / kernel.sum()).expand(values.shape[1], 1, -1, -1)
    padded = F.pad(values, (reach,) * 4, mode="replicate")
    return F.conv2d(padded, kernel, groups=values.shape[1])


def _resized(values: Picture, *, target: Sequence[int], draws: Generator) -> Picture:
    """To a size between the target and this one, which is left for the last step to bring to the target."""
    share = _between(0, 1, draws)
    size = [round(low + share * (side - low)) for low, side in zip(target, values.shape[-2:], strict=True)]
    return _interpolated(values, size, draws=draws)


def _interpolated(values: Picture, size: Sequence[int], *, draws: Generator) -> Picture:
    mode = KERNELS[int(torch.randint(len(KERNELS), (), generator=draws))]
    if mode == "area":
        return F.interpolate(values, size=list(size), mode="area")
    return F.interpolate(values, size=list(size), mode=mode, antialias=True)


def _noisy(values: Picture, spec: BlindSpec, *, draws: Generator) -> Picture:
    """White noise, in colours or equal in all channels."""
    deviation = _between(0, 2 * spec.noise / 255, draws)
    grey = _between(0, 1, draws) < 0.4
    shape = (1, 1, *values.shape[-2:]) if grey else values.shape
    return (values + deviation * torch.randn(shape, generator=draws)).clamp(-1, 1)


def _compressed(values: Picture, spec: BlindSpec, *, draws: Generator) -> Picture:
    """Through JPEG, as `quality` says; alpha passes by."""
    quality = round(_between(*spec.quality, draws))
    colour = values[:, :3]
    data = io.BytesIO()
    to_pictures(colour)[0].save(data, format="JPEG", quality=quality)
    with Image.open(data) as picture:
        back = from_bytes(rearrange(to_bytes(picture, colour.shape[1]), "c h w -> 1 c h w"))
    return torch.cat([back, values[:, 3:]], dim=1)

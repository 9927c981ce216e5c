"""Pictures as conditions: semantic maps and low-resolution pictures become planes beside the noisy latent."""

from typing import Literal, final

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import nn

from darkroom.core.shapes import Choice, Images, Latent
from darkroom.core.spec import Spec


class MapSpec(Spec):
    """A one-hot semantic map, halved `halvings` times, then a 1 x 1 convolution to `channels` planes."""

    kind: Literal["map"] = "map"
    port: Literal["planes"] = "planes"
    classes: int = Field(gt=0)
    channels: int = Field(gt=0)
    halvings: int = Field(ge=0)
    drop: float = Field(default=0.0, ge=0, lt=1)

    @property
    def field(self) -> str:
        """The batch field it reads."""
        return "map"


class LowResSpec(Spec):
    """A low-resolution picture at latent size, given as it is."""

    kind: Literal["low-res"] = "low-res"
    port: Literal["planes"] = "planes"
    channels: int = Field(default=3, gt=0)
    drop: float = Field(default=0.0, ge=0, lt=1)

    @property
    def field(self) -> str:
        """The batch field it reads."""
        return "low_res"


class MaskedSpec(Spec):
    """First-stage latents of the masked picture, and the mask at latent size (1: paint here)."""

    kind: Literal["masked"] = "masked"
    port: Literal["planes"] = "planes"
    channels: int = Field(gt=0)
    drop: float = Field(default=0.0, ge=0, lt=1)

    @property
    def field(self) -> str:
        """The batch field it reads."""
        return "masked"


def _zero_where(planes: Images, choice: Choice) -> Images:
    return planes * rearrange(~choice, "b -> b 1 1 1")


@final
class MapConditioner(nn.Module):
    """The original's spatial rescaler: bilinear halvings, then a learnt 1 x 1 convolution without bias."""

    def __init__(self, spec: MapSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mix = nn.Conv2d(spec.classes, spec.channels, 1, bias=False)

    def forward(self, one_hot: Images) -> Latent:
        """(b, classes, H, W) to (b, channels, H / 2^halvings, W / 2^halvings)."""
        for _ in range(self.spec.halvings):
            one_hot = F.interpolate(one_hot, scale_factor=0.5, mode="bilinear")
        return self.mix(one_hot)

    def drop(self, planes: Images, choice: Choice) -> Images:
        """An empty map where `choice` says so."""
        return _zero_where(planes, choice)

    def null(self, port: Images) -> Images:
        """The planes of an empty map (the convolution has no bias)."""
        return torch.zeros_like(port)


@final
class PlanesConditioner(nn.Module):
    """Planes that need no learning: low-resolution pictures, masked latents with their mask."""

    def __init__(self, spec: LowResSpec | MaskedSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, planes: Images) -> Images:
        """(b, channels, h, w) as they are."""
        return planes

    def drop(self, planes: Images, choice: Choice) -> Images:
        """Zeros where `choice` says so."""
        return _zero_where(planes, choice)

    def null(self, port: Images) -> Images:
        """Zeros of the same shape."""
        return torch.zeros_like(port)

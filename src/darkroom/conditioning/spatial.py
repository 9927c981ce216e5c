"""Pictures as conditions: semantic maps and low-resolution pictures become planes beside the noisy latent."""

from typing import ClassVar, Final, Literal, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from darkroom.conditioning.fill import Fill
from darkroom.conditioning.guess import Guess
from darkroom.core.errors import InputError
from darkroom.core.shapes import Choice, Images, Latent, Mask
from darkroom.core.spec import Spec

UNDROPPED: Final = "what latents are guessed from is always needed, so drop must be 0 beside guesses"


class MapSpec(Spec):
    """A one-hot semantic map, halved `halvings` times, then a 1 x 1 convolution to `channels` planes.

    patch: before the convolution, squares of patch x patch pixels become channels, so that nothing is averaged away.
    """

    written_where_used: ClassVar = frozenset({"patch"})

    kind: Literal["map"] = "map"
    port: Literal["planes"] = "planes"
    classes: int = Field(gt=0)
    channels: int = Field(gt=0)
    halvings: int = Field(ge=0)
    patch: int = Field(default=1, gt=0)
    drop: float = Field(default=0.0, ge=0, lt=1)

    field: ClassVar[str] = "map"


class LowResSpec(Spec):
    """A low-resolution picture at latent size, given as it is.

    patch: the picture's sides are `patch` times the latent's, and squares of patch x patch pixels become channels (so
    `channels` is a multiple of patch^2) · enlarge: the picture's sides are so many times shorter than the latent's, and
    it is enlarged · guesses: the number of latent channels, if latents are guessed from the picture (`Guess`) and the
    denoiser learns the rest; else 0.
    """

    written_where_used: ClassVar = frozenset({"patch", "enlarge", "guesses"})

    kind: Literal["low-res"] = "low-res"
    port: Literal["planes"] = "planes"
    channels: int = Field(default=3, gt=0)
    patch: int = Field(default=1, gt=0)
    enlarge: int = Field(default=1, gt=0)
    guesses: int = Field(default=0, ge=0)
    drop: float = Field(default=0.0, ge=0, lt=1)

    field: ClassVar[str] = "low_res"

    @model_validator(mode="after")
    def _consistent(self) -> "LowResSpec":
        if self.channels % self.patch**2:
            raise ValueError(f"channels ({self.channels}) must be a multiple of patch^2 ({self.patch**2})")
        if self.patch > 1 and self.enlarge > 1:
            raise ValueError("patch and enlarge exclude each other")
        if self.guesses and self.drop:
            raise ValueError(UNDROPPED)
        return self


class MaskedSpec(Spec):
    """First-stage latents of the masked picture, and the mask at latent size (1: paint here).

    shrink: a cell of the mask takes its nearest pixel, as in the original, or is to be painted when any of its pixels
    is · fill: what the hole is filled with before encoding, black as in the original (`fill.filled`) · guesses: these
    latents are a guess at the whole picture's; the denoiser learns the rest in the hole and nothing elsewhere · units:
    of these latents: the denoiser's, or the first stage's own as in the original.
    """

    written_where_used: ClassVar = frozenset({"shrink", "fill", "guesses", "units"})

    kind: Literal["masked"] = "masked"
    port: Literal["planes"] = "planes"
    channels: int = Field(gt=0)
    shrink: Literal["nearest", "any"] = "nearest"
    fill: Fill = "black"
    guesses: bool = False
    units: Literal["denoiser", "first-stage"] = "denoiser"
    drop: float = Field(default=0.0, ge=0, lt=1)

    field: ClassVar[str] = "masked"

    @model_validator(mode="after")
    def _consistent(self) -> "MaskedSpec":
        if self.guesses and self.drop:
            raise ValueError(UNDROPPED)
        if self.guesses and (self.shrink == "nearest" or self.fill == "black"):
            raise ValueError("guesses needs shrink any and no black fill, for what is not painted is taken as it is")
        if self.guesses and self.units == "first-stage":
            raise ValueError("guesses needs latents in the denoiser's units")
        return self


def shrunk(mask: Mask, size: tuple[int, int], *, how: Literal["nearest", "any"]) -> Float[Tensor, "b 1 h w"]:
    """A mask (b, 1, H, W) of 0 and 1 at the size of latents, 0 and 1 again."""
    match how:
        case "nearest":
            return F.interpolate(mask, size=size, mode="nearest")
        case "any":
            return F.adaptive_max_pool2d(mask, size)


def _zero_where(planes: Images, choice: Choice) -> Images:
    return planes * rearrange(~choice, "b -> b 1 1 1")


def one_hot(ids: Int[Tensor, "b h w"], classes: int) -> Images:
    """Class ids (b, H, W) as (b, classes, H, W); `InputError` for an id out of range."""
    check_ids(ids, classes)
    made = torch.zeros(len(ids), classes, *ids.shape[1:], device=ids.device)
    return made.scatter_(1, rearrange(ids.long(), "b h w -> b 1 h w"), 1.0)


def check_ids(ids: Int[Tensor, "b h w"], classes: int) -> None:
    """`InputError` for an id out of range."""
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < classes:
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise InputError(f"the map has the id {wrong}; this model has {classes} map classes, 0..{classes - 1}")


@final
class MapConditioner(nn.Module):
    """The original's spatial rescaler: bilinear halvings, then a learnt 1 x 1 convolution without bias.

    Squares that become channels instead of being averaged are ours: at f = 8 an average says little of an outline.
    """

    def __init__(self, spec: MapSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mix = nn.Conv2d(spec.classes * spec.patch**2, spec.channels, 1, bias=False)

    def forward(self, one_hot: Images) -> Latent:
        """(b, classes, H, W) to (b, channels, h, w), sides 2^halvings patch times smaller."""
        for _ in range(self.spec.halvings):
            one_hot = F.interpolate(one_hot, scale_factor=0.5, mode="bilinear")
        return self.mix(one_hot if self.spec.patch == 1 else F.pixel_unshuffle(one_hot, self.spec.patch))

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
        guesses = spec.guesses if isinstance(spec, LowResSpec) else 0
        self.guess = Guess(spec.channels, guesses) if guesses else None

    def guessed(self, port: Images) -> Latent | None:
        """The guess at the latents, from what `forward` gives; None for a conditioner that guesses nothing."""
        match self.spec:
            case MaskedSpec(guesses=True):
                return port[:, :-1]
            case _:
                return None if self.guess is None else self.guess(port)

    def known(self, port: Images) -> Mask | None:
        """1 where nothing is to be painted, from what `forward` gives; None for a conditioner without a mask."""
        return (port[:, -1:] < 0).to(port) if isinstance(self.spec, MaskedSpec) else None

    def forward(self, planes: Images) -> Latent:
        """(b, channels, h, w) as they are; a low-resolution picture is brought to that as its spec says."""
        match self.spec:
            case LowResSpec(patch=patch) if patch > 1:
                return F.pixel_unshuffle(planes, patch)
            case LowResSpec(enlarge=times) if times > 1:
                return F.interpolate(planes, scale_factor=float(times), mode="bicubic")
            case _:
                return planes

    def drop(self, planes: Images, choice: Choice) -> Images:
        """Zeros where `choice` says so."""
        return _zero_where(planes, choice)

    def null(self, port: Images) -> Images:
        """Zeros of the same shape."""
        return torch.zeros_like(port)

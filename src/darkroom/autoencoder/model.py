"""The first stage: pictures to latents and back (paper, section 3.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Int
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from darkroom.autoencoder.bottleneck import BottleneckSpec, Codebook, KLSpec, Posterior, VQSpec
from darkroom.autoencoder.coder import Decoder, Encoder
from darkroom.autoencoder.shortcut import ShortcutIn, ShortcutOut, begin_as_resizing
from darkroom.autoencoder.tiny import TinyDecoder, TinyDecoderSpec
from darkroom.core.errors import InputError, multiples_fit
from darkroom.core.shapes import Images, Latent, PerSample
from darkroom.core.spec import Spec

PATCH = {"conv": 1, "patch2": 2, "patch4": 4}
DECODING = ("decoder.", "from_latent.", "shortcut_out.")  # names of the weights that turn latents into pictures


class PixelsSpec(Spec):
    """No compression: the denoiser works on pixels, the paper's LDM-1.

    patch: squares of patch x patch pixels become channels: fewer places, and no pixel is lost.
    """

    written_where_used: ClassVar = frozenset({"patch"})

    kind: Literal["pixels"] = "pixels"
    image_channels: int = Field(default=3, gt=0)
    patch: int = Field(default=1, gt=0)

    @property
    def factor(self) -> int:
        """Downsampling factor f: pixels of a side for each place of the latent."""
        return self.patch

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return self.image_channels * self.patch**2


class AutoencoderSpec(Spec):
    """What a first stage is made of.

    channels and multipliers: widths of the levels, each at half the resolution of the one before · blocks: residual
    blocks per level of the encoder (one more in the decoder) · attention: downsampling factors of levels that attend ·
    stem: `conv`, or `patch2` / `patch4`, which first turn squares of pixels into channels · code_channels: width
    between encoder and the 1 x 1 convolution to latents (None: latent_channels) · shortcut: `linear` adds a linear one
    past encoder and decoder, so that training begins as resizing · tiny: a decoder of another, smaller kind (None: the
    decoder mirrors the encoder).
    """

    written_where_used: ClassVar = frozenset({"tiny", "shortcut"})

    kind: Literal["autoencoder"] = "autoencoder"
    image_channels: int = Field(default=3, gt=0)
    channels: int = Field(default=128, gt=0)
    multipliers: tuple[PositiveInt, ...] = Field(default=(1, 2, 4), min_length=1, max_length=16)
    blocks: int = Field(default=2, gt=0)
    attention: tuple[int, ...] = Field(default=(), max_length=16)
    middle_attention: bool = True
    stem: Literal["conv", "patch2", "patch4"] = "conv"
    latent_channels: int = Field(default=4, gt=0)
    code_channels: PositiveInt | None = None
    bottleneck: BottleneckSpec = Field(default_factory=KLSpec)
    norm_groups: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    shortcut: Literal["none", "linear"] = "none"
    tiny: TinyDecoderSpec | None = None

    @property
    def factor(self) -> int:
        """Downsampling factor f."""
        return PATCH[self.stem] * 2 ** (len(self.multipliers) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, highest resolution first."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def attend_at(self) -> frozenset[int]:
        """Indices of the levels that attend."""
        factors = [PATCH[self.stem] * 2**level for level in range(len(self.multipliers))]
        return frozenset(level for level, factor in enumerate(factors) if factor in self.attention)

    @model_validator(mode="after")
    def _consistent(self) -> "AutoencoderSpec":
        for width in self.widths:
            if width % self.norm_groups:
                raise ValueError(f"norm_groups {self.norm_groups} does not divide the width {width}")
        if self.shortcut != "none" and (self.factor == 1 or self.latent_channels < self.image_channels):
            raise ValueError(
                "a shortcut needs a factor of 2 or more, and latents of at least as many channels as pictures have"
            )
        return self


FirstStageSpec = Annotated[AutoencoderSpec | PixelsSpec, Field(discriminator="kind")]


@final
@dataclass(frozen=True)
class Reconstruction:
    """What training needs of a pass: the pictures, and the bottleneck's loss per sample (KL a sum, VQ a mean).

    latents, indices: of a VQ model, the latents before quantisation and the codes chosen for them.
    """

    images: Images
    regularizer: PerSample
    latents: Latent | None = None
    indices: Int[Tensor, "b h w"] | None = None


@final
class Autoencoder(nn.Module):
    """A first stage with KL, VQ or no bottleneck; pictures are (b, c, H, W) in [-1, 1], latents (b, k, H/f, W/f)."""

    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        self.spec = spec
        code = spec.code_channels or spec.latent_channels
        moments = 2 if isinstance(spec.bottleneck, KLSpec) else 1
        self.encoder = Encoder(out_channels=moments * code, **_levels(spec))
        self.decoder = _decoder(spec, code=code)
        self.to_latent = nn.Conv2d(moments * code, moments * spec.latent_channels, 1)
        self.from_latent = nn.Conv2d(spec.latent_channels, code if spec.tiny is None else spec.latent_channels, 1)
        bottleneck = spec.bottleneck
        self.codebook = Codebook(bottleneck, width=spec.latent_channels) if isinstance(bottleneck, VQSpec) else None
        self.shortcut_in = self.shortcut_out = None
        if spec.shortcut == "linear":
            channels = {"image_channels": spec.image_channels, "latent_channels": spec.latent_channels}
            self.shortcut_in = ShortcutIn(factor=spec.factor, **channels)
            self.shortcut_out = ShortcutOut(factor=spec.factor, **channels)
            begin_as_resizing(self.to_latent, self.decoder.head, latent_channels=spec.latent_channels)

    def moments(self, images: Images) -> tuple[Latent, Latent | None]:
        """Posterior mean and log-variance (KL), or the latents before quantisation and None.

        `InputError` when a side is not a multiple of f, naming the nearest that fits.
        """
        check_size(images, factor=self.spec.factor, channels=self.spec.image_channels)
        latents = self.to_latent(self.encoder(images))
        if self.shortcut_in is not None:
            means, rest = latents.tensor_split([self.spec.latent_channels], dim=1)
            latents = torch.cat([means + self.shortcut_in(images), rest], dim=1)
        if isinstance(self.spec.bottleneck, KLSpec):
            posterior = Posterior.from_moments(latents)
            return posterior.mean, posterior.log_variance
        return latents, None

    def quantize(self, latents: Latent) -> tuple[Latent, Int[Tensor, "b h w"]]:
        """The nearest codes and their indices; `InputError` for a model without a codebook."""
        if self.codebook is None:
            raise InputError("this first stage has no codebook, so its latents cannot be quantised")
        quantized, indices, _ = self.codebook(latents)
        return quantized, indices

    def decode(self, latents: Latent) -> Images:
        """Pictures from latents in the first stage's own units; a VQ model quantises first."""
        return self.decode_raw(latents if self.codebook is None else self.codebook(latents)[0])

    def decode_raw(self, latents: Latent) -> Images:
        """Pictures from latents, never quantised."""
        made = self.decoder(self.from_latent(latents))
        return made if self.shortcut_out is None else made + self.shortcut_out(latents)

    def reconstruct(self, images: Images, *, noise: Latent | None = None) -> Reconstruction:
        """Through the bottleneck and back; `noise` (latent shape) draws the posterior, without it its mean is used."""
        mean, log_variance = self.moments(images)
        if log_variance is not None:
            posterior = Posterior(mean, log_variance)
            latents = mean if noise is None else posterior.sample(noise)
            return Reconstruction(self.decode_raw(latents), posterior.kl())
        if self.codebook is not None:
            quantized, indices, loss = self.codebook(mean)
            return Reconstruction(self.decode_raw(quantized), loss, mean, indices)
        return Reconstruction(self.decode_raw(mean), torch.zeros(len(mean), device=mean.device))

    @property
    def last_layer(self) -> nn.Parameter:
        """The decoder's last kernel, where the adversary's gradient is weighed against that of reconstruction."""
        return self.decoder.head.weight

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Shape (k, h, w) of the latent of pictures of this height and width."""
        return self.spec.latent_channels, size[0] // self.spec.factor, size[1] // self.spec.factor


def _levels(spec: AutoencoderSpec) -> dict[str, Any]:
    """What encoder and mirrored decoder have in common."""
    return {
        "image_channels": spec.image_channels,
        "patch": PATCH[spec.stem],
        "widths": spec.widths,
        "blocks": spec.blocks,
        "attend_at": spec.attend_at,
        "middle_attention": spec.middle_attention,
        "groups": spec.norm_groups,
        "dropout": spec.dropout,
    }


def _decoder(spec: AutoencoderSpec, *, code: int) -> Decoder | TinyDecoder:
    if spec.tiny is None:
        return Decoder(in_channels=code, **_levels(spec))
    return TinyDecoder(
        spec.tiny, image_channels=spec.image_channels, in_channels=spec.latent_channels, factor=spec.factor
    )


@torch.no_grad()
def same_latents(one: Autoencoder, other: Autoencoder) -> bool:
    """Do two first stages have one encoder (and codebook), up to rounding to bfloat16, whatever their decoders?"""
    specs = [model.spec.model_copy(update={"tiny": None, "dropout": 0.0}) for model in (one, other)]
    if specs[0] != specs[1]:
        return False
    first, second = (without_decoder(model.state_dict()) for model in (one, other))
    return all(
        torch.allclose(value.float().cpu(), second[name].float().cpu(), rtol=2**-8, atol=1e-7)
        for name, value in first.items()
    )


def without_decoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a first stage that say what latents are: all but those that turn them into pictures."""
    return {name: value for name, value in state.items() if not name.startswith(DECODING)}


@final
class Pixels(nn.Module):
    """A first stage that learns and loses nothing: latents are pictures, or squares of their pixels as channels."""

    def __init__(self, spec: PixelsSpec) -> None:
        super().__init__()
        self.spec = spec

    def moments(self, images: Images) -> tuple[Latent, Latent | None]:
        """The pictures themselves and None."""
        check_size(images, factor=self.spec.patch, channels=self.spec.image_channels)
        return F.pixel_unshuffle(images, self.spec.patch), None

    def decode(self, latents: Latent) -> Images:
        """The pictures again."""
        return F.pixel_shuffle(latents, self.spec.patch)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Shape (k, h, w) of the latent of pictures of this height and width."""
        return self.spec.latent_channels, size[0] // self.spec.patch, size[1] // self.spec.patch


FirstStage = Autoencoder | Pixels


def build_first_stage(spec: AutoencoderSpec | PixelsSpec) -> FirstStage:
    """A first stage with fresh weights."""
    match spec:
        case AutoencoderSpec():
            return Autoencoder(spec)
        case PixelsSpec():
            return Pixels(spec)


def check_size(images: Tensor, *, factor: int, channels: int) -> None:
    """`InputError` when pictures have another channel count or sides that are no multiples of `factor`."""
    if images.shape[1] != channels:
        raise InputError(f"pictures with {images.shape[1]} channels came, this first stage takes {channels}")
    height, width = images.shape[-2:]
    if height % factor or width % factor:
        raise InputError(f"pictures of {height}x{width} do not fit: {multiples_fit((height, width), factor)}")

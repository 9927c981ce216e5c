"""What stands between encoder and decoder: a Gaussian posterior (KL), a codebook (VQ), or nothing.

Specs are values; the codebook is the only bottleneck with weights.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal, final

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from darkroom.core.compute import wide
from darkroom.core.shapes import Latent, PerSample
from darkroom.core.spec import Spec

LOG_VARIANCE_RANGE = (-30.0, 20.0)
AT_ONCE: Final = 2**24  # distances to codes


class KLSpec(Spec):
    """A Gaussian posterior per position, pulled weakly towards N(0, 1)."""

    kind: Literal["kl"] = "kl"


class VQSpec(Spec):
    """Vector quantisation (van den Oord et al. 2017) with a codebook of `codes` vectors.

    commitment: `legacy` weighs the codebook term with beta and the commitment term with 1, as the original's code
    does; `corrected` weighs the commitment term with beta, as the paper of VQ-VAE writes it.
    """

    kind: Literal["vq"] = "vq"
    codes: int = Field(default=8192, gt=1)
    beta: float = Field(default=0.25, ge=0)
    commitment: Literal["legacy", "corrected"] = "legacy"


class PlainSpec(Spec):
    """No bottleneck: the latent is what the encoder says."""

    kind: Literal["plain"] = "plain"


BottleneckSpec = Annotated[KLSpec | VQSpec | PlainSpec, Field(discriminator="kind")]


@final
@dataclass(frozen=True)
class Posterior:
    """A diagonal Gaussian over latents: mean and log-variance (clamped to [-30, 20]), both (b, c, h, w)."""

    mean: Latent
    log_variance: Latent

    @classmethod
    def from_moments(cls, moments: Float[Tensor, "b c2 h w"]) -> "Posterior":
        """Mean and log-variance are the two halves of the channels."""
        mean, log_variance = moments.chunk(2, dim=1)
        return cls(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))

    @property
    def std(self) -> Latent:
        """Standard deviation."""
        return torch.exp(0.5 * self.log_variance)

    def sample(self, noise: Latent) -> Latent:
        """mean + std · noise, noise standard normal of the same shape."""
        return self.mean + self.std * noise

    def kl(self) -> PerSample:
        """KL divergence to N(0, 1), summed over c, h, w: ½ Σ (μ² + σ² - 1 - log σ²), one value per sample.

        In float32 at least: the sum of thousands of terms has more digits than bfloat16.
        """
        mean, log_variance = wide(self.mean), wide(self.log_variance)
        terms = mean**2 + log_variance.exp() - 1 - log_variance
        return 0.5 * reduce(terms, "b c h w -> b", "sum")


@final
class Codebook(nn.Module):
    """Nearest-neighbour quantisation with a straight-through gradient."""

    def __init__(self, spec: VQSpec, *, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.codes = nn.Embedding(spec.codes, width)
        nn.init.uniform_(self.codes.weight, -1 / spec.codes, 1 / spec.codes)

    @torch.no_grad()
    def nearest(self, latents: Latent) -> Int[Tensor, "b h w"]:
        """Index of the nearest code at every position (squared Euclidean distance).

        Positions are taken a part at a time: all distances of a picture to thousands of codes are gigabytes.
        """
        flat = wide(rearrange(latents, "b c h w -> (b h w) c"))
        codes = wide(self.codes.weight)
        lengths, found = (codes**2).sum(1), list[Tensor]()
        with torch.autocast(latents.device.type, enabled=False):  # rounded distances choose other codes
            for part in flat.split(max(1, AT_ONCE // len(codes))):
                distance = (part**2).sum(1, keepdim=True) + lengths - 2 * part @ codes.T
                found.append(distance.argmin(dim=1))
        return rearrange(torch.cat(found), "(b h w) -> b h w", b=latents.shape[0], h=latents.shape[2])

    def look_up(self, indices: Int[Tensor, "b h w"]) -> Latent:
        """The codes at the indices, (b, c, h, w)."""
        return rearrange(self.codes(indices), "b h w c -> b c h w")

    def forward(self, latents: Latent) -> tuple[Latent, Int[Tensor, "b h w"], PerSample]:
        """Quantised latents (gradient passes straight through), indices, and the codebook loss per sample."""
        indices = self.nearest(latents)
        quantized = self.look_up(indices)
        codebook = reduce((quantized - latents.detach()) ** 2, "b c h w -> b", "mean")
        commitment = reduce((quantized.detach() - latents) ** 2, "b c h w -> b", "mean")
        beta = self.spec.beta
        legacy = self.spec.commitment == "legacy"
        loss = beta * codebook + commitment if legacy else codebook + beta * commitment
        return latents + (quantized - latents).detach(), indices, loss


def perplexity(indices: Int[Tensor, "..."], codes: int) -> float:
    """exp(entropy) of code use: the number of codes in effective use, 1..codes."""
    return float(effective(torch.bincount(indices.flatten().cpu(), minlength=codes).double()))


def effective(use: Float[Tensor, " codes"]) -> Float[Tensor, ""]:
    """exp(entropy) of how often each code was used, in any unit."""
    return torch.special.entr(use / use.sum().clamp(min=1e-12)).sum().exp()

"""The scale of latents is data: measured over a training set, stored with the weights that it belongs to."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from darkroom.core.errors import DataError
from darkroom.core.shapes import Latent
from darkroom.core.spec import Spec


@final
class LatentStatistics(Spec):
    """Mean and deviation of posterior draws, per channel and over all values, in the first stage's own units.

    whole: the deviation over all values of all channels, about the one common mean · pictures: how many were measured.
    """

    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(ge=0)], ...] = Field(min_length=1)
    whole: float = Field(gt=0)
    pictures: int = Field(gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> "LatentStatistics":
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean of {len(self.mean)} channels and std of {len(self.std)} do not belong together")
        return self

    def scale(self, spread: Sequence[float] | None = None) -> Float[Tensor, "*channels"]:
        """What latents are multiplied by, float32: 1 / whole (paper, appendix G).

        With `spread`, a deviation for each channel: (c,), which brings every channel to its own. A channel that hardly
        varies is not blown up: its measured deviation counts as 1 % of the whole at least.
        """
        if spread is None:
            return torch.tensor(1 / self.whole)
        std = torch.tensor(self.std, dtype=torch.float64).clamp(min=self.whole / 100)
        return (torch.tensor(tuple(spread), dtype=torch.float64) / std).float()


@final
class LatentSums:
    """Sums over pictures, in float64, from which the statistics follow: E[z²] = mean² + variance of the posterior."""

    def __init__(self) -> None:
        self.pictures = self.values = 0
        self.first = self.second = torch.zeros(())

    def add(self, mean: Latent, logvar: Latent | None) -> None:
        """Take in the posterior moments of some pictures."""
        flat = rearrange(mean.double(), "n c h w -> c (n h w)")
        self.pictures += len(mean)
        self.values += flat.shape[1]
        self.first = self.first + flat.sum(1)
        self.second = self.second + flat.square().sum(1)
        if logvar is not None:
            self.second = self.second + rearrange(logvar.double().exp(), "n c h w -> c (n h w)").sum(1)

    def statistics(self) -> LatentStatistics:
        """What was measured; `DataError` when latents do not vary, or are not finite."""
        first, second = self.first / self.values, self.second / self.values
        std, whole = (second - first**2).clamp(min=0).sqrt(), (second.mean() - first.mean() ** 2).clamp(min=0).sqrt()
        if not 0 < float(whole) < torch.inf:
            raise DataError(
                f"the latents of these pictures do not vary (their deviation is {float(whole):g}), so no denoiser can "
                "learn them; are they all alike?"
            )
        return LatentStatistics(
            mean=tuple(first.tolist()), std=tuple(std.tolist()), whole=float(whole), pictures=self.pictures
        )

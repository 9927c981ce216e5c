"""Times as vectors."""

import math
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def sinusoid(
    t: Float[Tensor, " b"] | Int[Tensor, " b"], width: int, *, period: float = 10_000.0
) -> Float[Tensor, "b d"]:
    """Cosines then sines of t at geometrically falling frequencies (Vaswani et al. 2017, cosine first as in ADM)."""
    half = width // 2
    rates = torch.exp(-math.log(period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * rates
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    return nn.functional.pad(waves, (0, width % 2))


@final
class TimeEmbedding(nn.Module):
    """Sinusoid of t, then Linear, SiLU, Linear; `scale` stretches continuous times to the range of discrete ones."""

    def __init__(self, width: int, *, out_width: int, scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        self.first = nn.Linear(width, out_width)
        self.second = nn.Linear(out_width, out_width)

    def forward(self, t: Float[Tensor, " b"] | Int[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """(b,) times to (b, out_width)."""
        waves = sinusoid(t if self.scale == 1.0 else t * self.scale, self.width)
        return self.second(nn.functional.silu(self.first(waves.to(self.first.weight.dtype))))

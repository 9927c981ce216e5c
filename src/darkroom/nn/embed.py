"""Times and places as vectors."""

import math
from functools import lru_cache
from typing import Final, final

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

PERIOD: Final = 10_000.0  # of the slowest wave of a time, divided by 2 pi


def sinusoid(t: Float[Tensor, " b"] | Int[Tensor, " b"], width: int) -> Float[Tensor, "b d"]:
    """Cosines then sines of t at geometrically falling frequencies (Vaswani et al. 2017, cosine first as in ADM)."""
    half = width // 2
    rates = torch.exp(-math.log(PERIOD) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * rates
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    return nn.functional.pad(waves, (0, width % 2))


def place_waves(size: tuple[int, int], width: int, *, device: torch.device) -> Float[Tensor, "n d"]:
    """(h w, width): sines and cosines of where each cell of a map lies, from 0 to 1 of its height and of its width.

    Frequencies rise geometrically from a quarter of a period over the whole side to two periods; every size has the
    same edges and the same middle. `width` is a multiple of 4.
    """
    rates = 0.5 * math.pi * 2 ** torch.linspace(0, 3, width // 4, device=device)

    def waves(side: int) -> Float[Tensor, "side d"]:
        angles = (torch.arange(side, device=device) + 0.5)[:, None] / side * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    rows, columns = waves(size[0]), waves(size[1])
    down, across = repeat(rows, "h d -> (h w) d", w=size[1]), repeat(columns, "w d -> (h w) d", h=size[0])
    return torch.cat([down, across], dim=1)


@lru_cache(maxsize=16)
@torch.inference_mode(mode=False)
def kept_place_waves(
    size: tuple[int, int], width: int, *, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "n d"]:
    """`place_waves` in a type; kept, for every block of a network asks for them at every step."""
    return place_waves(size, width, device=device).to(dtype)


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

"""A linear guess at latents from a given picture, so that a denoiser need only learn the rest."""

from collections.abc import Iterable
from typing import Final, final

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from darkroom.core.shapes import Images, Latent

SIDE: Final = 5  # cells that a guess looks at, across and down
RIDGE: Final = 1e-4  # of the mean square of what it looks at; regularises the fit


@final
class Guess(nn.Module):
    """One convolution without bias, whose kernel is fitted by least squares (`fit`), not trained; zeros before that."""

    kernel: Tensor

    def __init__(self, planes: int, latents: int) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.zeros(latents, planes, SIDE, SIDE))

    def forward(self, planes: Images) -> Latent:
        """(b, planes, h, w) to (b, latents, h, w), in float32, for the rest is a small difference to it."""
        with torch.autocast(planes.device.type, enabled=False):
            return F.conv2d(_padded(planes.float()), self.kernel.float())

    @torch.no_grad()
    def fit(self, pairs: Iterable[tuple[Images, Latent]]) -> None:
        """The kernel with the least squared error over batches of planes and the latents that belong to them."""
        count = self.kernel[0].numel()
        seen, both = (torch.zeros(count, width, dtype=torch.float64) for width in (count, len(self.kernel)))
        for planes, latents in pairs:
            around = rearrange(F.unfold(_padded(planes), SIDE), "b k n -> (b n) k").double()
            wanted = rearrange(latents, "b c h w -> (b h w) c").double()
            seen += around.T @ around
            both += around.T @ wanted
        seen += RIDGE * seen.diagonal().mean().clamp(min=1e-12) * torch.eye(count, dtype=torch.float64)
        self.kernel.copy_(torch.linalg.solve(seen, both).T.reshape(self.kernel.shape))


def _padded(planes: Images) -> Tensor:
    return F.pad(planes, (SIDE // 2,) * 4, mode="replicate")

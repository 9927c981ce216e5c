"""Guidance by the decoded picture: by a small picture that it shall match, or by any score (paper, appendix C)."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from darkroom.core.shapes import Images, Latent, PerSample, Time
from darkroom.diffusion.denoiser import Denoise
from darkroom.diffusion.guidance import GuidedByMatch, GuidedByScore
from darkroom.diffusion.walk import Wrap
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request, Wish

Guide: TypeAlias = Float[Tensor, "b c _h _w"]  # pictures in [-1, 1], of any size
PictureScore: TypeAlias = Callable[[Images, Time], PerSample]
SMALLER: Final = 4  # pictures are compared at a quarter of the drawn size, or less


def by_score(model: Model, score: PictureScore, *, weight: float = 1.0) -> Wrap:
    """For `walk(wrap=...)`: pulls x0 to where `score` of its picture is higher.

    score: pictures (b, c, H, W) in about [-1, 1] and their times to one number a sample, read as a log-probability; it
    must carry gradient. The pull is `weight` times its gradient at x_t, through first stage and network.
    """

    def of_latents(x0: Latent, t: Time) -> PerSample:
        return score(model.decode_smoothly(x0), t)

    def wrap(denoise: Denoise) -> Denoise:
        return GuidedByScore(denoise, score=of_latents, schedule=model.schedule, scale=weight)

    return wrap


def by_picture(model: Model, guide: Guide, *, weight: float = 1.0) -> Wrap:
    """For `walk(wrap=...)`: pulls x0 to where its picture, made small, is `guide` (b, c, h, w) in [-1, 1].

    weight: share of the way that each step goes, up to 1 (`GuidedByMatch`).
    """
    size = [*guide.shape[-2:]]

    def residual(x0: Latent) -> Images:
        small = F.interpolate(model.decode_smoothly(x0), size=size, mode="bicubic", antialias=True, align_corners=False)
        return small - guide.to(small)

    def wrap(denoise: Denoise) -> Denoise:
        return GuidedByMatch(denoise, residual=residual, weight=weight)

    return wrap


def guided(model: Model, request: Request, *, group: Sequence[Wish]) -> Wrap | None:
    """The wrap that follows the guides of these wishes; None without guides."""
    if not request.guides:
        return None
    size, channels = _compared(request), model.spec.first_stage.image_channels
    guides = torch.cat([wish.guide.pixels(channels, size) for wish in group if wish.guide is not None])
    assert request.guide_weight is not None
    return by_picture(model, guides, weight=request.guide_weight)


def _compared(request: Request) -> tuple[int, int]:
    """Height and width at which pictures are compared: of the drawn shape, within the smallest guide and a quarter."""
    assert request.size is not None
    shares = [side / drawn for each in request.guides for side, drawn in zip(each.size, request.size, strict=True)]
    share = min(1 / SMALLER, *shares)
    return max(1, round(request.size[0] * share)), max(1, round(request.size[1] * share))

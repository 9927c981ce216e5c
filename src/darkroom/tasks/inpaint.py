"""Painting into a picture: what is known stays as it is."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch.nn.functional import interpolate

from darkroom.conditioning.fill import Fill, filled
from darkroom.conditioning.spatial import MaskedSpec, shrunk
from darkroom.core.shapes import Images, Latent, Mask, Time
from darkroom.diffusion.denoiser import Denoise
from darkroom.diffusion.guidance import GuidedByMatch, LimitedGuidance
from darkroom.diffusion.walk import Constraint, Wrap
from darkroom.process.schedule import add_noise
from darkroom.tasks.input_picture import InputPicture
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request, Wish


def known_region(model: Model, request: Request, *, group: Sequence[Wish], noise: Latent) -> Constraint | None:
    """A constraint that puts the known region back, noised, before every step; None where nothing is masked.

    So any model paints into holes. One that was trained for them sees the known region beside x, too, and agrees with
    it better when x holds it as well. noise: that of the walk's start, each time, so that the known region moves along
    one path. Source: Lugmayr et al. 2022, eq. 8, without resampling; the paper's code does so with fresh noise.
    """
    if not request.masks:
        return None
    assert request.size is not None
    masks, pixels = _given(model, group, size=request.size)
    latents = model.encode(filled(pixels, masks, how=_fill(model)))
    height, width = latents.shape[-2:]
    open_ = shrunk(masks, (height, width), how="any").to(latents)

    def put_back(x: Latent, t: Time, index: int) -> Latent:
        known = add_noise(model.schedule, latents.to(x), noise=noise.to(x), t=t)
        return torch.where(open_.to(x) > 0.5, x, known)

    return put_back


def matched(model: Model, request: Request, *, group: Sequence[Wish]) -> Wrap | None:
    """A wrap that moves x0 to where its picture agrees with the known pixels in latent cells that the hole cuts.

    Such cells are drawn anew as wholes, so that what is known in them would be lost. There are `request.match` moves
    (`GuidedByMatch`) in each step whose noise level is at most 1; before that x0 is too blurred to be compared. Each
    decodes with a gradient: with a small model a move costs more than the step itself.
    """
    if not request.masks or not request.match:
        return None
    assert request.size is not None
    size, factor = request.size, model.spec.first_stage.factor
    masks, pixels = _given(model, group, size=size)
    cells = shrunk(masks, (size[0] // factor, size[1] // factor), how="any")
    edge = interpolate(cells, scale_factor=factor, mode="nearest") * (1 - masks)

    def residual(x0: Latent) -> Images:
        images = model.decode_smoothly(x0)
        return (images - pixels.to(images)) * edge.to(images)

    def wrap(denoise: Denoise) -> Denoise:
        moved = denoise
        for _ in range(request.match or 0):
            moved = GuidedByMatch(moved, residual=residual)
        return LimitedGuidance(denoise, guided=moved, schedule=model.schedule, high=1.0)

    return wrap


def composed(drawn: Image.Image, wish: Wish, *, channels: int) -> Image.Image:
    """The drawn picture inside the mask, the given one outside, pixel by pixel; as drawn where nothing is masked."""
    if wish.mask is None or wish.image is None:
        return drawn
    size = drawn.height, drawn.width
    mask = Image.fromarray(_levels(wish.mask, size))
    return Image.composite(drawn, wish.image.coloured(channels, size), mask)


def _fill(model: Model) -> Fill:
    """How holes are filled: as the model was shown them, but never black, for these latents are put back."""
    for spec in model.spec.conditioners:
        if isinstance(spec, MaskedSpec) and spec.fill != "black":
            return spec.fill
    return "smooth"


def _given(model: Model, group: Sequence[Wish], *, size: tuple[int, int]) -> tuple[Mask, Images]:
    """The masks and pictures of these wishes, at this height and width."""
    channels = model.spec.first_stage.image_channels
    masks = [wish.mask.ink(size) for wish in group if wish.mask is not None]
    pixels = [wish.image.pixels(channels, size) for wish in group if wish.image is not None]
    return torch.cat(masks), torch.cat(pixels)


def _levels(mask: InputPicture, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    return (mask.ink(size)[0, 0] * 255).byte().numpy()

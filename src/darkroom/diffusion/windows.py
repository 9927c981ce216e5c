"""Latents larger than those trained on, denoised in overlapping windows that are blended at every step."""

from dataclasses import dataclass, field, replace
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor

from darkroom.autoencoder.tiles import starts
from darkroom.core.conditions import Conditions, concatenate
from darkroom.core.errors import InputError
from darkroom.core.shapes import Latent, Time
from darkroom.diffusion.denoiser import Denoise

Place: TypeAlias = tuple[slice, slice]


@final
@dataclass(frozen=True)
class Windowed:
    """x0 of a whole latent from windows of it, blended where they overlap.

    size: height and width of a window, which is what the network was trained on · overlap: cells that neighbours share,
    at least · at_once: windows in one batch. Planes are cut to each window, tokens are the same for all unless each
    has its own, and the vector is the same. At one x_t, eps and v are affine in x0, so blending x0 is blending any of
    them. Source: the paper's code blends eps of patches so (`split_input_params`); Bar-Tal et al. 2023, eq. 5.
    """

    denoise: Denoise
    size: tuple[int, int] = field(kw_only=True)
    overlap: int = field(kw_only=True)
    at_once: int = field(default=16, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < min(self.size):
            raise InputError(f"windows of {self.size[0]}x{self.size[1]} cannot overlap by {self.overlap} cells")

    def __call__(self, x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        whole = x_t.shape[-2], x_t.shape[-1]
        places = places_of(whole, size=self.size, overlap=self.overlap)
        if len(places) == 1:
            return self.denoise(x_t, t, conditions.of_window(0))
        total, weight = torch.zeros_like(x_t), x_t.new_zeros(whole)
        each = max(1, self.at_once // len(x_t))
        for start in range(0, len(places), each):
            part = places[start : start + each]
            numbers = range(start, start + len(part))
            answers = self.denoise(
                torch.cat([x_t[(..., *place)] for place in part]),
                t.repeat(len(part)),
                concatenate(
                    [_cut(conditions.of_window(k), place, whole=whole) for k, place in zip(numbers, part, strict=True)]
                ),
            )
            for place, answer in zip(part, answers.chunk(len(part)), strict=True):
                ramp = _ramp(place, whole=whole, overlap=max(1, self.overlap)).to(x_t)
                total[(..., *place)] += answer * ramp
                weight[place] += ramp
        return total / weight


def windowed(denoise: Denoise, window: tuple[int, int] | None) -> Denoise:
    """In windows of this height and width that overlap by half, or as it is."""
    return denoise if window is None else Windowed(denoise, size=window, overlap=min(window) // 2)


def window_places(whole: tuple[int, int], window: tuple[int, int]) -> list[Place]:
    """Where the windows of `windowed` lie in a latent so high and wide, row by row."""
    return places_of(whole, size=window, overlap=min(window) // 2)


def places_of(whole: tuple[int, int], *, size: tuple[int, int], overlap: int) -> list[Place]:
    """Rows and columns of windows of this size that cover the whole, row by row."""
    rows, columns = (
        [slice(start, start + min(side, length)) for start in starts(length, side, overlap=overlap)]
        for length, side in zip(whole, size, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def _cut(conditions: Conditions, place: Place, *, whole: tuple[int, int]) -> Conditions:
    """The conditions of a window; planes must lie beside the whole latent."""
    planes = conditions.planes
    if planes is None:
        return conditions
    if (planes.shape[-2], planes.shape[-1]) != whole:
        raise InputError(
            f"planes of {planes.shape[-2]}x{planes.shape[-1]} came beside latents of {whole[0]}x{whole[1]}"
        )

    def part(of: Tensor | None) -> Tensor | None:
        return None if of is None else of[(..., *place)]

    return replace(conditions, planes=part(planes), guess=part(conditions.guess), known=part(conditions.known))


def _ramp(place: Place, *, whole: tuple[int, int], overlap: int) -> Float[Tensor, "h w"]:
    """Weights of a window's cells: they fall to its border over the overlap, but not where the whole ends."""
    sides: list[Tensor] = []
    for part, length in zip(place, whole, strict=True):
        at = torch.arange(part.start, part.stop, dtype=torch.float32)
        before = (at - part.start + 1) / (overlap + 1) if part.start > 0 else torch.ones_like(at)
        after = (part.stop - at) / (overlap + 1) if part.stop < length else torch.ones_like(at)
        sides.append(torch.minimum(before, after).clamp(max=1))
    return torch.outer(*sides)

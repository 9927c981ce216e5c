"""Tiles: exact for what looks only nearby, bounded in size, used for large pictures alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from darkroom.autoencoder import tiles
from darkroom.autoencoder.tiles import encoded, tiled

FACTOR = 4


def nearby(seen: list[tuple[int, ...]]) -> Callable[[Tensor], Tensor]:
    """Enlarges and averages over three pixels; remembers what it was given."""

    def decode(latents: Tensor) -> Tensor:
        seen.append(tuple(latents.shape[-2:]))
        large = torch.nn.functional.interpolate(latents, scale_factor=float(FACTOR))
        return torch.nn.functional.avg_pool2d(large, 3, stride=1, padding=1, count_include_pad=False)

    return decode


@pytest.mark.parametrize("shape", [(16, 16), (40, 24), (33, 71)])
def test_a_decoder_that_looks_nearby_is_the_same_in_tiles(shape: tuple[int, int]) -> None:
    latents = torch.randn(2, 3, *shape)
    seen: list[tuple[int, ...]] = []
    found = tiled(nearby(seen), latents, enlarge=FACTOR, tile=8, margin=2)
    torch.testing.assert_close(found, nearby([])(latents))
    assert all(max(each) <= 16 for each in seen)
    assert len(seen) > 1 or max(shape) <= 16


@pytest.mark.parametrize("shape", [(64, 64), (160, 96), (132, 284)])
def test_an_encoder_that_looks_nearby_is_the_same_in_tiles(shape: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *shape)
    seen: list[tuple[int, ...]] = []

    def encode(part: Tensor) -> Tensor:
        seen.append(tuple(part.shape[-2:]))
        smooth = torch.nn.functional.avg_pool2d(part, 3, stride=1, padding=1, count_include_pad=False)
        return torch.nn.functional.avg_pool2d(smooth, FACTOR)

    found = tiled(encode, images, reduce=FACTOR, tile=8, margin=2)
    torch.testing.assert_close(found, encode(images))
    assert all(max(each) <= 16 * FACTOR for each in seen[:-1])


def test_tiles_are_as_many_as_cover_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def encode(part: Tensor) -> Tensor:
        seen.append(tuple(part.shape[-2:]))
        return part

    whole = torch.randn(1, 1, 40, 8)
    assert encoded(encode, whole, factor=1) is whole
    for name, value in {"WHOLE": 16, "TILE": 16, "MARGIN": 4}.items():
        monkeypatch.setattr(tiles, name, value)
    seen.clear()
    torch.testing.assert_close(encoded(encode, whole, factor=1), whole)
    assert seen == [(32, 8), (32, 8)]

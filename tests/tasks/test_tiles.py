"""Tiles: exact for what looks only nearby, bounded in size, used for large pictures alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from darkroom.tasks import tiles
from darkroom.tasks.model import Model
from darkroom.tasks.tiles import decoded, tiled

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
    found = tiled(nearby(seen), latents, factor=FACTOR, tile=32, margin=8)
    torch.testing.assert_close(found, nearby([])(latents))
    assert all(max(each) <= 16 for each in seen)
    assert len(seen) > 1 or max(shape) <= 16


def test_only_large_pictures_are_cut(monkeypatch: pytest.MonkeyPatch, small: Callable[[str], Model]) -> None:
    model, latents = small("plain"), torch.randn(1, 3, 24, 24)
    whole = model.decode(latents)
    assert torch.equal(decoded(model, latents), whole)
    monkeypatch.setattr(tiles, "WHOLE", 16)
    monkeypatch.setattr(tiles, "TILE", 16)
    found = tiled(model.decode, latents, factor=2, tile=16, margin=4)
    assert found.shape == whole.shape
    assert float((found - whole).abs().mean()) < 0.2  # norms see each tile by itself

"""Pictures of more pixels than are coded at once: a model takes them in tiles, near to the whole."""

from collections.abc import Callable

import pytest
import torch

from darkroom.autoencoder import tiles
from darkroom.core.errors import InputError
from darkroom.tasks.model import Model


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of more than 16 pixels is cut into tiles of 16."""
    monkeypatch.setattr(tiles, "WHOLE", 16)
    monkeypatch.setattr(tiles, "TILE", 16)
    monkeypatch.setattr(tiles, "MARGIN", 4)


@pytest.mark.usefixtures("few")
def test_a_large_picture_is_decoded_in_tiles_near_to_the_whole(small: Callable[[str], Model]) -> None:
    model = small("plain")
    latents = torch.randn(1, model.spec.first_stage.latent_channels, 24, 24)
    whole = model.diffusion.decode(latents).detach()
    found = model.decode(latents)
    assert found.shape == whole.shape
    assert not torch.equal(found, whole)
    assert float((found - whole).abs().mean()) < 0.3 * float(
        (whole - whole.mean()).abs().mean()
    )  # norms see each tile by itself


@pytest.mark.usefixtures("few")
def test_a_large_picture_is_encoded_in_tiles_near_to_the_whole(small: Callable[[str], Model]) -> None:
    model = small("plain")
    images = torch.randn(1, 3, 48, 64).clamp(-1, 1)
    whole = model.diffusion.first_stage.moments(images)[0].detach() * model.diffusion.known_scale
    found = model.encode(images)
    assert found.shape == whole.shape
    assert not torch.equal(found, whole)
    assert float((found - whole).abs().mean()) < 0.2 * float(whole.abs().mean())
    with pytest.raises(InputError, match="sides must be multiples of 2"):
        model.encode(torch.zeros(1, 3, 48, 63))

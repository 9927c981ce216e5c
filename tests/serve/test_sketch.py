"""Previews: as the decoder sees it where that is cheap, else colours by one small matrix."""

import pytest
import torch
import torch.nn.functional as F

from darkroom.serve import sketch
from darkroom.serve.sketch import Sketcher, fitted, projected
from darkroom.tasks.load import load


@pytest.mark.parametrize("name", ["shapes", "emoji"])
def test_projected_colours_are_nearly_those_of_the_decoded_picture(name: str) -> None:
    """The oracle is the decoder itself, on latents of pictures it never saw in fitting."""
    model = load(name, device="cpu")
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = model.encode(F.interpolate(images, size=64, mode="bilinear"))
    colours = F.interpolate(model.decode(latents), size=list(latents.shape[-2:]), mode="area")
    error = (projected(latents, fitted(model)) - colours).square().mean()
    assert error < 0.1 * colours.var()


def test_dear_decoders_are_replaced_by_the_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("shapes", device="cpu")
    latents = torch.randn(2, *model.diffusion.latent_shape((64, 64)), generator=torch.Generator().manual_seed(2))
    near = Sketcher(model).pictures(latents, (64, 64))
    assert [each.size for each in near] == [(64, 64)] * 2
    assert [each.size for each in Sketcher(model).pictures(latents, (512, 512))] == [(8, 8)] * 2
    monkeypatch.setattr(sketch, "CHEAP", 0)
    assert [each.size for each in Sketcher(model).pictures(latents, (64, 64))] == [(8, 8)] * 2

"""Previews: as the decoder sees it where that is cheap, else colours by one small matrix."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.scenes.draw import draw
from darkroom.serve import sketch
from darkroom.serve.sketch import Sketcher, fitted, projected
from darkroom.tasks.load import load


@pytest.mark.parametrize("name", ["shapes", "shapes-inpaint"])
def test_projected_colours_are_nearly_those_of_the_picture(name: str) -> None:
    """The oracle is the picture itself, a scene that the fit never saw."""
    model = load(name, device="cpu")
    images = torch.cat([from_bytes(to_bytes(Image.fromarray(draw(1, index).image))[None]) for index in range(4)])
    latents = model.encode(images)
    colours = F.interpolate(images, size=list(latents.shape[-2:]), mode="area")
    error = (projected(latents, fitted(model)) - colours).square().mean()
    assert error < 0.05 * colours.var()


def test_dear_decoders_are_replaced_by_the_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("shapes", device="cpu")
    latents = torch.randn(2, *model.diffusion.latent_shape((64, 64)), generator=torch.Generator().manual_seed(2))
    near = Sketcher(model).pictures(latents, (64, 64))
    assert [each.size for each in near] == [(64, 64)] * 2
    assert [each.size for each in Sketcher(model).pictures(latents, (512, 512))] == [(8, 8)] * 2
    monkeypatch.setattr(sketch, "CHEAP", 0)
    assert [each.size for each in Sketcher(model).pictures(latents, (64, 64))] == [(8, 8)] * 2

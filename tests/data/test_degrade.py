"""Pictures made small: sizes, bicubic as Pillow does it, and a blind degradation that differs by sample."""

import numpy as np
import torch
from PIL import Image

from darkroom.core.pictures import to_bytes
from darkroom.data.degrade import BicubicSpec, BlindSpec, degrade
from darkroom.data.sources import ShapesSource

PICTURES = torch.stack([to_bytes(ShapesSource(count=4).example(row).picture) for row in range(4)])
INDICES = [10, 11, 12, 13]


def test_bicubic_is_pillows() -> None:
    small = degrade(PICTURES, BicubicSpec(factor=4), seed=0, indices=INDICES)
    for picture, found in zip(PICTURES, small, strict=True):
        wanted = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((16, 16), Image.Resampling.BICUBIC)
        assert np.abs(to_bytes(wanted).numpy().astype(int) - found.numpy().astype(int)).max() <= 1


def test_blind_differs_by_sample_and_repeats() -> None:
    spec = BlindSpec(factor=4)
    same = PICTURES[:1].expand(4, -1, -1, -1)
    small = degrade(same, spec, seed=0, indices=INDICES)
    assert small.shape == (4, 3, 16, 16)
    assert small.dtype == torch.uint8
    assert len({each.numpy().tobytes() for each in small}) == 4
    assert torch.equal(small[2:3], degrade(same[:1], spec, seed=0, indices=[12]))


def test_blind_stays_near_the_picture() -> None:
    """Lighter means that the picture is still there: on average within a few levels of bicubic."""
    blind = degrade(PICTURES, BlindSpec(factor=4), seed=0, indices=INDICES).float()
    plain = degrade(PICTURES, BicubicSpec(factor=4), seed=0, indices=INDICES).float()
    assert 0.5 < float((blind - plain).abs().mean()) < 15


def test_grey_and_alpha_pass() -> None:
    for channels in (1, 4):
        pictures = torch.randint(256, (2, channels, 32, 32), dtype=torch.uint8)
        assert degrade(pictures, BlindSpec(factor=2), seed=0, indices=[0, 1]).shape == (2, channels, 16, 16)

"""Masks to train inpainting with: their shares, and each a function of its sample."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.core.errors import DataError, InputError, SpecError
from darkroom.core.spec import parse
from darkroom.data.masks import MaskFilesSpec, MasksSpec, draw_masks
from darkroom.data.masks import found as masks_found


@pytest.mark.parametrize("kind", ["wide", "strokes", "boxes"])
@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_masks_are_binary_and_within_their_shares(kind: str, size: tuple[int, int]) -> None:
    spec = parse(MasksSpec, {"kind": kind}, where="masks")
    masks = draw_masks(spec, size, seed=0, indices=range(60))
    assert masks.shape == (60, 1, *size)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    shares = masks.mean(dim=(1, 2, 3))
    assert float(shares.min()) >= spec.least
    assert float(shares.max()) <= spec.most
    assert float(shares.std()) > 0.05


def test_a_mask_is_a_function_of_seed_and_index() -> None:
    spec = MasksSpec()
    drawn = draw_masks(spec, (32, 32), seed=3, indices=[5, 6])
    assert torch.equal(drawn[1:], draw_masks(spec, (32, 32), seed=3, indices=[6]))
    assert not torch.equal(drawn, draw_masks(spec, (32, 32), seed=4, indices=[5, 6]))


def test_a_share_that_draws_hardly_meet_is_met() -> None:
    spec = MasksSpec(least=0.9, most=0.95)
    shares = draw_masks(spec, (64, 64), seed=0, indices=range(10)).mean(dim=(1, 2, 3))
    assert bool(((shares > 0.88) & (shares < 0.97)).all())


@pytest.mark.parametrize("wrong", [{"times": (3, 1)}, {"least": 0.8, "most": 0.7}, {"box": (0.0, 0.5)}])
def test_ranges_go_from_low_to_high(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        parse(MasksSpec, wrong, where="masks")


def test_masks_from_files(tmp_path: Path) -> None:
    """Drawn by the sample, at the picture's size; which files there are is known by a hash."""
    for number in range(3):
        drawn = np.zeros((40, 40), np.uint8)
        drawn[:, : 10 * (number + 1)] = 255
        Image.fromarray(drawn).save(tmp_path / f"{number}.png")
    spec = MaskFilesSpec(source=str(tmp_path))
    masks = draw_masks(spec, (16, 16), seed=0, indices=range(40))
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert {round(4 * float(share)) for share in masks.mean(dim=(1, 2, 3))} == {1, 2, 3}
    assert torch.equal(masks[3:4], draw_masks(spec, (16, 16), seed=0, indices=[3]))
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 255))
    clear.paste((0, 0, 0, 0), (0, 0, 20, 40))
    only = tmp_path / "clear"
    only.mkdir()
    clear.save(only / "erased.png")  # what an editor erases is a hole, as `sample --mask` takes it
    erased = draw_masks(MaskFilesSpec(source=str(only)), (16, 16), seed=0, indices=range(4))
    assert {float(share) for share in erased.mean(dim=(1, 2, 3))} == {0.5}
    known = masks_found(spec)
    assert known.hash == masks_found(spec).hash
    empty = tmp_path / "none"
    empty.mkdir()
    with pytest.raises(DataError, match="no masks here"):
        masks_found(MaskFilesSpec(source=str(empty)))
    Image.fromarray(np.eye(40, dtype=np.uint8)).save(empty / "a.png")  # nothing would ever be painted
    with pytest.raises(DataError, match="the brightest level of this mask is 1; white"):
        masks_found(MaskFilesSpec(source=str(tmp_path / "none") + "//"))
    (empty / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="not a readable picture"):
        masks_found(MaskFilesSpec(source=str(tmp_path / "none") + "/"))

"""Masks to train inpainting with: their shares, and each a function of its sample."""

import pytest
import torch

from darkroom.core.errors import SpecError
from darkroom.core.spec import parse
from darkroom.data.masks import MasksSpec, draw_masks


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

"""Holes filled from their edge inwards: what is known stays, edges go on, nothing under a mask is seen."""

from typing import get_args

import pytest
import torch

from darkroom.conditioning.fill import Fill, continued, filled, led_inward
from darkroom.core.shapes import Images, Mask


def hole(height: int = 48, width: int = 64) -> Mask:
    mask = torch.zeros(1, 1, height, width)
    mask[..., 12:36, 20:44] = 1
    return mask


def error(made: Images, whole: Images, mask: Mask) -> float:
    return float(((made - whole).abs() * mask).sum() / (mask.sum() * whole.shape[1]))


def test_planes_and_edges_go_on() -> None:
    """An edge across the hole stays one, where halving and enlarging blurs it."""
    plane = torch.linspace(-0.8, 0.8, 64).expand(1, 3, 48, 64).contiguous()
    edge = torch.where(torch.arange(64) < 30, -0.7, 0.6).expand(1, 3, 48, 64).contiguous()
    mask = hole()
    assert error(led_inward(plane, mask), plane, mask) < 0.06  # the mean would be off by 0.15
    assert error(led_inward(edge, mask), edge, mask) < 0.5 * error(continued(edge, mask), edge, mask)


@pytest.mark.parametrize("how", get_args(Fill))
def test_nothing_under_a_mask_is_seen_and_the_rest_stays(how: Fill) -> None:
    whole = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.cat([hole(), hole().flip(-1).roll(3, -2)])
    other = torch.where(mask > 0, 9.0, whole)
    made = filled(whole, mask, how=how)
    torch.testing.assert_close(made, filled(other, mask, how=how))
    assert torch.equal(made[(mask < 0.5).expand_as(made)], whole[(mask < 0.5).expand_as(made)])
    alone = filled(whole[1:], mask[1:], how=how)
    torch.testing.assert_close(made[1:], alone)


def test_all_or_nothing_masked() -> None:
    whole = torch.rand(2, 3, 16, 20)
    mask = torch.stack([torch.zeros(1, 16, 20), torch.ones(1, 16, 20)])
    made = led_inward(whole, mask)
    assert torch.equal(made[0], whole[0])
    assert not made[1].any()


def test_what_is_filled_lies_between_what_is_given() -> None:
    whole = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    made = led_inward(whole, hole())
    assert whole.min() <= made.min() <= made.max() <= whole.max()

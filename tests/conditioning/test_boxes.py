"""Boxes as planes: shares of cells in closed form, rims of objects that touch, nothing as null."""

import pytest
import torch

from darkroom.conditioning.boxes import BoxesConditioner, BoxesSpec, drawn_boxes
from darkroom.core.errors import InputError


def test_cells_are_covered_by_shares() -> None:
    """A box from 1.5 to 3.25 of four cells across, and over the upper half of two rows."""
    planes = drawn_boxes([1], [(1.5 / 4, 0.0, 1.75 / 4, 0.25)], known=2, size=(2, 4))
    assert planes.shape == (4, 2, 4)
    torch.testing.assert_close(planes[2], torch.tensor([[0, 0.25, 0.5, 0.125], [0.0, 0, 0, 0]]))
    assert not planes[:2].any()


def test_rims_tell_objects_apart_that_touch() -> None:
    boxes = [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 0.5, 1.0)]
    cover, rim = drawn_boxes([0, 0], boxes, known=1, size=(8, 16))
    assert torch.equal(cover, torch.ones(8, 16))
    assert torch.equal(rim[4], torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]))
    one, other = (drawn_boxes([0], [box], known=1, size=(8, 16)) for box in boxes)
    assert torch.equal(torch.stack([cover, rim]), torch.maximum(one, other))


def test_boxes_smaller_than_a_cell_are_all_rim() -> None:
    cover, rim = drawn_boxes([0], [(0.5, 0.5, 0.05, 0.05)], known=1, size=(8, 8))
    assert torch.equal(cover, rim)
    assert float(cover.sum()) == pytest.approx(0.16)


def test_an_unknown_category_is_named() -> None:
    with pytest.raises(InputError, match=r"0\.\.1, 2 came"):
        drawn_boxes([2], [(0.0, 0.0, 1.0, 1.0)], known=2, size=(2, 2))


@torch.no_grad()
def test_nothing_drawn_is_the_null_condition() -> None:
    conditioner = BoxesConditioner(BoxesSpec(categories=2, channels=3, drop=0.1))
    drawn = torch.stack([drawn_boxes([0], [(0.0, 0.0, 0.5, 0.5)], known=2, size=(4, 4))] * 2)
    choice = torch.tensor([True, False])
    planes = conditioner(conditioner.drop(drawn, choice))
    assert torch.equal(planes[:1], conditioner.null(planes[:1]))
    assert planes[1].any()

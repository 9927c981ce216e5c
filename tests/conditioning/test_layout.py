"""Layouts as ids: the original's scheme worked out by hand, and there and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.conditioning.layout import LayoutSpec, LayoutTokensSpec, layout_ids
from darkroom.conditioning.text import SequenceEncoderSpec
from darkroom.core.errors import InputError
from read_layout import layout_boxes

ORIGINAL = LayoutTokensSpec(categories=350, empty=8191)
SMALL = LayoutTokensSpec(categories=8, slots=3, grid=16, crop=False)


def encoder(vocabulary: int, length: int) -> SequenceEncoderSpec:
    return SequenceEncoderSpec(vocabulary=vocabulary, length=length, width=8, depth=1, heads=1, head_width=8)


def test_the_original_scheme() -> None:
    """92 tokens of 8192: triples of category, top left, bottom right on a 90 x 90 grid, fillers, then the crop."""
    assert (ORIGINAL.length, ORIGINAL.vocabulary, ORIGINAL.filler) == (92, 8192, 8191)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.1]], dtype=torch.float64)
    ids = layout_ids(torch.tensor([7, 340]), boxes, scheme=ORIGINAL, crop=(0.1, 0.0, 0.9, 1.0))
    # 0.25 * 89 = 22.25, 0.5 * 89 = 44.5 (to even: 44), 0.75 * 89 = 66.75, 0.6 * 89 = 53.4, 0.1 * 89 = 8.9
    assert ids[:6].tolist() == [7, 0, 89 * 90 + 89, 340, 44 * 90 + 22, 53 * 90 + 67]
    assert set(ids[6:90].tolist()) == {8191}
    assert ids[90:].tolist() == [0 * 90 + 9, 89 * 90 + 89]


def test_more_objects_than_slots_are_cut() -> None:
    ids = layout_ids(torch.arange(5), torch.full((5, 4), 0.2, dtype=torch.float64), scheme=SMALL)
    assert ids[0::3].tolist() == [0, 1, 2]
    assert len(ids) == SMALL.length == 9


def test_an_unknown_category_is_named() -> None:
    with pytest.raises(InputError, match=r"0\.\.7, \[8\] came"):
        layout_ids(torch.tensor([8]), torch.zeros(1, 4, dtype=torch.float64), scheme=SMALL)


@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.floats(0, 0.7), st.floats(0, 0.7), st.floats(0.05, 0.3), st.floats(0.05, 0.3)),
        max_size=3,
    )
)
def test_there_and_back_within_half_a_cell(things: list[tuple[int, float, float, float, float]]) -> None:
    boxes = torch.tensor([thing[1:] for thing in things], dtype=torch.float64).reshape(-1, 4)
    ids = layout_ids(torch.tensor([thing[0] for thing in things], dtype=torch.long), boxes, scheme=SMALL)
    back = layout_boxes(ids, scheme=SMALL)
    assert [category for category, _ in back] == [thing[0] for thing in things]
    for (_, found), (_, x, y, width, height) in zip(back, things, strict=True):
        half = 0.5 / 15 + 1e-9
        assert abs(found[0] - x) <= half
        assert abs(found[1] - y) <= half
        assert abs(found[0] + found[2] - x - width) <= half
        assert abs(found[1] + found[3] - y - height) <= half


def test_the_encoder_must_hold_the_scheme() -> None:
    with pytest.raises(ValueError, match="9 tokens of 257 ids"):
        LayoutSpec(encoder=encoder(257, 8), scheme=SMALL)
    assert LayoutSpec(encoder=encoder(257, 9), scheme=SMALL).filler == 256
    assert LayoutSpec(encoder=encoder(8192, 92)).filler == 8191


def test_specs_without_a_scheme_stay_what_they_were() -> None:
    assert "scheme" not in LayoutSpec(encoder=encoder(8192, 92)).plain()

"""Shapes written in signatures are checked while tests run, in every worker; else they were comments."""

import jaxtyping
import pytest
import torch

from darkroom.core.conditions import Conditions
from darkroom.core.pictures import from_bytes


def test_a_right_shape_passes() -> None:
    assert from_bytes(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)).shape == (1, 3, 4, 4)


def test_a_wrong_number_of_axes_raises() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="from_bytes"):
        from_bytes(torch.zeros(3, 4, dtype=torch.uint8))


def test_a_wrong_type_of_number_raises() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="from_bytes"):
        from_bytes(torch.zeros(1, 3, 4, 4))


def test_ports_of_different_batch_sizes_raise() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        Conditions(tokens=torch.zeros(2, 3, 4), vector=torch.zeros(5, 4))

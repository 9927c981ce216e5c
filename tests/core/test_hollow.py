"""Modules without memory: their shapes, and weights outside as ever."""

import torch
from torch import nn

from darkroom.core.hollow import hollow


def test_shapes_and_buffers_without_memory() -> None:
    with hollow():
        module = nn.Sequential(nn.Embedding(10**9, 10**3), nn.Linear(3, 4), nn.BatchNorm1d(5))
    assert all(each.is_meta for each in (*module.parameters(), *module.buffers()))
    assert module[0].weight.shape == (10**9, 10**3)
    assert [tuple(each.shape) for each in module[1].parameters()] == [(4, 3), (4,)]


def test_outside_weights_are_drawn_as_ever() -> None:
    with hollow():
        nn.Linear(3, 4)
    torch.manual_seed(0)
    first = nn.Linear(3, 4).weight
    torch.manual_seed(0)
    assert torch.equal(first, nn.Linear(3, 4).weight)
    assert not first.is_meta

"""Times as waves, in closed form."""

import math

import pytest
import torch

from darkroom.nn.embed import TimeEmbedding, kept_place_waves, place_waves, sinusoid


@pytest.mark.parametrize("width", [2, 6, 7, 32])
def test_cosines_come_first(width: int) -> None:
    times = [0, 1, 37, 999]
    half = width // 2
    rates = [10_000.0 ** (-place / half) for place in range(half)]
    expected = [
        [math.cos(t * rate) for rate in rates] + [math.sin(t * rate) for rate in rates] + [0.0] * (width % 2)
        for t in times
    ]
    found = sinusoid(torch.tensor(times), width)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-4)


def test_integer_and_floating_times_agree() -> None:
    assert torch.equal(sinusoid(torch.tensor([3, 500]), 8), sinusoid(torch.tensor([3.0, 500.0]), 8))


@torch.no_grad()
def test_scale_stretches_continuous_times() -> None:
    torch.manual_seed(0)
    plain, stretched = TimeEmbedding(8, out_width=6), TimeEmbedding(8, out_width=6, scale=1000.0)
    stretched.load_state_dict(plain.state_dict())
    assert torch.equal(stretched(torch.tensor([0.5, 0.25])), plain(torch.tensor([500.0, 250.0])))
    assert not torch.equal(plain(torch.tensor([0.5])), stretched(torch.tensor([0.5])))


@torch.no_grad()
def test_the_two_layers() -> None:
    torch.manual_seed(0)
    layer = TimeEmbedding(8, out_width=6)
    t = torch.tensor([3, 700])
    hidden = sinusoid(t, 8) @ layer.first.weight.T + layer.first.bias
    expected = hidden * hidden.sigmoid() @ layer.second.weight.T + layer.second.bias
    torch.testing.assert_close(layer(t), expected)
    assert layer.to(torch.bfloat16)(t).dtype == torch.bfloat16


def test_places_are_waves_of_where_a_cell_lies() -> None:
    found = place_waves((2, 4), 8, device=torch.device("cpu"))
    expected: list[list[float]] = []
    for row in range(2):
        for column in range(4):
            angles = [[math.pi / 2 * rate * at for rate in (1, 8)] for at in ((row + 0.5) / 2, (column + 0.5) / 4)]
            waves = [[*map(math.sin, each), *map(math.cos, each)] for each in angles]
            expected.append([*waves[0], *waves[1]])
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


def test_places_are_kept_by_size_width_and_type() -> None:
    cpu = torch.device("cpu")
    with torch.inference_mode():
        first = kept_place_waves((2, 4), 8, device=cpu, dtype=torch.bfloat16)
    assert torch.equal(first, place_waves((2, 4), 8, device=cpu).bfloat16())
    assert kept_place_waves((2, 4), 8, device=cpu, dtype=torch.bfloat16) is first
    assert torch.equal(kept_place_waves((4, 2), 8, device=cpu, dtype=torch.float32), place_waves((4, 2), 8, device=cpu))
    weight = torch.ones(8, requires_grad=True)
    (first * weight).sum().backward()  # what inference made could not be kept for a gradient
    assert weight.grad is not None


def test_places_are_relative_and_all_different() -> None:
    small, large = (place_waves((side, side), 32, device=torch.device("cpu")) for side in (5, 15))
    middle, same = small.unflatten(0, (5, 5))[2, 2], large.unflatten(0, (15, 15))[7, 7]
    torch.testing.assert_close(middle, same)
    apart = torch.cdist(large, large) + 100 * torch.eye(225)
    assert float(apart.min()) > 0.5

"""Windows that overlap: they cover all, agree where they must, and cut conditions as they cut latents."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.autoencoder.tiles import starts
from darkroom.core.conditions import Conditions, by_window
from darkroom.core.errors import InputError
from darkroom.diffusion.windows import Windowed, window_places, windowed

T = torch.tensor([5, 5])


@given(st.integers(1, 200), st.integers(2, 32), st.data())
def test_windows_cover_a_length_and_overlap(length: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    places = starts(length, size, overlap=overlap)
    assert places[0] == 0
    assert places[-1] == max(0, length - size)
    assert all(later - earlier <= size - overlap for earlier, later in itertools.pairwise(places))


@pytest.mark.parametrize("shape", [(8, 8), (8, 20), (21, 13), (40, 40)])
def test_what_looks_at_single_cells_is_the_same_in_windows(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    planes = torch.randn(2, 1, *shape, dtype=torch.float64)
    vector = torch.tensor([[1.0], [2.0]], dtype=torch.float64)

    def denoise(x_t, t, conditions):
        assert x_t.shape[-2] <= 8
        assert x_t.shape[-1] <= 8
        return x_t.sin() + conditions.planes * conditions.vector[..., None, None] + t[:, None, None, None]

    windowed = Windowed(denoise, size=(8, 8), overlap=3, at_once=5)
    found = windowed(x, T, Conditions(planes=planes, vector=vector))
    torch.testing.assert_close(found, x.sin() + planes * vector[..., None, None] + 5)


def test_each_window_may_have_tokens_of_its_own() -> None:
    """Where only one window lies its answer stands; where two overlap, something between."""
    told = [Conditions(tokens=torch.full((1, 3, 2), float(value))) for value in (1, 2, 3)]
    windows = window_places((8, 16), (8, 8))
    assert [columns.start for _, columns in windows] == [0, 4, 8]

    def denoise(x_t, t, conditions):
        return conditions.tokens.mean(dim=(1, 2))[:, None, None, None].expand_as(x_t)

    found = windowed(denoise, (8, 8))(torch.zeros(1, 1, 8, 16), T[:1], by_window(told))[0, 0, 0]
    assert found[:4].tolist() == [1] * 4
    assert found[12:].tolist() == [3] * 4
    assert (found.diff() >= 0).all()
    alone = windowed(denoise, (8, 8))(torch.zeros(1, 1, 8, 8), T[:1], by_window(told[1:2]))
    assert (alone == 2).all()


def test_the_blend_is_smooth() -> None:
    """Windows that disagree by one differ by at most 1 / (overlap + 1) from cell to cell."""
    seen: list[int] = []

    def denoise(x_t, t, conditions):
        seen.append(len(x_t))
        return torch.full_like(x_t, float(len(seen) % 2))

    found = Windowed(denoise, size=(8, 8), overlap=4, at_once=1)(torch.zeros(1, 1, 8, 20), T[:1], Conditions())
    assert seen == [1] * len(starts(20, 8, overlap=4))
    assert float(found.diff(dim=-1).abs().max()) <= 1 / 5 + 1e-6


def test_planes_of_another_size_are_refused() -> None:
    windowed = Windowed(lambda x_t, t, conditions: x_t, size=(8, 8), overlap=2)
    with pytest.raises(InputError, match="planes of 4x4 came beside latents of 16x16"):
        windowed(torch.zeros(1, 1, 16, 16), T[:1], Conditions(planes=torch.zeros(1, 1, 4, 4)))
    with pytest.raises(InputError, match="cannot overlap"):
        Windowed(lambda x_t, t, conditions: x_t, size=(8, 8), overlap=8)

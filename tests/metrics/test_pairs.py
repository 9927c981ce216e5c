"""Pairs of pictures: closed forms, plain loops and another library."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from darkroom.core.errors import InputError
from darkroom.metrics.pairs import bicubic_round_trip, psnr, ssim


def test_equal_pictures_have_a_hundred_decibels() -> None:
    images = torch.rand(3, 3, 4, 4) * 2 - 1
    assert psnr(images, images).tolist() == pytest.approx([100.0] * 3)


@pytest.mark.parametrize("difference", [2.0, 0.5, 0.01])
def test_it_is_the_logarithm_of_the_mean_square(difference: float) -> None:
    one = torch.full((1, 3, 4, 5), -1.0)
    expected = 10 * math.log10(4 / difference**2)
    assert float(psnr(one, one + difference)) == pytest.approx(expected, abs=1e-3)
    half = one.clone()
    half[..., :2, :] += difference  # half of the rows: half the square error
    assert float(psnr(one, half)) == pytest.approx(expected + 10 * math.log10(2), abs=1e-3)


def test_each_pair_has_its_own_number_and_order_does_not_matter() -> None:
    one, other = torch.zeros(2, 1, 2, 2), torch.tensor([0.5, 1.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    found = psnr(one, other)
    assert found.tolist() == pytest.approx([10 * math.log10(16), 10 * math.log10(4)], abs=1e-4)
    assert torch.equal(found, psnr(other, one))


def test_values_are_clipped_as_on_disk() -> None:
    one = torch.ones(1, 1, 2, 2)
    assert float(psnr(one, 7 * one)) == pytest.approx(100)
    assert float(psnr(-5 * one, 5 * one)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_constant_survives_the_bicubic_round_trip(factor: int) -> None:
    images = torch.full((2, 3, 16, 32), 0.37)
    torch.testing.assert_close(bicubic_round_trip(images, factor), images, atol=1e-5, rtol=0)


def test_the_round_trip_loses_detail_and_keeps_size() -> None:
    noise = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = [float(psnr(noise, bicubic_round_trip(noise, factor))) for factor in (1, 2, 4)]
    assert bicubic_round_trip(noise, 4).shape == noise.shape
    assert found[0] > 60 > found[1] > found[2]


def ssim_by_loops(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al.'s formula on two (h, w) pictures in 0..255, one window at a time."""
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for top in range(one.shape[0] - 10):
        for left in range(one.shape[1] - 10):
            x, y = (each[top : top + 11, left : left + 11] for each in (one, other))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            found.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(found))


@pytest.mark.parametrize(("height", "width"), [(11, 11), (16, 13), (20, 24)])
def test_structural_similarity_is_the_formula_of_its_paper(height: int, width: int) -> None:
    levels = np.random.default_rng(3).uniform(0, 255, (2, 2, 3, height, width))
    levels[1] = np.clip(0.7 * levels[0] + 0.3 * levels[1], 0, 255)
    one, other = (torch.from_numpy(each / 127.5 - 1) for each in levels)
    expected = [np.mean([ssim_by_loops(*levels[:, b, c]) for c in range(3)]) for b in range(2)]
    assert ssim(one, other).tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(ssim(one, other), ssim(other, one))


def test_another_library_agrees_on_structural_similarity() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    one = torch.rand(2, 3, 40, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    other = (one + 0.1 * torch.randn(one.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    inside = slice(5, -5)  # it pads pictures by reflection and cuts its map; ours has no padding in the first place
    theirs = reference(one, other, data_range=1.0, reduction="none", return_full_image=True)[1]
    found = ssim(2 * one - 1, 2 * other - 1)
    torch.testing.assert_close(found.double(), theirs[..., inside, inside].mean((1, 2, 3)), atol=1e-5, rtol=0)


def test_structural_similarity_of_simple_pictures() -> None:
    noise = torch.rand(2, 3, 16, 16) * 2 - 1
    assert ssim(noise, noise).tolist() == [1.0, 1.0]
    assert ssim(3 * noise, (3 * noise).clamp(-1, 1)).tolist() == [1.0, 1.0]
    black, white = torch.full((1, 1, 12, 12), -1.0), torch.full((1, 1, 12, 12), 1.0)
    assert float(ssim(black, white)) == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-4)
    assert float(ssim(noise, -noise).max()) < 0.1


@pytest.mark.parametrize(
    ("one", "other", "came"),
    [
        ((3, 10, 20), (3, 10, 20), "3 x 10 x 20 and 3 x 10 x 20 came"),
        ((3, 20, 20), (3, 20, 16), "3 x 20 x 20 and 3 x 20 x 16 came"),
    ],
)
def test_pictures_that_structural_similarity_cannot_judge(
    one: tuple[int, ...], *, other: tuple[int, ...], came: str
) -> None:
    with pytest.raises((InputError, TypeCheckError), match=f"{came}|others"):
        ssim(torch.zeros(1, *one), torch.zeros(1, *other))

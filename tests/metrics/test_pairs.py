"""Pairs of pictures: closed forms."""

import math

import pytest
import torch

from darkroom.metrics.pairs import bicubic_round_trip, psnr


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

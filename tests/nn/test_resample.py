"""Halving and doubling in closed form."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.nn.resample import Downsample, Upsample, double, enlarge, halve


def with_kernel(conv: nn.Conv2d, row: int, column: int) -> None:
    """Make the convolution pick one of the nine neighbours of its own channel."""
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
        for channel in range(len(conv.weight)):
            conv.weight[channel, channel, row, column] = 1


def pictures() -> Tensor:
    return torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def test_halving_is_the_mean_of_squares_and_undoes_doubling() -> None:
    x = pictures()
    expected = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(halve(x), expected)
    assert double(x).shape == (2, 3, 12, 16)
    torch.testing.assert_close(halve(double(x)), x)
    assert all(torch.equal(double(x)[..., i::2, j::2], x) for i in (0, 1) for j in (0, 1))


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_enlarging_is_bicubic_interpolation(factor: int) -> None:
    x = pictures().double().to(memory_format=torch.channels_last)
    expected = F.interpolate(x, scale_factor=factor, mode="bicubic")
    torch.testing.assert_close(enlarge(x, factor), expected, atol=2e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("padding", "kernel", "first"),
    [("both", (1, 1), 0), ("both", (2, 2), 1), ("right", (0, 0), 0), ("right", (1, 1), 1)],
)
def test_where_the_padding_lies(padding: str, kernel: tuple[int, int], first: int) -> None:
    """Padded on both sides the kernel's centre meets even pixels; padded on the right its corner does."""
    layer = Downsample(3, padding=padding)
    with_kernel(layer.conv, *kernel)
    x = pictures()
    assert torch.equal(layer(x), x[..., first::2, first::2])


@torch.no_grad()
@pytest.mark.parametrize(("padding", "kernel"), [("both", (0, 0)), ("right", (2, 2))])
def test_the_padded_side_is_zero(padding: str, kernel: tuple[int, int]) -> None:
    layer = Downsample(3, padding=padding)
    with_kernel(layer.conv, *kernel)
    halved = layer(torch.ones(1, 3, 6, 8))
    edge = halved[..., 0, :] if padding == "both" else halved[..., -1, :]
    assert not edge.any()
    assert halved.sum() == 3 * 2 * 3  # one row and one column of the 3 x 4 squares are padding


@torch.no_grad()
def test_upsampling_doubles_first() -> None:
    layer = Upsample(3)
    with_kernel(layer.conv, 1, 1)
    x = pictures()
    assert torch.equal(layer(x), double(x))


def test_enlarging_can_be_trained_through_after_sampling() -> None:
    """The matrices are kept between calls, and those made while sampling must serve training."""
    with torch.inference_mode():
        enlarge(torch.randn(1, 1, 13, 11), 4)
    x = torch.randn(1, 1, 13, 11, requires_grad=True)
    enlarge(x, 4).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.sum(), torch.tensor(13 * 11 * 16.0))

"""The residual block, each variant by its formula."""

import pytest
import torch
import torch.nn.functional as F

from darkroom.nn.resample import double, halve
from darkroom.nn.residual import ResidualBlock


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@torch.no_grad()
@pytest.mark.parametrize("out", [8, 12])
def test_without_an_embedding(out: int) -> None:
    block = ResidualBlock(8, out, groups=4, eps=1e-6)
    x = torch.randn(2, 8, 4, 6)
    h = block.conv1(F.silu(block.norm1(x)))
    expected = (x if out == 8 else block.skip(x)) + block.conv2(F.silu(block.norm2(h)))
    torch.testing.assert_close(block(x), expected)
    assert isinstance(block.skip, torch.nn.Identity) == (out == 8)


@torch.no_grad()
def test_an_embedding_is_added_before_the_second_norm() -> None:
    block = ResidualBlock(8, 12, groups=4, eps=1e-5, embedding=5)
    x, embedding = torch.randn(2, 8, 4, 6), torch.randn(2, 5)
    h = block.conv1(F.silu(block.norm1(x))) + block.embed(F.silu(embedding))[:, :, None, None]
    torch.testing.assert_close(block(x, embedding), block.skip(x) + block.conv2(F.silu(block.norm2(h))))


@torch.no_grad()
def test_scale_and_shift_come_after_it() -> None:
    block = ResidualBlock(8, 12, groups=4, eps=1e-5, embedding=5, scale_shift=True)
    x, embedding = torch.randn(2, 8, 4, 6), torch.randn(2, 5)
    told = block.embed(F.silu(embedding))[:, :, None, None]
    scale, shift = told[:, :12], told[:, 12:]
    h = block.norm2(block.conv1(F.silu(block.norm1(x)))) * (1 + scale) + shift
    torch.testing.assert_close(block(x, embedding), block.skip(x) + block.conv2(F.silu(h)))


@torch.no_grad()
@pytest.mark.parametrize(("resample", "size"), [(halve, (2, 3)), (double, (8, 12))])
def test_resampling_acts_on_both_branches(resample, size: tuple[int, int]) -> None:
    block = ResidualBlock(8, 12, groups=4, eps=1e-5, resample=resample)
    x = torch.randn(2, 8, 4, 6)
    h = block.conv1(resample(F.silu(block.norm1(x))))
    expected = block.skip(resample(x)) + block.conv2(F.silu(block.norm2(h)))
    assert block(x).shape == (2, 12, *size)
    torch.testing.assert_close(block(x), expected)


@torch.no_grad()
def test_zero_starts_as_the_skip() -> None:
    block = ResidualBlock(8, 8, groups=4, eps=1e-5, embedding=5, zero=True)
    x = torch.randn(2, 8, 4, 6)
    assert torch.equal(block(x, torch.randn(2, 5)), x)
    assert not torch.equal(ResidualBlock(8, 8, groups=4, eps=1e-5)(x), x)


def test_dropout_acts_in_training_only() -> None:
    block = ResidualBlock(8, 8, groups=4, eps=1e-5, dropout=0.5)
    x = torch.randn(2, 8, 4, 6)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))

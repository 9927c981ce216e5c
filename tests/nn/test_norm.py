"""Group norm written out: the numbers and gradients of PyTorch's, wherever it is used."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.nn import norm
from darkroom.nn.norm import GroupNorm

# channels, groups, sides: few and many places; groups of 1, 3 and 20 channels; one piece and several of a sample
SHAPES = [(8, 8, 3, 5), (12, 4, 16, 16), (40, 2, 8, 8), (6, 2, 32, 32), (20, 1, 40, 33)]
LEAST = norm.LEAST
NEAR = {torch.float32: 2e-5, torch.bfloat16: 0.01}


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "LEAST", 0)


def given(channels: int, *sides: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Maps of another mean than zero, and a slope, in channels_last."""
    dice = torch.Generator().manual_seed(channels)
    x, slope = (torch.randn(3, channels, *sides, generator=dice) for _ in range(2))
    return tuple(each.to(dtype, memory_format=torch.channels_last) for each in (2 * x + 5, slope))


def layer(channels: int, groups: int) -> GroupNorm:
    dice = torch.Generator().manual_seed(1)
    made = GroupNorm(groups, channels, eps=1e-6)
    with torch.no_grad():
        made.weight.copy_(torch.randn(channels, generator=dice))
        made.bias.copy_(torch.randn(channels, generator=dice))
    return made


def off(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_answers_and_gradients_are_those_of_the_formula(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norm, "PIECE", 4096)
    channels, groups, *sides = shape
    made = layer(channels, groups)
    x, slope = given(channels, *sides, dtype=dtype)
    leaves = [each.detach().double().requires_grad_() for each in (x, made.weight, made.bias)]
    exact = F.group_norm(leaves[0], groups, *leaves[1:], 1e-6)
    wanted = torch.autograd.grad(exact, leaves, slope.double())
    leaf = x.clone(memory_format=torch.channels_last).requires_grad_()
    found = made(leaf)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert off(found.detach(), exact.detach()) < NEAR[dtype]
    got = torch.autograd.grad(found, [leaf, made.weight, made.bias], slope)
    for each, other in zip(got, wanted, strict=True):
        assert off(each, other) < NEAR[dtype]
    with torch.no_grad():
        assert torch.equal(made(x), found)


def test_it_is_written_out_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("_forwards", "_backwards"):
        plain = getattr(norm, name)

        def told(*inputs: object, name: str = name, plain: object = plain, **more: object) -> object:
            asked.append(name)
            return plain(*inputs, **more)  # type: ignore[operator]

        monkeypatch.setattr(norm, name, told)

    def ways(channels: int, side: int, dtype: torch.dtype) -> list[str]:
        asked.clear()
        x, slope = given(channels, side, side, dtype=dtype)
        made = layer(channels, 2)
        made(x.requires_grad_()).backward(slope)
        return list(asked)

    narrow, wide = torch.bfloat16, torch.float32
    assert ways(8, 16, narrow) == ["_forwards", "_backwards"]
    assert ways(8, 32, narrow) == ways(8, 32, wide) == ["_backwards"]
    assert ways(8, 16, wide) == ways(32, 16, narrow) == ways(32, 32, narrow) == []
    monkeypatch.setattr(norm, "LEAST", LEAST)
    assert ways(8, 16, narrow) == ways(8, 32, wide) == []


def test_a_slope_that_lies_otherwise_is_taken_too() -> None:
    made, (x, slope) = layer(12, 4), given(12, 16, 16, dtype=torch.bfloat16)
    one, other = (torch.autograd.grad(made(x.requires_grad_()), x, each)[0] for each in (slope, slope.contiguous()))
    assert torch.equal(one, other)


def test_samples_do_not_depend_on_their_batch() -> None:
    made, (x, slope) = layer(12, 4), given(12, 16, 16, dtype=torch.bfloat16)
    together = made(x.requires_grad_())
    (whole,) = torch.autograd.grad(together, x, slope)
    for row in range(len(x)):
        one = slice(row, row + 1)
        leaf = x[one].detach().clone(memory_format=torch.channels_last).requires_grad_()
        alone = made(leaf)
        assert torch.equal(alone, together[one])
        assert torch.equal(torch.autograd.grad(alone, leaf, slope[one])[0], whole[one])

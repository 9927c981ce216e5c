"""Attention against a softmax written out by hand, head by head."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from darkroom.nn.attention import FEW, NARROW, SMALL, Attention, SelfAttention2d, attend


def by_hand(layer: Attention, x: Tensor, context: Tensor | None) -> Tensor:
    source = x if context is None else context
    q, k, v = layer.query(x), layer.key(source), layer.value(source)
    d = q.shape[-1] // layer.heads
    heads = []
    for head in range(layer.heads):
        part = slice(head * d, (head + 1) * d)
        scores = torch.einsum("bnd,bld->bnl", q[..., part], k[..., part]) / math.sqrt(d)
        heads.append(torch.einsum("bnl,bld->bnd", scores.softmax(dim=-1), v[..., part]))
    return layer.out(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("context_width", [None, 5])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_it_is_the_softmax_of_the_paper(*, heads: int, context_width: int | None, bias: bool) -> None:
    torch.manual_seed(0)
    layer = Attention(6, heads=heads, head_width=4, context_width=context_width, bias=bias)
    x = 3 * torch.randn(2, 7, 6)
    context = None if context_width is None else 3 * torch.randn(2, 4, context_width)
    torch.testing.assert_close(layer(x, context), by_hand(layer, x, context), rtol=1e-4, atol=1e-5)


def test_only_the_output_has_a_bias_unless_asked() -> None:
    plain, biased = (Attention(6, heads=2, head_width=3, bias=bias) for bias in (False, True))
    assert [name for name, _ in plain.named_parameters() if "bias" in name] == ["out.bias"]
    assert sum("bias" in name for name, _ in biased.named_parameters()) == 4


@torch.no_grad()
def test_over_a_map_it_is_normalised_attended_and_added() -> None:
    torch.manual_seed(0)
    layer = SelfAttention2d(8, heads=2, groups=4, eps=1e-6)
    x = torch.randn(2, 8, 3, 5)
    sequence = layer.norm(x).flatten(2).transpose(1, 2)
    expected = x + by_hand(layer.attention, sequence, None).transpose(1, 2).unflatten(2, (3, 5))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_positions_have_no_order() -> None:
    """Without position embeddings, moving positions moves the answer with them."""
    torch.manual_seed(0)
    layer = SelfAttention2d(8, heads=2, groups=4, eps=1e-6)
    x = torch.randn(1, 8, 2, 6)
    torch.testing.assert_close(layer(x.flip(3)), layer(x).flip(3), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_zero_output_makes_it_the_identity() -> None:
    layer = SelfAttention2d(8, heads=2, groups=4, eps=1e-6)
    torch.nn.init.zeros_(layer.attention.out.weight)
    torch.nn.init.zeros_(layer.attention.out.bias)
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("length", [5, SMALL // 16 + 1, NARROW // 16 + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_gradients_it_is_the_same(length: int, dtype: torch.dtype) -> None:
    """Written out or fused, which depends on the number of scores: one value, and one gradient."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, pull = (
        torch.randn(2, 3, count, 8, generator=generator, dtype=torch.float64) for count in (16, length, length, 16)
    )
    exact = [each.clone().requires_grad_() for each in (q, k, v)]
    expected = (exact[0] @ exact[1].mT / math.sqrt(8)).softmax(dim=-1) @ exact[2]
    expected.backward(pull)
    leaves = [each.to(dtype).requires_grad_() for each in (q, k, v)]
    found = attend(leaves[0], k=leaves[1], v=leaves[2])
    found.backward(pull.to(dtype))
    near = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(found.double(), expected, rtol=near, atol=near)
    for leaf, other in zip(leaves, exact, strict=True):
        assert leaf.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(leaf.grad.double(), other.grad, rtol=near, atol=near)


def test_gradients_of_many_scores_in_bfloat16_are_nearly_as_exact_as_the_fused_ones() -> None:
    """256 places that look at themselves, sharply, so that scores which are rounded count: 1.8 times its error."""
    generator = torch.Generator().manual_seed(1)
    q, k, v, pull = (torch.randn(2, 2, 256, 32, generator=generator, dtype=torch.float64) for _ in range(4))
    q = 3 * q

    def gradients(dtype: torch.dtype, attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        leaves = [each.to(dtype).requires_grad_() for each in (q, k, v)]
        return torch.stack([each.double() for each in torch.autograd.grad(attention(*leaves), leaves, pull.to(dtype))])

    fused = torch.nn.functional.scaled_dot_product_attention
    exact = gradients(torch.float64, fused)
    there, here = (
        (gradients(torch.bfloat16, each) - exact).flatten(1).norm(dim=1)
        for each in (fused, lambda q, k, v: attend(q, k=k, v=v))
    )
    assert (here <= 2 * there).all(), (here, there)
    assert (here <= 0.03 * exact.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [7, FEW * 8 // 32, FEW * 8 // 32 + 1])
@torch.no_grad()
def test_few_scores_in_bfloat16_are_those_of_the_formula(length: int, causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, count, 8, generator=generator) for count in (32, length, length))
    exact = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=causal)
    found = attend(q.bfloat16(), k=k.bfloat16(), v=v.bfloat16(), causal=causal)
    assert found.dtype == torch.bfloat16
    assert (found.double() - exact).norm() < 0.01 * exact.norm()

"""Transformer blocks: formulas, and what they must not depend on."""

import pytest
import torch
import torch.nn.functional as F

from darkroom.nn.transformer import (
    EncoderLayer,
    GatedFeedForward,
    SpatialTransformer,
    TransformerBlock,
    TransformerEncoder,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def spatial(depth: int = 1, context_width: int | None = 5) -> SpatialTransformer:
    made = SpatialTransformer(8, heads=2, depth=depth, context_width=context_width, groups=4)
    torch.nn.init.normal_(made.project_out.weight, std=0.3)
    return made


@torch.no_grad()
def test_the_gate_is_the_second_half() -> None:
    layer = GatedFeedForward(3)
    x = torch.randn(2, 4, 3)
    both = layer.expand(x)
    assert both.shape[-1] == 24
    torch.testing.assert_close(layer(x), layer.out(both[..., :12] * F.gelu(both[..., 12:])))


@torch.no_grad()
@pytest.mark.parametrize("context_width", [None, 5])
def test_a_block_is_three_additions(context_width: int | None) -> None:
    block = TransformerBlock(8, heads=2, head_width=4, context_width=context_width)
    x = torch.randn(2, 6, 8)
    context = None if context_width is None else torch.randn(2, 3, context_width)
    h = x + block.self_attention(block.norm1(x))
    h = h + block.cross_attention(block.norm2(h), context)
    torch.testing.assert_close(block(x, context), h + block.feed_forward(block.norm3(h)))


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2])
def test_a_spatial_transformer_starts_as_the_identity(depth: int) -> None:
    made = SpatialTransformer(8, heads=2, depth=depth, context_width=5, groups=4)
    x = torch.randn(2, 8, 3, 4)
    assert torch.equal(made(x, torch.randn(2, 3, 5)), x)
    assert not torch.equal(spatial(depth)(x, torch.randn(2, 3, 5)), x)


@torch.no_grad()
def test_tokens_have_no_order_but_count() -> None:
    """Order is the business of whoever embeds; which tokens there are is not."""
    made = spatial()
    x, tokens = torch.randn(2, 8, 3, 4), torch.randn(2, 5, 5)
    torch.testing.assert_close(made(x, tokens.flip(1)), made(x, tokens), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made(x, tokens.repeat(1, 2, 1)), made(x, tokens), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(made(x, tokens[:, :3]), made(x, tokens), atol=1e-4)


@torch.no_grad()
def test_rows_and_columns_are_told_apart_only_by_content() -> None:
    made = spatial(context_width=None)
    x = torch.randn(1, 8, 3, 4)
    torch.testing.assert_close(made(x.transpose(2, 3), None), made(x, None).transpose(2, 3), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_encoder_layer() -> None:
    layer = EncoderLayer(8, heads=2, head_width=3)
    x = torch.randn(2, 6, 8)
    h = x + layer.attention(layer.norm1(x))
    torch.testing.assert_close(layer(x), h + layer.out(F.gelu(layer.expand(layer.norm2(h)))))


@torch.no_grad()
def test_the_encoder_moves_with_its_sequence_and_normalises_last() -> None:
    encoder = TransformerEncoder(8, depth=2, heads=2, head_width=4)
    x = torch.randn(3, 6, 8)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(encoder(x[:, order]), encoder(x)[:, order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(x).mean(-1), torch.zeros(3, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder(x).var(-1, correction=0), torch.ones(3, 6), atol=1e-3, rtol=0)


def test_every_position_sees_every_other() -> None:
    """No mask: the first position's answer depends on the last."""
    encoder = TransformerEncoder(8, depth=1, heads=2, head_width=4)
    x = torch.randn(1, 6, 8, requires_grad=True)
    encoder(x)[0, 0, 0].backward()
    assert x.grad is not None
    assert x.grad[0, -1].abs().sum() > 0


@torch.no_grad()
def test_with_waves_the_same_content_is_treated_by_where_it_lies() -> None:
    plain = spatial()
    waves = SpatialTransformer(8, heads=2, depth=1, context_width=5, groups=4, places="waves")
    waves.load_state_dict(plain.state_dict())  # places have no weights
    x, tokens = torch.ones(1, 8, 3, 4) * torch.randn(8, 1, 1), torch.randn(1, 3, 5)
    everywhere, here = plain(x, tokens).flatten(2)[0], waves(x, tokens).flatten(2)[0]
    torch.testing.assert_close(everywhere, everywhere[:, :1].expand(-1, 12))
    assert float((torch.cdist(here.T, here.T) + torch.eye(12)).min()) > 1e-3

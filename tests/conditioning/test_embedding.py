"""Embeddings made elsewhere go through as they are; nothing is zeros."""

import pytest
import torch

from darkroom.conditioning.conditioner import Conditioning
from darkroom.conditioning.embedding import EmbeddingConditioner, EmbeddingSpec
from darkroom.core.errors import InputError


def test_tokens_pass_and_zeros_are_null() -> None:
    conditioning = Conditioning([EmbeddingSpec(width=6, length=3)])
    given = torch.randn(2, 2, 6)
    conditions = conditioning({"embedding": given})
    assert conditions.tokens is not None
    assert torch.equal(conditions.tokens, given)
    null = conditioning.null(conditions).tokens
    assert null is not None
    assert null.shape == given.shape
    assert not null.any()
    assert not list(conditioning.parameters())


def test_dropping_acts_on_each_sample() -> None:
    conditioner = EmbeddingConditioner(EmbeddingSpec(width=4))
    kept = conditioner.drop(torch.ones(3, 1, 4), torch.tensor([True, False, True]))
    assert kept.sum(dim=(1, 2)).tolist() == [0, 4, 0]


def test_another_width_is_refused() -> None:
    with pytest.raises(InputError, match="width 4 are needed, 5 came"):
        EmbeddingConditioner(EmbeddingSpec(width=4))(torch.ones(1, 1, 5))

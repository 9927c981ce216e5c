"""Embeddings made elsewhere, taken as tokens (retrieval: CLIP vectors of a text and its neighbours)."""

from typing import ClassVar, Literal, final

import torch
from einops import rearrange
from pydantic import Field
from torch import nn

from darkroom.core.errors import InputError
from darkroom.core.shapes import Choice, Tokens
from darkroom.core.spec import Spec


class EmbeddingSpec(Spec):
    """Tokens of `width` given ready-made, usually `length` of them; zeros are the null condition.

    drop: the share of samples trained with zeros.
    """

    kind: Literal["embedding"] = "embedding"
    port: Literal["tokens"] = "tokens"
    width: int = Field(gt=0)
    length: int = Field(default=1, gt=0)
    drop: float = Field(default=0.1, ge=0, lt=1)

    field: ClassVar[str] = "embedding"


@final
class EmbeddingConditioner(nn.Module):
    """Given tokens as they are; no weights."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, tokens: Tokens) -> Tokens:
        """(b, l, width) as they are; `InputError` for another width."""
        if tokens.shape[-1] != self.spec.width:
            raise InputError(f"embeddings of width {self.spec.width} are needed, {tokens.shape[-1]} came")
        return tokens

    def drop(self, tokens: Tokens, choice: Choice) -> Tokens:
        """Zeros where `choice` says so."""
        return tokens * rearrange(~choice, "b -> b 1 1")

    def null(self, port: Tokens) -> Tokens:
        """Zeros of the same shape."""
        return torch.zeros_like(port)

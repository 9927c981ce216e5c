"""Layouts: boxes with categories as a sequence of token ids (paper, section 4.3.1)."""

from typing import Literal, final

import torch
from pydantic import Field
from torch import nn

from darkroom.conditioning.text import SequenceEncoder, SequenceEncoderSpec
from darkroom.core.shapes import Choice, Ids, Tokens
from darkroom.core.spec import Spec


class LayoutSpec(Spec):
    """Token ids of a layout as tokens; `drop` is the share of samples trained with the empty layout.

    empty: the id that stands for no object (the original: vocabulary - 1).
    """

    kind: Literal["layout"] = "layout"
    port: Literal["tokens"] = "tokens"
    encoder: SequenceEncoderSpec
    empty: int = Field(default=8191, ge=0)
    drop: float = Field(default=0.0, ge=0, lt=1)

    @property
    def field(self) -> str:
        """The batch field it reads."""
        return "objects"

    @property
    def width(self) -> int:
        """Width of the port."""
        return self.encoder.width


@final
class LayoutConditioner(nn.Module):
    """Layout ids to tokens. The layout of empty slots is the null condition."""

    def __init__(self, spec: LayoutSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = SequenceEncoder(spec.encoder)

    def forward(self, ids: Ids) -> Tokens:
        """(b, l) ids to (b, l, width)."""
        return self.encoder(ids)

    def drop(self, ids: Ids, choice: Choice) -> Ids:
        """The empty layout where `choice` says so."""
        return torch.where(choice[:, None], self.spec.empty, ids)

    def null(self, port: Tokens) -> Tokens:
        """The empty layout at the batch size and length of `port`."""
        ids = torch.full((1, port.shape[1]), self.spec.empty, device=port.device)
        return self.encoder(ids).to(port.dtype).expand(len(port), -1, -1)

"""Class labels: an embedding, with a null class for guidance."""

from typing import ClassVar, Literal, final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from darkroom.core.errors import InputError
from darkroom.core.shapes import Choice, Labels
from darkroom.core.spec import Spec


class ClassSpec(Spec):
    """Labels 0..classes-1 as one token of `width`, or as the vector that joins the time embedding.

    null: the label that stands for no class (classes: it comes after the last; None: there is none, and nothing is
    dropped) · drop: the share of samples trained with it.
    """

    kind: Literal["class"] = "class"
    classes: int = Field(gt=0)
    width: int = Field(gt=0)
    port: Literal["tokens", "vector"] = "tokens"
    null: int | None = None
    drop: float = Field(default=0.1, ge=0, lt=1)

    field: ClassVar[str] = "label"

    @model_validator(mode="after")
    def _consistent(self) -> "ClassSpec":
        if self.null is None and self.drop:
            raise ValueError("drop needs a null class: give null, or drop 0")
        if self.null is not None and not 0 <= self.null <= self.classes:
            raise ValueError(f"null must lie in 0..{self.classes}")
        return self


@final
class ClassConditioner(nn.Module):
    """Labels to one token each, or to a vector."""

    def __init__(self, spec: ClassSpec) -> None:
        super().__init__()
        self.spec = spec
        rows = max(spec.classes, 0 if spec.null is None else spec.null + 1)
        self.embedding = nn.Embedding(rows, spec.width)

    def forward(self, labels: Labels) -> Tensor:
        """(b,) labels to (b, 1, width) tokens or a (b, width) vector."""
        rows = self.embedding.num_embeddings
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < rows:
            raise InputError(f"labels must lie in 0..{rows - 1}, {labels.tolist()} came")
        embedded = self.embedding(labels)
        return embedded[:, None] if self.spec.port == "tokens" else embedded

    def drop(self, labels: Labels, choice: Choice) -> Labels:
        """The null class where `choice` says so."""
        return torch.where(choice, self._null(), labels)

    def null(self, port: Tensor) -> Tensor:
        """The null class at the batch size of `port`."""
        labels = torch.full((len(port),), self._null(), device=port.device)
        return self(labels).to(port.dtype)

    def _null(self) -> int:
        if self.spec.null is None:
            raise InputError("this model has no null class, so it cannot be guided without one")
        return self.spec.null

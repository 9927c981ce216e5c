"""All conditioners of a model: fields in, three ports out. Each field may be dropped on its own, before joining."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, final

import torch
from pydantic import Field
from torch import Tensor, nn

from darkroom.conditioning.boxes import BoxesConditioner, BoxesSpec
from darkroom.conditioning.embedding import EmbeddingConditioner, EmbeddingSpec
from darkroom.conditioning.label import ClassConditioner, ClassSpec
from darkroom.conditioning.layout import LayoutConditioner, LayoutSpec, LayoutTokensSpec
from darkroom.conditioning.spatial import (
    LowResSpec,
    MapConditioner,
    MapSpec,
    MaskedSpec,
    PlanesConditioner,
)
from darkroom.conditioning.text import TextConditioner, TextSpec
from darkroom.core.conditions import Conditions, by_window
from darkroom.core.errors import InputError
from darkroom.core.shapes import Choice

# Each says which `field` of a batch it reads, which `port` it fills, and the share of samples that go without (`drop`).
ConditionerSpec = Annotated[
    ClassSpec | TextSpec | LayoutSpec | BoxesSpec | EmbeddingSpec | MapSpec | LowResSpec | MaskedSpec,
    Field(discriminator="kind"),
]
Conditioner = (
    ClassConditioner
    | TextConditioner
    | LayoutConditioner
    | BoxesConditioner
    | EmbeddingConditioner
    | MapConditioner
    | PlanesConditioner
)


_KINDS: Final[dict[type[Any], type[Any]]] = {
    ClassSpec: ClassConditioner,
    TextSpec: TextConditioner,
    LayoutSpec: LayoutConditioner,
    BoxesSpec: BoxesConditioner,
    EmbeddingSpec: EmbeddingConditioner,
    MapSpec: MapConditioner,
    LowResSpec: PlanesConditioner,
    MaskedSpec: PlanesConditioner,
}


def build_conditioner(spec: ConditionerSpec) -> Conditioner:
    """A conditioner with fresh weights."""
    return _KINDS[type(spec)](spec)


@final
class Conditioning(nn.Module):
    """All conditioners of a model, by field. Tokens are joined along l, planes along c, vectors added."""

    def __init__(self, specs: Sequence[ConditionerSpec]) -> None:
        super().__init__()
        self.by_field = nn.ModuleDict({spec.field: build_conditioner(spec) for spec in specs})

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields this model takes."""
        return tuple(self.by_field)

    def __getitem__(self, field: str) -> Conditioner:
        return self.by_field[field]  # pyright: ignore[reportReturnType]  (a ModuleDict holds any Module)

    def drop(self, inputs: Mapping[str, Tensor], choices: Mapping[str, Choice]) -> dict[str, Tensor]:
        """Inputs with each field's null where its own choice says so."""
        return {
            field: self[field].drop(values, choices[field]) if field in choices else values
            for field, values in inputs.items()
        }

    def forward(self, inputs: Mapping[str, Tensor], *, size: tuple[int, int] | None = None) -> Conditions:
        """Ids, labels or planes by field to the ports; `InputError` unless exactly the model's fields came.

        size: height and width of the latents; with it, fields that training dropped may be left out, though not all of
        them, and become null.
        """
        optional = {field for field in self.fields if size is not None and inputs and self[field].spec.drop > 0}
        if not set(self.fields) - optional <= set(inputs) <= set(self.fields):
            came, takes = (", ".join(sorted(names)) or "nothing" for names in (inputs, self.fields))
            raise InputError(f"this model is steered by {takes}; {came} came")
        _check_counts(inputs)

        def port(field: str) -> Tensor:
            conditioner = self[field]
            if field in inputs:
                return conditioner(inputs[field])
            assert size is not None
            like = next(iter(inputs.values()))
            return conditioner.null(torch.zeros(len(like), *_shape(conditioner.spec, size), device=like.device))

        parts = [(field, port(field)) for field in self.fields]
        self._check_lengths(parts)
        return self._fused(parts)

    def _check_lengths(self, parts: Sequence[tuple[str, Tensor]]) -> None:
        """`InputError` for joined tokens that `_split` could not tell apart again."""
        joined = [(self[field].spec, port) for field, port in parts if self[field].spec.port == "tokens"]
        for spec, port in joined if len(joined) > 1 else []:
            if not isinstance(spec, TextSpec) and port.shape[1] != extent(spec):
                raise InputError(
                    f"{spec.field} gives {port.shape[1]} tokens; beside those of other fields it must be {extent(spec)}"
                )

    def null(self, conditions: Conditions, drop: Sequence[str] | None = None) -> Conditions:
        """Conditions of the same shapes with null fields `drop` (None: those that training dropped)."""
        chosen = set(drop) if drop is not None else {f for f in self.fields if self[f].spec.drop > 0}
        unknown = chosen - set(self.fields)
        if unknown:
            raise InputError(f"this model has no field {sorted(unknown)[0]!r}; it has {', '.join(self.fields)}")
        if drop is None and not chosen:
            raise InputError("training dropped no condition of this model, so nothing tells it what null is")
        tokens = conditions.tokens
        if tokens is not None and tokens.ndim == 4:
            return by_window([self.null(conditions.of_window(place), drop) for place in range(tokens.shape[1])])
        ports = self._split(conditions)
        return self._fused([(field, self[field].null(port) if field in chosen else port) for field, port in ports])

    def _fused(self, parts: Sequence[tuple[str, Tensor]]) -> Conditions:
        """The fields' tensors joined by port, with the guess that one of them makes."""
        fused = _fuse([(self[field].spec.port, port) for field, port in parts])
        for field, port in parts:
            maker = self[field]
            if isinstance(maker, PlanesConditioner) and (guess := maker.guessed(port)) is not None:
                return replace(fused, guess=guess, known=maker.known(port))
        return fused

    def _split(self, conditions: Conditions) -> list[tuple[str, Tensor]]:
        """Undo the fusing: what each field gave to its port."""
        parts: list[tuple[str, Tensor]] = []
        for name, axis in (("tokens", 1), ("vector", None), ("planes", 1)):
            port = getattr(conditions, name)
            fields = [field for field in self.fields if self[field].spec.port == name]
            if port is None or not fields:
                continue
            if axis is None or len(fields) == 1:
                parts += [(field, port) for field in fields]
                continue
            sizes = self._sizes(fields, total=port.shape[axis])
            parts += zip(fields, port.split(sizes, dim=axis), strict=True)
        return parts

    def _sizes(self, fields: Sequence[str], *, total: int) -> list[int]:
        """The fields' extents along the joined axis; only the caption may be shorter than its longest."""
        sizes = [extent(self[field].spec) for field in fields]
        short = sum(sizes) - total
        return [
            size - short if isinstance(self[field].spec, TextSpec) else size
            for field, size in zip(fields, sizes, strict=True)
        ]


def plane_channels(specs: Sequence[ConditionerSpec]) -> int:
    """Channels of planes that these conditioners give."""
    return sum(spec.channels for spec in specs if spec.port == "planes")


def extent(spec: ConditionerSpec) -> int:
    """What a condition takes of its port: tokens along l (at most), planes along c; 1 for a vector."""
    match spec:
        case ClassSpec():
            return 1
        case LayoutSpec(scheme=LayoutTokensSpec(length=length)):
            return length
        case TextSpec() | LayoutSpec():
            return spec.encoder.length
        case EmbeddingSpec():
            return spec.length
        case BoxesSpec() | MapSpec() | LowResSpec() | MaskedSpec():
            return spec.channels


def _check_counts(inputs: Mapping[str, Tensor]) -> None:
    """`InputError` for fields of different numbers of samples, of which one would be spread over the others."""
    if len({len(values) for values in inputs.values()}) > 1:
        came = ", ".join(f"{field} for {len(values)}" for field, values in inputs.items())
        raise InputError(f"every field must be given for as many samples; {came} came")


def _shape(spec: ConditionerSpec, size: tuple[int, int]) -> tuple[int, ...]:
    """The shape of what a condition gives its port, without the batch."""
    match spec.port:
        case "tokens":
            return extent(spec), spec.width
        case "vector":
            return (spec.width,)
        case "planes":
            return extent(spec), *size


def _fuse(parts: Sequence[tuple[str, Tensor]]) -> Conditions:
    def of(name: str) -> list[Tensor]:
        return [part for port, part in parts if port == name]

    tokens, vectors, planes = of("tokens"), of("vector"), of("planes")
    return Conditions(
        tokens=torch.cat(tokens, dim=1) if tokens else None,
        vector=torch.stack(vectors).sum(0) if vectors else None,
        planes=torch.cat(planes, dim=1) if planes else None,
    )

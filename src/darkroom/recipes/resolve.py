"""A recipe meets its data: the tokenizer is trained, classes are counted, and the spec says what was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.text import TextSpec, Tokenizer
from darkroom.core.errors import DataError, NotYetError
from darkroom.data.examples import Source
from darkroom.recipes.schema import Recipe


@final
@dataclass(frozen=True)
class Resolved:
    """A recipe whose numbers fit its data, and the tokenizer of its captions."""

    recipe: Recipe
    tokenizer: Tokenizer | None
    classes: tuple[str, ...]


def resolve(recipe: Recipe, source: Source, *, tokenizer: Tokenizer | None = None) -> Resolved:
    """Fit vocabulary and classes to a training set; `DataError` when it lacks a field the recipe needs.

    tokenizer: one made before (a run that resumes), instead of training one.
    """
    part = recipe.denoiser
    if part is None:
        return Resolved(recipe, None, ())
    fitted: list[ConditionerSpec] = []
    for spec in part.conditioners:
        if spec.field not in source.fields:
            raise DataError(
                f"{source.name}: recipe {recipe.name!r} needs the field {spec.field!r}, "
                f"this data set has {', '.join(sorted(source.fields)) or 'pictures alone'}"
            )
        match spec:
            case TextSpec():
                tokenizer = tokenizer or _train_tokenizer(spec, source)
                size = {"vocabulary": tokenizer.vocabulary}
                fitted.append(spec.model_copy(update={"encoder": spec.encoder.model_copy(update=size)}))
            case ClassSpec():
                count = len(source.classes)
                null = None if spec.null is None else count
                fitted.append(spec.model_copy(update={"classes": count, "null": null}))
            case _:
                raise NotYetError(f"training with the condition {spec.field!r} is not there yet")
    denoiser = part.model_copy(update={"conditioners": tuple(fitted)})
    return Resolved(recipe.model_copy(update={"denoiser": denoiser}), tokenizer, source.classes)


def inputs(resolved: Resolved, source: Source) -> dict[str, Tensor]:
    """What steers each picture, a row per picture: caption ids (n, l), labels (n,)."""
    found: dict[str, Tensor] = {}
    part = resolved.recipe.denoiser
    for spec in () if part is None else part.conditioners:
        match spec:
            case TextSpec() if resolved.tokenizer is not None:
                found[spec.field] = resolved.tokenizer(captions(source))
            case ClassSpec():
                found[spec.field] = torch.tensor([_label(source, row) for row in range(len(source))])
            case _:
                raise NotYetError(f"training with the condition {spec.field!r} is not there yet")
    return found


def captions(source: Source) -> Sequence[str]:
    """The caption of every row, empty where there is none."""
    return [source.caption(row) or "" for row in range(len(source))]


def _label(source: Source, row: int) -> int:
    label = source.label(row)
    if label is None:
        raise DataError(f"{source.name}: picture {row} has no label")
    return label


def _train_tokenizer(spec: TextSpec, source: Source) -> Tokenizer:
    return Tokenizer.train(captions(source), vocabulary=spec.encoder.vocabulary, length=spec.encoder.length)

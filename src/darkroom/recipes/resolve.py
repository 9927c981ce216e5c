"""A recipe meets its data: the tokenizer is trained, classes are counted, and the spec says what was found."""

from dataclasses import dataclass
from typing import final

import torch

from darkroom.checkpoint.store import StoredModel
from darkroom.conditioning.boxes import BoxesSpec
from darkroom.conditioning.conditioner import ConditionerSpec, Conditioning
from darkroom.conditioning.embedding import EmbeddingSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.conditioning.text import TextConditioner, TextSpec, Tokenizer
from darkroom.core.errors import DataError, InputError, NotYetError, SpecError, did_you_mean
from darkroom.core.names import Names, numbers_of
from darkroom.data.examples import Source
from darkroom.data.inputs import (
    Fixed,
    Inputs,
    LowRes,
    Masked,
    boxes_drawn,
    captions,
    highest_id,
    label_of,
    layouts,
    maps,
    pictures,
)
from darkroom.data.masks import MaskFilesSpec
from darkroom.data.masks import found as masks_found
from darkroom.data.transforms import TransformSpec
from darkroom.diffusion.model import ModelSpec
from darkroom.recipes.schema import DenoiserRecipe, Recipe
from darkroom.recipes.tune import class_names


@final
@dataclass(frozen=True)
class Resolved:
    """A recipe whose numbers fit its data, and the tokenizer of its captions."""

    recipe: Recipe
    tokenizer: Tokenizer | None
    names: Names

    def tell_empty(self, conditioning: Conditioning) -> None:
        """A text conditioner learns which ids the empty caption has."""
        for conditioner in conditioning.by_field.values():
            if isinstance(conditioner, TextConditioner) and self.tokenizer is not None:
                conditioner.set_empty(self.tokenizer([""])[0].tolist())


def resolve(
    recipe: Recipe,
    source: Source,
    *,
    tokenizer: Tokenizer | None = None,
    start: StoredModel | None = None,
    held_out: Source | None = None,
) -> Resolved:
    """Fit vocabulary and classes to a training set; `DataError` when it lacks a field the recipe needs.

    Where captions are needed and only labels are there, the class names are the captions.
    tokenizer: one made before (a run that resumes), instead of training one · start: the model that the run begins
    with; its classes come first · held_out: pictures that are measured on, whose maps may have ids of their own.
    """
    part = recipe.denoiser
    if part is None:
        return Resolved(recipe, None, Names())
    fitted: list[ConditionerSpec] = []
    names, knows = _names(source, start), _fields(start)
    for spec in part.conditioners:
        if spec.field not in _made_of(source):
            raise _lacking(spec, source, recipe, knows=spec.field in knows)
        match spec:
            case TextSpec():
                tokenizer = (
                    tokenizer
                    or _given_tokenizer(spec, start if spec.field in knows else None)
                    or _train_tokenizer(spec, source)
                )
                size = {"vocabulary": tokenizer.vocabulary}
                fitted.append(spec.model_copy(update={"encoder": spec.encoder.model_copy(update=size)}))
            case ClassSpec():
                fitted.append(_with_classes(spec, len(names.classes), keep=spec.field in knows))
            case LayoutSpec() | BoxesSpec():
                fitted.append(_with_categories(spec, source, keep=spec.field in knows))
            case MapSpec():
                fitted.append(spec if spec.field in knows else _with_map_classes(spec, source, held_out or source))
            case LowResSpec() | MaskedSpec():
                fitted.append(spec)
            case EmbeddingSpec():
                raise NotYetError(f"training with the condition {spec.field!r} is not there yet")
    if start is not None:
        _check_known(part, source, names=names)
    denoiser = part.model_copy(update={"conditioners": tuple(fitted)})
    data = recipe.data
    if isinstance(data.masks, MaskFilesSpec) and any(isinstance(spec, MaskedSpec) for spec in fitted):
        data = data.model_copy(update={"masks": masks_found(data.masks)})
    return Resolved(recipe.model_copy(update={"denoiser": denoiser, "data": data}), tokenizer, names)


def _lacking(spec: ConditionerSpec, source: Source, recipe: Recipe, *, knows: bool) -> DataError:
    """The error for a missing field. knows: does the model that the recipe begins with read it?"""
    has = ", ".join(sorted(source.fields)) or "pictures alone"
    if not knows or recipe.start is None:
        return DataError(
            f"{source.name}: recipe {recipe.name!r} needs the field {spec.field!r}, this data set has {has}"
        )
    instead = "a folder with task=unconditional, or with another task, teaches it to do without"
    if recipe.denoiser is not None and recipe.denoiser.distill is not None:
        instead = "it is distilled with pictures that have it"
    return DataError(
        f"{source.name}: {recipe.start.name} is steered by the field {spec.field!r} and this data set has {has}; "
        f"{instead}"
    )


def _fields(start: StoredModel | None) -> frozenset[str]:
    """What the model to begin with was steered by."""
    return frozenset(start.spec.fields) if start is not None and isinstance(start.spec, ModelSpec) else frozenset()


def _names(source: Source, start: StoredModel | None) -> Names:
    """What numbers stand for: as the data name them, after those that the model to begin with is steered by."""
    knows = _fields(start)
    if start is None:
        return Names(source.classes, source.categories, source.map_classes)
    return Names(
        class_names(start, source.classes) if "label" in knows else source.classes,
        (start.names.categories if "objects" in knows else ()) or source.categories,
        (start.names.map_classes if "map" in knows else ()) or source.map_classes,
    )


def _check_known(part: DenoiserRecipe, source: Source, *, names: Names) -> None:
    """`InputError` for categories, map classes, and those of a teacher, that the model to begin with does not know."""
    fields = {spec.field for spec in part.conditioners}
    for spec in part.conditioners:
        if isinstance(spec, ClassSpec) and part.distill is not None and len(names.classes) > spec.classes:
            new = names.classes[spec.classes]
            hint = did_you_mean(new, names.classes[: spec.classes])
            raise InputError(f"{source.name}: the teacher has no class {new!r}{hint}; leave its pictures out")
    if "objects" in fields:
        numbers_of(source.categories, names.categories, what="category")
    if "map" in fields:
        numbers_of(source.map_classes, names.map_classes, what="map class")


def _with_classes(spec: ClassSpec, count: int, *, keep: bool) -> ClassSpec:
    """A spec with so many classes and the null class after them; with `keep` the null class stays where it is."""
    among = keep and spec.null != spec.classes
    return spec.model_copy(update={"classes": count, "null": spec.null if among or spec.null is None else count})


def _made_of(source: Source) -> frozenset[str]:
    """The fields that a source can steer by: its own, names of classes for captions, and what pictures alone give."""
    named = {"caption"} if "label" in source.fields else set[str]()
    return source.fields | named | {"low_res", "masked"}


def _with_categories(spec: LayoutSpec | BoxesSpec, source: Source, *, keep: bool) -> LayoutSpec | BoxesSpec:
    """As many categories as the data have, and the encoder's ids fitted to them."""
    if not source.categories:
        raise DataError(f"{source.name}: there are boxes of no category at all, so nothing can be learnt of layouts")
    if keep:
        return spec
    if isinstance(spec, BoxesSpec):
        return spec.model_copy(update={"categories": len(source.categories)})
    if spec.scheme is None:
        return spec
    scheme = spec.scheme.model_copy(update={"categories": len(source.categories)})
    size = {"vocabulary": scheme.vocabulary, "length": scheme.length}
    return spec.model_copy(update={"scheme": scheme, "encoder": spec.encoder.model_copy(update=size)})


def _with_map_classes(spec: MapSpec, *sources: Source) -> MapSpec:
    """As many classes as are named; where none are, as many as maps have ids, and not fewer than the recipe says."""
    named = max(len(each.map_classes) for each in sources)
    return spec.model_copy(update={"classes": named or max(spec.classes, *(highest_id(each) + 1 for each in sources))})


def inputs(resolved: Resolved, source: Source, *, transform: TransformSpec) -> dict[str, Inputs]:
    """What steers each picture, by field. transform: how pictures are cut, and so what is seen of them."""
    found: dict[str, Inputs] = {}
    part, data = resolved.recipe.denoiser, resolved.recipe.data
    for spec in () if part is None else part.conditioners:
        match spec:
            case TextSpec() if resolved.tokenizer is not None:
                found[spec.field] = Fixed(resolved.tokenizer(captions(source)))
            case ClassSpec():
                places = {name: place for place, name in enumerate(resolved.names.classes)}
                named = [source.classes[label_of(source, row)] for row in range(len(source))]
                found[spec.field] = Fixed(torch.tensor([places[name] for name in named]))
            case LayoutSpec() if spec.scheme is not None:
                numbers = numbers_of(source.categories, resolved.names.categories, what="category")
                found[spec.field] = layouts(source, transform, scheme=spec.scheme, numbers=numbers)
            case BoxesSpec():
                numbers = numbers_of(source.categories, resolved.names.categories, what="category")
                factor = resolved.recipe.first_stage.model.factor
                found[spec.field] = boxes_drawn(
                    source, transform, known=spec.categories, factor=factor, numbers=numbers
                )
            case MapSpec():
                numbers = numbers_of(source.map_classes, resolved.names.map_classes, what="map class")
                found[spec.field] = maps(source, transform, numbers=numbers)
            case LowResSpec():
                found[spec.field] = LowRes(pictures(source, transform), data.degradation, views=transform.views)
            case MaskedSpec():
                found[spec.field] = Masked(pictures(source, transform), data.masks, views=transform.views)
            case _:
                raise NotYetError(f"training with the condition {spec.field!r} is not there yet")
    return found


def classes_of(source: Source) -> list[str]:
    """Names of the classes that have a picture, in their order."""
    found = {source.label(row) for row in range(len(source))} if "label" in source.fields else set[int]()
    return [name for place, name in enumerate(source.classes) if place in found]


def _given_tokenizer(spec: TextSpec, start: StoredModel | None) -> Tokenizer | None:
    """That of the model a run begins with; `SpecError` when it came without."""
    if start is None:
        return None
    if start.tokenizer is None:
        raise SpecError("the model to begin with came without a tokenizer: put its vocab.txt beside the checkpoint")
    found = Tokenizer.from_json(start.tokenizer, length=spec.encoder.length)
    if found.vocabulary != spec.encoder.vocabulary:
        raise SpecError(
            f"the tokenizer of the model to begin with has {found.vocabulary} words, its encoder "
            f"{spec.encoder.vocabulary}; put the vocab.txt it was trained with beside it"
        )
    return found


def _train_tokenizer(spec: TextSpec, source: Source) -> Tokenizer:
    return Tokenizer.train(captions(source), vocabulary=spec.encoder.vocabulary, length=spec.encoder.length)

"""Requests that held-out pictures answer: for their own layouts and maps, or for themselves made small or masked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, final

import numpy as np
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from darkroom.conditioning.boxes import BoxesSpec
from darkroom.conditioning.layout import LayoutSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.core.names import numbers_of
from darkroom.core.pictures import from_bytes, to_pictures
from darkroom.core.spec import Spec, parse
from darkroom.data.degrade import BicubicSpec, DegradationSpec, degrade
from darkroom.data.examples import Source
from darkroom.data.inputs import captions, label_of, maps, pictures, seen_things
from darkroom.data.masks import AnyMasksSpec, MaskFilesSpec, MasksSpec, draw_masks, found
from darkroom.data.transforms import TransformSpec
from darkroom.tasks.input_picture import input_picture
from darkroom.tasks.model import Model
from darkroom.tasks.request import Placed, Request

SEED = 0  # of degradations and masks
LEVELS = 255  # of grey in eight bits


@final
class Spoiling(Spec):
    """How pictures are spoilt for a model that completes them: made small, or given holes."""

    degradation: DegradationSpec = BicubicSpec()
    masks: AnyMasksSpec = MasksSpec()


def spoiling_of(model: Model, *, masks: Path | None = None) -> Spoiling:
    """How pictures were spoilt in training, as far as the model's card tells; masks: a folder of other holes."""
    card = cast("object", model.card.get("data"))
    known = cast("dict[str, Any]", card) if isinstance(card, dict) else {}
    values = {key: known[key] for key in ("degradation", "masks") if key in known}
    if masks is not None:
        values["masks"] = MaskFilesSpec(source=str(masks)).plain()
    spoiling = parse(Spoiling, values, where=f"the card of {model.name}")
    if masks is None or not isinstance(spoiling.masks, MaskFilesSpec):
        return spoiling
    return spoiling.model_copy(update={"masks": found(spoiling.masks)})


def request_for(
    model: Model,
    source: Source,
    *,
    rows: Sequence[int],
    transform: TransformSpec,
    spoiling: Spoiling,
    sample: Mapping[str, Any],
) -> Request:
    """A request for these rows, with their captions and labels. sample: settings; those that are None are left out."""
    asked = asked_of(model, source, rows=rows, transform=transform, spoiling=spoiling)
    if "caption" in model.fields:
        said = captions(source)
        asked["prompts"] = [said[row] for row in rows]
    if "label" in model.fields:
        asked["labels"] = [source.classes[label_of(source, row)] for row in rows]
    how = {name: value for name, value in sample.items() if value is not None}
    return parse(Request, {**asked, **how}, where="what is asked for")


def _picture_of(ids: Int[Tensor, "h w"]) -> Image.Image:
    wide = int(ids.max()) > LEVELS
    return Image.fromarray(ids.numpy().astype(np.uint16 if wide else np.uint8))


def asked_of(
    model: Model, source: Source, *, rows: Sequence[int], transform: TransformSpec, spoiling: Spoiling
) -> dict[str, Any]:
    """Fields of a `Request` that ask for these rows, one a picture; captions and labels are not among them."""
    still = transform.model_copy(update={"flip": False, "turn": False})
    asked: dict[str, Any] = {}
    for spec in model.spec.conditioners:
        match spec:
            case LayoutSpec() | BoxesSpec():
                asked["layouts"] = [
                    tuple(
                        Placed(category=source.categories[thing.category], box=thing.box)
                        for thing in seen_things(source, row)[: model.words.slots]
                    )
                    for row in rows
                ]
            case MapSpec():
                numbers = numbers_of(source.map_classes, model.names.map_classes, what="map class")
                ids = maps(source, still, numbers=numbers).take(rows, rows, seed=SEED)
                asked["maps"] = [input_picture(_picture_of(each)) for each in ids]
            case LowResSpec():
                kept = pictures(source, still)
                small = [degrade(kept(row)[None], spoiling.degradation, seed=SEED, indices=[row]) for row in rows]
                asked["low_res"] = [input_picture(to_pictures(from_bytes(each))[0]) for each in small]
            case MaskedSpec():
                kept = pictures(source, still)
                asked["images"] = [input_picture(to_pictures(from_bytes(kept(row)[None]))[0]) for row in rows]
                masks = draw_masks(spoiling.masks, (still.size, still.size), seed=SEED, indices=rows)
                asked["masks"] = [input_picture(Image.fromarray((each[0] * 255).byte().numpy())) for each in masks]
            case _:
                pass
    return asked

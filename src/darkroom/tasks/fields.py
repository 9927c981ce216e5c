"""From a person's words to what conditioners read: texts, names, boxes and maps become ids and planes."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from darkroom.conditioning.boxes import BoxesSpec, drawn_boxes
from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec, layout_ids
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec, check_ids, one_hot
from darkroom.conditioning.text import TextSpec, Tokenizer
from darkroom.core.errors import InputError
from darkroom.core.names import Names, number_of
from darkroom.core.shapes import Images, Mask
from darkroom.diffusion.model import ModelSpec
from darkroom.tasks.request import Placed, placed

S = TypeVar("S", bound=ConditionerSpec)
FIELDS: Final = {  # that a request can give, and what they are called
    "caption": "prompt",
    "label": "label",
    "objects": "layout",
    "map": "semantic map",
    "low_res": "low-resolution picture",
    "masked": "picture with a mask",
}
GIVEN: Final = {  # how the command is told each, besides a prompt
    "label": "--label",
    "objects": "--layout",
    "map": "--map",
    "low_res": "--low-res",
    "masked": "--image and --mask",
}
LISTED: Final = 12  # class names that a sentence has room for
TASKS: Final = {  # what a model steered by a field does, in the words of `task=`
    "caption": "text",
    "label": "class",
    "objects": "layout",
    "map": "semantic",
    "low_res": "super-resolution",
    "masked": "inpainting",
    "embedding": "retrieval",
}


def task_of(spec: ModelSpec) -> str:
    """What a model does: `unconditional`, `text`, `class`, ..., several joined by `+`."""
    return "+".join(TASKS[field] for field in spec.fields) or "unconditional"


@final
class Fields:
    """The fields of one model. Every answer is on the CPU; `InputError` for a field it does not take, by name."""

    def __init__(self, spec: ModelSpec, *, model: str, names: Names, tokenizer: Tokenizer | None) -> None:
        self._spec, self._model, self._names, self._tokenizer = spec, model, names, tokenizer

    def takes(self) -> str:
        """A clause that says what steers this model."""
        named = [f"a {FIELDS[field]}" if field in FIELDS else field for field in self._spec.fields]
        return f"it is steered by {' and '.join(named)}" if named else "it is unconditional"

    def needs(self, field: str) -> str:
        """A clause that says that a field was not given, and what would do."""
        others = f"; {self.takes()}" if len(self._spec.fields) > 1 else ""
        option = f" ({GIVEN[field]})" if field in GIVEN else ""
        names = self._names.classes if field == "label" else ()
        known = f", such as {', '.join(names[:LISTED])}" if names else ""
        return f"needs a {FIELDS[field]}{others}; give one{option}{known}"

    def caption_ids(self, caption: Sequence[str] | str) -> Tensor:
        """(b, l) token ids of texts; `InputError` when the model came without a tokenizer."""
        family = self.find(TextSpec, word="prompt").encoder.family
        if self._tokenizer is None:
            files = "vocab.json and merges.txt" if family == "clip" else "vocab.txt"
            raise InputError(
                f"{self._model} came without a tokenizer: put its {files} beside the checkpoint, or give caption_ids"
            )
        return self._tokenizer([caption] if isinstance(caption, str) else list(caption))

    def label_ids(self, label: Sequence[int | str] | Tensor | int | str) -> Tensor:
        """(b,) class numbers of names or numbers; `InputError` names what is unknown."""
        spec = self.find(ClassSpec, word="label")
        if isinstance(label, Tensor):
            return label
        said = [label] if isinstance(label, (int, str)) else label
        return torch.tensor(
            [number_of(str(each), self._names.classes, count=spec.classes, what="label") for each in said]
        )

    @property
    def slots(self) -> int | None:
        """Objects of a layout at most, None for any number; 0 where ids alone are taken."""
        match self._layout:
            case BoxesSpec():
                return None
            case LayoutSpec(scheme=scheme):
                return 0 if scheme is None else scheme.slots

    def layouts(
        self, layouts: Sequence[Sequence[Placed | Mapping[str, Any]]], *, size: tuple[int, int] | None = None
    ) -> Tensor:
        """What layouts, each a list of {category, box}, become: ids (b, l), or planes of so high and wide a latent.

        size: of the pictures (None: as large as those of training). `InputError` as for `layout_ids`.
        """
        spec = self._layout
        if isinstance(spec, LayoutSpec):
            return self.layout_ids(layouts)
        side, factor = self._spec.image_size, self._spec.first_stage.factor
        height, width = (each // factor for each in size or (side, side))
        rows: list[Tensor] = []
        for layout in layouts:
            things = [placed(each) for each in layout]
            numbers = [self._category(each, count=spec.categories) for each in things]
            rows.append(
                drawn_boxes(numbers, [each.box for each in things], known=spec.categories, size=(height, width))
            )
        return torch.stack(rows)

    @property
    def _layout(self) -> LayoutSpec | BoxesSpec:
        drawn = next((spec for spec in self._spec.conditioners if isinstance(spec, BoxesSpec)), None)
        return drawn or self.find(LayoutSpec, word="layout")

    def _category(self, thing: Placed, *, count: int) -> int:
        return number_of(thing.category, self._names.categories, count=count, what="category")

    def layout_ids(self, layouts: Sequence[Sequence[Placed | Mapping[str, Any]]]) -> Tensor:
        """(b, l) ids of layouts, each a list of {category, box}; `InputError` for unknown categories and too many."""
        spec = self.find(LayoutSpec, word="layout")
        scheme = spec.scheme
        if scheme is None:
            raise InputError(f"{self._model} does not say how its layouts become ids; give layout_ids")
        rows: list[Tensor] = []
        for layout in layouts:
            things = [placed(each) for each in layout]
            if len(things) > scheme.slots:
                raise InputError(f"{len(things)} objects came; {self._model} takes at most {scheme.slots}")
            categories = [self._category(each, count=scheme.categories) for each in things]
            boxes = torch.tensor([each.box for each in things], dtype=torch.float64).reshape(-1, 4)
            rows.append(layout_ids(torch.tensor(categories, dtype=torch.long), boxes, scheme=scheme))
        return torch.stack(rows)

    def one_hot(self, map: Tensor) -> Images:
        """(b, classes, H, W) of a map of ids (b, H, W) or one that is one-hot already."""
        spec = self.find(MapSpec, word="semantic map")
        if map.ndim == 4:
            if map.shape[1] != spec.classes:
                raise InputError(f"a one-hot map of {map.shape[1]} classes came; {self._model} has {spec.classes}")
            return map
        self.check_map(map)
        return one_hot(map, spec.classes)

    def check_map(self, ids: Tensor) -> None:
        """`InputError` for ids beyond the classes."""
        check_ids(ids, self.find(MapSpec, word="semantic map").classes)

    def low_res(self, pictures: Images) -> Images:
        """(b, c, h, w) as they are; `InputError` for another number of channels."""
        spec = self.find(LowResSpec, word="low-resolution picture")
        if pictures.shape[1] * spec.patch**2 != spec.channels:
            raise InputError(
                f"a low-resolution picture of {pictures.shape[1]} channels came; "
                f"{self._model} takes {spec.channels // spec.patch**2}"
            )
        return pictures

    def masked(self, image: Images | None, mask: Mask | None) -> Float[Tensor, "b c height width"]:
        """(b, c + 1, H, W): the picture, then the mask (1: paint here); `InputError` unless both came, of one size."""
        self.find(MaskedSpec, word="picture with a mask")
        if image is None or mask is None:
            raise InputError("inpainting needs image and mask; one of them came")
        if image.shape[-2:] != mask.shape[-2:]:
            raise InputError(
                f"the mask is {mask.shape[-2]}x{mask.shape[-1]} and the picture {image.shape[-2]}x{image.shape[-1]}; "
                "they must be of one size"
            )
        return torch.cat([image, mask.to(image)], dim=1)

    def find(self, kind: type[S], *, word: str) -> S:
        """The conditioner's spec of this kind; `InputError` when the model has none."""
        for spec in self._spec.conditioners:
            if isinstance(spec, kind):
                return spec
        raise InputError(f"{self._model} takes no {word}; {self.takes()}")

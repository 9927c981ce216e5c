"""Layouts: boxes with categories as a sequence of token ids (paper, section 4.3.1)."""

from collections.abc import Sequence
from typing import ClassVar, Final, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from darkroom.conditioning.text import SequenceEncoder, SequenceEncoderSpec
from darkroom.core.errors import InputError
from darkroom.core.shapes import Choice, Ids, Tokens
from darkroom.core.spec import Spec
from darkroom.nn.embed import place_waves

WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of a picture that was not cropped
Box = Sequence[float]  # x, y, width, height in 0..1 of the picture


@final
class LayoutTokensSpec(Spec):
    """How boxes become token ids: for each of `slots` objects its category, its top left and its bottom right corner.

    categories: how many there are, ids 0.. · grid: corners lie on grid x grid places, numbered row by row · crop: two
    more tokens, the corners of the crop within the whole picture · empty: the id that fills free slots, after all
    others (the original: 30 slots, grid 90, crop, empty 8191; taming-transformers' bounding-box builder).
    """

    categories: int = Field(gt=0)
    slots: int = Field(default=30, gt=0)
    grid: int = Field(default=90, gt=1)
    crop: bool = True
    empty: int | None = Field(default=None, gt=0)

    @property
    def filler(self) -> int:
        """The id of free slots."""
        return max(self.categories, self.grid**2) if self.empty is None else self.empty

    @property
    def length(self) -> int:
        """Tokens of a layout."""
        return 3 * self.slots + 2 * self.crop

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return self.filler + 1

    @model_validator(mode="after")
    def _consistent(self) -> "LayoutTokensSpec":
        if self.filler < max(self.categories, self.grid**2):
            raise ValueError(
                f"empty is {self.filler}, an id of {max(self.categories, self.grid**2)} categories or corners"
            )
        return self


ORIGINAL: Final = LayoutTokensSpec(categories=8191, empty=8191)  # of OpenImages; no file names its categories


@final
class LayoutSpec(Spec):
    """Token ids of a layout as tokens; `drop` is the share of samples trained with the empty layout.

    scheme: how boxes become ids (None: ids are given as they are) · empty: the id that stands for no object, where
    there is no scheme (the original: vocabulary - 1).
    """

    written_where_used: ClassVar = frozenset({"scheme"})

    kind: Literal["layout"] = "layout"
    port: Literal["tokens"] = "tokens"
    encoder: SequenceEncoderSpec
    scheme: LayoutTokensSpec | None = None
    empty: int = Field(default=8191, ge=0)
    drop: float = Field(default=0.0, ge=0, lt=1)

    field: ClassVar[str] = "objects"

    @property
    def width(self) -> int:
        """Width of the port."""
        return self.encoder.width

    @property
    def filler(self) -> int:
        """The id of no object."""
        return self.empty if self.scheme is None else self.scheme.filler

    @model_validator(mode="after")
    def _consistent(self) -> "LayoutSpec":
        scheme, encoder = self.scheme, self.encoder
        if scheme is not None and (scheme.length > encoder.length or scheme.vocabulary > encoder.vocabulary):
            raise ValueError(
                f"layouts have {scheme.length} tokens of {scheme.vocabulary} ids, "
                f"the encoder takes {encoder.length} of {encoder.vocabulary}"
            )
        return self


def layout_ids(
    categories: Int[Tensor, " n"],
    boxes: Float[Tensor, "n 4"],
    *,
    scheme: LayoutTokensSpec,
    crop: Box = WHOLE,
) -> Int[Tensor, " l"]:
    """The ids (l,) of one layout in the order given, at most `scheme.slots` objects of it.

    boxes: x, y, width, height in 0..1 of the whole picture · crop: what is seen of it, likewise (told to the model
    only where the scheme has crop tokens). `InputError` for a category that is not known.
    """
    if len(categories) and not 0 <= int(categories.min()) <= int(categories.max()) < scheme.categories:
        raise InputError(f"categories must lie in 0..{scheme.categories - 1}, {categories.tolist()} came")
    kept = min(len(categories), scheme.slots)
    ids = torch.full((scheme.length,), scheme.filler, dtype=torch.long)
    ids[0 : 3 * kept : 3] = categories[:kept].long()
    ids[1 : 3 * kept : 3], ids[2 : 3 * kept : 3] = _corners(boxes[:kept], grid=scheme.grid)
    if scheme.crop:
        first, last = _corners(torch.tensor([list(crop)]), grid=scheme.grid)
        ids[-2], ids[-1] = first[0], last[0]
    return ids


def _corners(boxes: Float[Tensor, "n 4"], *, grid: int) -> tuple[Tensor, Tensor]:
    """Numbers (n,) of the top left and the bottom right corners: y grid + x, each round((grid - 1) times 0..1)."""
    x, y, width, height = boxes.double().clamp(0, 1).unbind(1)
    left, top, right, bottom = (
        (each.clamp(max=1) * (grid - 1)).round().long() for each in (x, y, x + width, y + height)
    )
    return top * grid + left, bottom * grid + right


def _tell_places(tokens: nn.Embedding, *, grid: int) -> None:
    """Add to each corner's embedding sines and cosines of where it lies, so that near corners begin near each other.

    Thousands of corners, each learnt by itself, take far more pictures than a folder has. Categories share ids with
    the first corners, as in the original, and begin with those waves, too.
    """
    if tokens.weight.is_meta:  # without values, and arithmetic there imports torch's compiler
        return
    with torch.no_grad():
        tokens.weight[: grid**2] += place_waves((grid, grid), tokens.embedding_dim, device=tokens.weight.device)


@final
class LayoutConditioner(nn.Module):
    """Layout ids to tokens. The layout of empty slots is the null condition."""

    def __init__(self, spec: LayoutSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = SequenceEncoder(spec.encoder)
        if spec.scheme is not None and spec.width % 4 == 0:
            _tell_places(self.encoder.tokens, grid=spec.scheme.grid)

    def forward(self, ids: Ids) -> Tokens:
        """(b, l) ids to (b, l, width)."""
        return self.encoder(ids)

    def drop(self, ids: Ids, choice: Choice) -> Ids:
        """The empty layout where `choice` says so."""
        return torch.where(choice[:, None], self.spec.filler, ids)

    def null(self, port: Tokens) -> Tokens:
        """The empty layout at the batch size and length of `port`."""
        ids = torch.full((1, port.shape[1]), self.spec.filler, device=port.device)
        return self.encoder(ids).to(port.dtype).expand(len(port), -1, -1)

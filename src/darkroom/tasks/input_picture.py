"""Pictures that a request is given: read once, told apart by what they show."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from PIL import Image, ImageOps
from torch import Tensor

from darkroom.core.errors import InputError
from darkroom.core.pictures import MODES, from_bytes, open_picture, to_bytes
from darkroom.core.shapes import Images
from darkroom.data.decode import colours, levels, upright

Size = tuple[int, int]  # height, width
INK: Final = 128  # level from which a mask's pixel is to be painted
ID_MODES: Final = ("1", "L", "P", "I", "I;16")


@final
@dataclass(frozen=True)
class InputPicture:
    """A picture of a request. hash: of its mode, size and pixels; two that show the same are equal."""

    picture: Image.Image = field(compare=False, repr=False)
    hash: str

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.picture.height, self.picture.width

    def coloured(self, channels: int, size: Size | None = None) -> Image.Image:
        """With 1 (grey), 3 or 4 channels, read as those trained on are: transparency on white, all levels in 8 bits.

        size: height and width that it is brought to, made to cover them and cut around its centre; None: its own.
        """
        whole = colours(self.picture, alpha=channels == 4).convert(MODES[channels])
        return whole if size is None else _fitted(whole, size, method=Image.Resampling.BICUBIC)

    def pixels(self, channels: int, size: Size | None = None) -> Images:
        """`coloured` as (1, channels, H, W) in [-1, 1]."""
        return from_bytes(rearrange(to_bytes(self.coloured(channels, size), channels), "c h w -> 1 c h w"))

    def ink(self, size: Size) -> Float[Tensor, "1 1 h w"]:
        """The picture as a mask of 1 where it is at least half white (paint here) and 0."""
        found = _fitted(self.coloured(1), size, method=Image.Resampling.NEAREST)
        return (to_bytes(found, 1) >= INK).float()[None]

    def ids(self, size: Size) -> Int[Tensor, "1 h w"]:
        """The picture as a map: its grey levels or palette numbers are class ids; `InputError` for colours."""
        grey = levels(self.picture)
        if grey.mode not in ID_MODES:
            raise InputError(
                f"a map holds class ids as grey levels or palette numbers; a picture of mode {grey.mode} came"
            )
        found = _fitted(grey, size, method=Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(found).astype(np.int64))[None]


def input_picture(source: object) -> InputPicture:
    """From a picture or a file, turned upright as its EXIF says; `InputError` for what is none, or empty."""
    if not isinstance(source, (Image.Image, str, Path)):
        raise InputError(f"a picture is a PIL image or the name of a file, {type(source).__name__} came")
    opened = source if isinstance(source, Image.Image) else open_picture(Path(source))
    turned = upright(opened)
    if 0 in turned.size:
        raise InputError(f"a picture of {turned.width}x{turned.height} pixels came; one needs a pixel at least")
    facts = f"{turned.mode}/{turned.size}/{turned.getpalette()}".encode()
    return InputPicture(turned, hashlib.blake2b(facts + turned.tobytes(), digest_size=8).hexdigest())


def _fitted(picture: Image.Image, size: Size, *, method: Image.Resampling) -> Image.Image:
    height, width = size
    fits = (picture.height, picture.width) == size
    return picture if fits else ImageOps.fit(picture, (width, height), method=method)

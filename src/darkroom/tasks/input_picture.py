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
from darkroom.core.pictures import from_bytes, open_picture, to_bytes
from darkroom.core.shapes import Images

Size = tuple[int, int]  # height, width
INK: Final = 128  # level from which a mask's pixel is to be painted
ID_MODES: Final = ("1", "L", "P", "I", "I;16")
KEPT_MODES: Final = (*ID_MODES, "RGB", "RGBA")


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

    def at(self, size: Size, *, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
        """The picture at this height and width: as it is, or made to cover it and cut around its centre."""
        height, width = size
        if self.size == size:
            return self.picture
        plain = self.picture if self.picture.mode in KEPT_MODES else self.picture.convert("RGB")
        return ImageOps.fit(plain, (width, height), method=resample)

    def pixels(self, channels: int, size: Size | None = None) -> Images:
        """(1, channels, H, W) in [-1, 1]; size: (height, width) that it is brought to."""
        found = self.picture if size is None else self.at(size)
        return from_bytes(rearrange(to_bytes(found, channels), "c h w -> 1 c h w"))

    def ink(self, size: Size) -> Float[Tensor, "1 1 h w"]:
        """The picture as a mask of 1 where it is at least half white (paint here) and 0."""
        found = self.at(size, resample=Image.Resampling.NEAREST)
        return (to_bytes(found, 1) >= INK).float()[None]

    def ids(self, size: Size) -> Int[Tensor, "1 h w"]:
        """The picture as a map: its grey levels or palette numbers are class ids; `InputError` for colours."""
        if self.picture.mode not in ID_MODES:
            raise InputError(
                f"a map holds class ids as grey levels or palette numbers; a picture of mode {self.picture.mode} came"
            )
        found = self.at(size, resample=Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(found).astype(np.int64))[None]


def input_picture(source: Image.Image | str | Path) -> InputPicture:
    """From a picture or a file, turned upright as its EXIF says; `InputError` for what is no picture."""
    opened = source if isinstance(source, Image.Image) else open_picture(Path(source))
    upright = ImageOps.exif_transpose(opened)
    facts = f"{upright.mode}/{upright.size}".encode()
    return InputPicture(upright, hashlib.blake2b(facts + upright.tobytes(), digest_size=8).hexdigest())

"""Does a picture of the `shapes` world obey: what is in it, read back without any model."""

from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from darkroom.core.errors import InputError
from darkroom.scenes import read
from darkroom.scenes.agree import agrees, obeys, shows
from darkroom.scenes.vocabulary import SceneObject

__all__ = ["agrees", "obeys", "read_map", "read_scene", "shows"]

Picture: TypeAlias = Image.Image | UInt8[np.ndarray, "..."]


def read_scene(image: Picture) -> list[SceneObject]:
    """The objects of the `shapes` world in a picture, in the order of their boxes' top sides; none in other pictures.

    image: a Pillow picture of any mode, whose transparency is ignored, or (h, w, 3) uint8; objects are 13 to 33 pixels
    wide whatever the canvas · raises `InputError` for an array of another shape.
    """
    return read.read(_pixels(image, "read_scene"))


def read_map(image: Picture) -> UInt8[np.ndarray, "h w"]:
    """The semantic map of a `shapes` picture as it is read: 0 the background, else 1 + the shape's place in `SHAPES`.

    image: as for `read_scene`.
    """
    return read.read_map(_pixels(image, "read_map"))


def _pixels(image: Picture, where: str) -> UInt8[np.ndarray, "h w 3"]:
    pixels = np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else image
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.size or pixels.dtype != np.uint8:
        raise InputError(
            f"{where}: an array of {pixels.dtype} and shape {pixels.shape} is no picture; (height, width, 3) of "
            "uint8 is"
        )
    return pixels

"""Pictures of conditions, for people: boxes with their names, maps in colours, a picture with its hole."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from darkroom.tasks.input_picture import InputPicture, Size
from darkroom.tasks.request import Placed

_GROUND = (236, 236, 236)
_HOLE = (255, 0, 255)
_TURN = 0.618034  # of the hue circle, from one number to the next: neighbours differ


def layout_picture(layout: Sequence[Placed], *, size: Size) -> Image.Image:
    """Boxes in the colours of their categories. size: height, width."""
    height, width = size
    picture = Image.new("RGB", (width, height), _GROUND)
    pen = ImageDraw.Draw(picture)
    for each in layout:
        x, y, across, down = each.box
        left, top = x * width, y * height
        corners = [left, top, max(left, left + across * width - 1), max(top, top + down * height - 1)]
        colour = _colour(sum(str(each.category).encode()))
        pen.rectangle(corners, outline=colour, width=max(1, min(size) // 48))
        if min(across * width, down * height) >= 10:
            pen.text((corners[0] + 2, corners[1]), str(each.category)[:3], fill=colour)
    return picture


def map_picture(map_: InputPicture, *, size: Size) -> Image.Image:
    """Each id in a colour of its own, 0 in light grey."""
    ids = map_.ids(size)[0].numpy()
    table = np.array([_GROUND, *(_colour(number) for number in range(1, int(ids.max()) + 1))], np.uint8)
    return Image.fromarray(table[ids])


def masked_picture(image: InputPicture, mask: InputPicture, *, size: Size) -> Image.Image:
    """The picture with what is to be painted filled in one loud colour."""
    ink = Image.fromarray((mask.ink(size)[0, 0] * 255).byte().numpy())
    hole = Image.new("RGB", (size[1], size[0]), _HOLE)
    return Image.composite(hole, image.coloured(3, size), ink)


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * _TURN % 1, 0.75, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)

"""Reading a scene through the door that users take: Pillow pictures and arrays."""

import numpy as np
import pytest
from PIL import Image

from darkroom.core.errors import InputError
from darkroom.metrics.agreement import agrees, obeys, read_scene
from darkroom.scenes.draw import draw


def test_pictures_and_arrays_read_alike():
    scene = draw(8, 2)
    found = read_scene(scene.image)
    assert agrees(found, scene.objects)
    assert obeys(found, scene.caption)
    picture = Image.fromarray(scene.image)
    assert read_scene(picture) == read_scene(picture.convert("RGBA")) == found


def test_grey_pictures_hold_nothing():
    assert read_scene(Image.fromarray(draw(8, 2).image).convert("L")) == []


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 4), (3, 64, 64), (1, 64, 64, 3), (0, 8, 3)])
def test_other_arrays_are_refused(shape: tuple[int, ...]):
    with pytest.raises(InputError, match="height, width, 3"):
        read_scene(np.zeros(shape, np.uint8))

"""Pictures too large for one piece: tiles come near to the whole, windows are told of what lies in them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from darkroom.autoencoder import tiles
from darkroom.core.errors import InputError
from darkroom.core.spec import parse
from darkroom.tasks.model import Model
from darkroom.tasks.request import Layout, Request, given, placed
from darkroom.tasks.steer import Crop, conditions_of, crops_of, seen_by

Small = Callable[[str], Model]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of more than 16 pixels is cut into tiles of 16."""
    monkeypatch.setattr(tiles, "WHOLE", 16)
    monkeypatch.setattr(tiles, "TILE", 16)
    monkeypatch.setattr(tiles, "MARGIN", 4)


@pytest.mark.usefixtures("few")
def test_a_large_picture_is_decoded_in_tiles_near_to_the_whole(small: Small) -> None:
    model = small("plain")
    latents = torch.randn(1, model.spec.first_stage.latent_channels, 24, 24)
    whole = model.diffusion.decode(latents).detach()
    found = model.decode(latents)
    assert found.shape == whole.shape
    assert not torch.equal(found, whole)
    assert float((found - whole).abs().mean()) < 0.3 * float(
        (whole - whole.mean()).abs().mean()
    )  # norms see each tile by itself


@pytest.mark.usefixtures("few")
def test_a_large_picture_is_encoded_in_tiles_near_to_the_whole(small: Small) -> None:
    model = small("plain")
    images = torch.randn(1, 3, 48, 64).clamp(-1, 1)
    whole = model.diffusion.first_stage.moments(images)[0].detach() * model.diffusion.known_scale
    found = model.encode(images)
    assert found.shape == whole.shape
    assert not torch.equal(found, whole)
    assert float((found - whole).abs().mean()) < 0.2 * float(whole.abs().mean())
    with pytest.raises(InputError, match="sides must be multiples of 2"):
        model.encode(torch.zeros(1, 3, 48, 63))


def test_each_window_is_told_of_the_objects_in_it(small: Small) -> None:
    model = small("layout")
    size, window = (16, 32), 16
    assert crops_of(model, size=size, window=window) == [(0, 0, 0.5, 1), (0.25, 0, 0.5, 1), (0.5, 0, 0.5, 1)]
    assert crops_of(model, size=size, window=None) == [(0, 0, 1, 1)]
    left, right = ({"category": 1, "box": [x, 0.25, 0.25, 0.5]} for x in (0.0, 0.625))
    wish = parse(Request, given({"layout": [left, right], "size": size}), where="request").wishes()[0]
    tokens = conditions_of(model, [wish], size=size, window=window).tokens
    assert tokens is not None
    for place, seen in enumerate(
        (
            [{"category": 1, "box": [0.0, 0.25, 0.5, 0.5]}],
            [{"category": 1, "box": [0.75, 0.25, 0.25, 0.5]}],  # half of it, cut; of the other nothing
            [{"category": 1, "box": [0.25, 0.25, 0.5, 0.5]}],
        )
    ):
        torch.testing.assert_close(tokens[:, place], model.condition(objects=[seen]).tokens)


def test_windows_see_their_part_of_drawn_boxes(small: Small) -> None:
    """Any number of boxes, drawn at the size of the whole and cut to each window."""
    model, size = small("boxes"), (16, 64)
    layout = [{"category": at % 3, "box": [at / 16, 0.25, 1 / 16, 0.5]} for at in range(16)]
    wish = parse(Request, given({"layout": layout, "size": size}), where="request").wishes()[0]
    whole = conditions_of(model, [wish], size=size)
    assert whole.planes is not None
    assert whole.planes.shape == (1, 2, 8, 32)
    in_windows = conditions_of(model, [wish], size=size, window=16)
    assert in_windows.planes is not None
    assert torch.equal(in_windows.planes, whole.planes)
    drawn, other = (
        model.sample(layout=each, size=size, window=16, seed=1, steps=2)[0] for each in (layout, layout[:8])
    )
    assert not np.array_equal(np.asarray(drawn), np.asarray(other))
    with pytest.raises(InputError, match="unknown category 'sun'"):
        model.sample(layout=[{"category": "sun", "box": [0, 0, 1, 1]}], size=size, window=16)


def seen_in(layout: Layout, crop: Crop) -> Layout:
    (found,) = seen_by(layout, [crop], most=9)
    return found


def test_a_window_is_told_of_what_fills_most_of_it() -> None:
    small, large, other = (
        placed({"category": 1, "box": box})
        for box in ([0.3, 0.0, 0.1, 0.1], [0.2, 0.2, 0.25, 0.5], [0.6, 0.0, 0.3, 0.5])
    )
    left, right = (0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 0.5, 1.0)
    of_left, of_right = seen_by((small, large, other), [left, right], most=2)
    assert len(of_left) == 2  # both that lie there, in the layout's order
    assert of_left[0].box[2] == pytest.approx(0.2)
    assert [each.box[2] for each in of_right] == pytest.approx([0.4, 0.3])  # the small one is told to the left alone
    each_its_own = seen_by((small, large, other), [left, right, (0.5, 0.0, 0.5, 1.0)], most=1)
    assert [of_one.box[2] for (of_one,) in each_its_own] == pytest.approx([0.2, 0.4, 0.6])
    with pytest.raises(InputError, match=r"at most 1 objects, and too many lie where the 1 at"):
        seen_by((small, large, other), [left, right], most=1)


def test_a_little_of_an_object_is_not_told() -> None:
    layout = (placed({"category": 1, "box": [0.0, 0.0, 0.5, 0.5]}),)
    assert seen_in(layout, (0.3, 0.0, 0.5, 1.0)) == ()
    assert seen_in(layout, (0.5, 0.5, 0.5, 0.5)) == ()
    (filled,) = seen_in(layout, (0.0, 0.0, 0.1, 0.1))  # little of it, which fills the window
    assert filled.box == (0, 0, 1, 1)
    (all_of_it,) = seen_in(layout, (0.0, 0.0, 1.0, 1.0))
    assert all_of_it == layout[0]


def test_hostile_boxes_and_names_are_refused_or_drawn_in_windows_too(small: Small) -> None:
    model = small("layout")
    for window in (None, 16):
        with pytest.raises(InputError, match="unknown category 'sun'"):
            model.sample(layout=[{"category": "sun", "box": [0, 0, 1, 1]}], size=(16, 64), window=window)
        tiny = [{"category": 1, "box": [0.5, 0.5, 1e-170, 1e-170]}]
        assert len(model.sample(layout=tiny, size=(16, 64), window=window, steps=1)) == 1


def test_nothing_at_all_in_windows(small: Small) -> None:
    (drawn,) = small("layout").sample(layout=[], size=(16, 32), window=16, steps=1)
    assert drawn.size == (32, 16)


def test_more_objects_than_a_model_knows_where_a_window_has_few(small: Small) -> None:
    model, boxes = small("layout"), [[x, 0.0, 0.125, 0.5] for x in (0.0, 0.25, 0.625, 0.875)]
    layout = [{"category": 1, "box": box} for box in boxes]
    with pytest.raises(InputError, match="4 objects came; layout takes at most 2"):
        model.sample(layout=layout, size=(16, 32))
    (drawn,) = model.sample(layout=layout, size=(16, 32), window=16)
    assert drawn.size == (32, 16)
    crowded = [{"category": 1, "box": [0.125, 0.5, 0.125, 0.5]}, {"category": 1, "box": [0.0, 0.5, 0.1, 0.4]}]
    assert len(model.sample(layout=[*layout, crowded[0]], size=(16, 32), window=16, steps=1)) == 1
    with pytest.raises(InputError, match="a window takes at most 2 objects, and too many lie where the 1 at"):
        model.sample(layout=[*layout, *crowded], size=(16, 32), window=16)

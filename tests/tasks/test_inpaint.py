"""Painting into pictures: what is known stays, nothing under a mask is seen, and the two meet at the edge."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.conditioning.fill import continued
from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError, SpecError
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.core.spec import parse
from darkroom.process.schedule import add_noise
from darkroom.recipes.card import card_of
from darkroom.recipes.read import recipe
from darkroom.tasks.inpaint import known_region, matched
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request, given
from darkroom.tasks.settle import settle

Small = Callable[[str], Model]


def photo(seed: int = 0, size: tuple[int, int] = (16, 16)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    return Image.fromarray(values.astype(np.uint8))


def hole(size: tuple[int, int] = (16, 16)) -> Image.Image:
    drawn = np.zeros(size, np.uint8)
    drawn[3:9, 5:12] = 255
    return Image.fromarray(drawn)


@pytest.mark.parametrize("name", ["inpaint", "plain"])
def test_known_pixels_are_identical(small: Small, name: str) -> None:
    """With a model trained for it and, by re-noising, with any other."""
    photograph, mask = photo(5), hole()
    (drawn,) = small(name).sample(image=photograph, mask=mask, seed=1)
    kept = np.asarray(mask) == 0
    assert np.array_equal(np.asarray(drawn)[kept], np.asarray(photograph)[kept])
    assert not np.array_equal(np.asarray(drawn)[~kept], np.asarray(photograph)[~kept])


def test_the_known_region_is_put_back_noised(small: Small) -> None:
    """Where nothing is masked, x before each step is the picture's own latent at that level of noise."""
    model, noise = small("plain"), torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    fields = given({"image": photo(5), "mask": hole()})
    request = settle(model, Request(**fields))
    put_back = known_region(model, request, group=request.wishes(), noise=noise)
    assert put_back is not None
    t = torch.tensor([500])
    found = put_back(torch.full((1, 3, 8, 8), 7.0), t, 0)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 3:9, 5:12] = 1
    pixels = continued(from_bytes(to_bytes(photo(5))[None]), mask)
    wanted = add_noise(model.schedule, model.encode(pixels), noise=noise, t=t)
    open_ = torch.zeros(8, 8, dtype=torch.bool)
    open_[1:5, 2:6] = True  # rows 3..8 and columns 5..11 of pixels
    torch.testing.assert_close(found[..., ~open_], wanted[..., ~open_])
    assert bool((found[..., open_] == 7).all())


@pytest.mark.parametrize("name", ["inpaint", "plain"])
def test_nothing_under_a_mask_is_seen(small: Small, name: str) -> None:
    one, other = photo(5), photo(5)
    other.paste((255, 0, 255), (5, 3, 12, 9))
    drawn = [small(name).sample(image=each, mask=hole(), seed=1, count=2) for each in (one, other)]
    assert all(np.array_equal(*pair) for pair in zip(*drawn, strict=True))


def test_holes_go_on_smoothly_from_what_is_known() -> None:
    slope = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64).contiguous()
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 10:50, 20:44] = 1
    found = continued(torch.where(mask > 0, 9.0, slope), mask)
    assert torch.equal(found[mask.expand_as(found) == 0], slope[mask.expand_as(found) == 0])
    assert float((found - slope).abs().max()) < 0.15  # grey, the mean, would be off by 0.4
    odd = torch.zeros(2, 1, 37, 53)
    odd[0, :, 5:30] = 1
    odd[1] = 1
    half = torch.zeros(1, 1, 16, 64)
    half[..., 32:] = 1
    torch.testing.assert_close(continued(torch.ones(1, 3, 16, 64), half), torch.ones(1, 3, 16, 64))
    one, nothing = continued(torch.ones(2, 3, 37, 53), odd)
    torch.testing.assert_close(one, torch.ones(3, 37, 53))
    assert not nothing.any()


def test_moves_meet_the_known_pixels_at_the_edge_of_a_hole(small: Small) -> None:
    """Before known pixels are pasted over it, the drawn picture agrees with those that share cells with the hole."""
    model = small("inpaint")
    fields = given({"image": photo(5), "mask": hole()})
    free, near = (settle(model, Request(**fields, match=moves)) for moves in (0, 4))
    assert matched(model, free, group=free.wishes()) is None
    wrap = matched(model, near, group=near.wishes())
    assert wrap is not None
    pixels, edge = from_bytes(to_bytes(photo(5))[None]), torch.zeros(16, 16, dtype=torch.bool)
    edge[2:10, 4:12] = True  # cells of 2 x 2 that rows 3..8 and columns 5..11 touch
    edge[3:9, 5:12] = False

    def error(x0: torch.Tensor) -> float:
        return float((model.decode(x0) - pixels)[..., edge].square().mean())

    start = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    denoise = wrap(lambda x_t, t, conditions: start)
    late, early = (denoise(start, torch.tensor([t]), Conditions()) for t in (10, 990))
    assert torch.equal(early, start)
    assert error(late) < 0.7 * error(start)


def test_moves_are_a_models_own_or_asked_for_and_are_noted(small: Small) -> None:
    model = small("inpaint")
    fields = {"image": photo(5), "mask": hole(), "seed": 1, "steps": 10}
    (free,), (moved,) = model.sample(**fields), model.sample(**fields, match=2)
    assert not np.array_equal(np.asarray(free), np.asarray(moved))
    assert '"match": 2' in moved.info["darkroom"]
    (again,) = model.sample(image=photo(5), mask=hole(), like=moved)
    assert np.array_equal(np.asarray(again), np.asarray(moved))
    kept = np.asarray(hole()) == 0
    assert np.array_equal(np.asarray(moved)[kept], np.asarray(photo(5))[kept])
    made = recipe("tiny-inpaint", overrides=["denoiser.sample.match=2"])
    own = Model(model.diffusion, compute=model.compute, name="own", card=card_of(made, pictures=1, quality={}))
    asked = parse(Request, given({"image": photo(5), "mask": hole()}), where="request")
    assert settle(own, asked).match == 2
    assert settle(own, asked.model_copy(update={"match": 0})).match == 0
    assert settle(model, asked).match == 0


def test_moves_that_do_not_fit(small: Small) -> None:
    fields = {"image": photo(5), "mask": hole()}
    with pytest.raises(InputError, match="match 1 does not fit: pixels works on pixels"):
        small("pixels").sample(**fields, match=1)
    with pytest.raises(SpecError, match="match"):
        small("inpaint").sample(**fields, match=17)
    with pytest.raises(InputError, match="match 1 does not fit: 1028x1024 is too large to be decoded as a whole"):
        small("plain").sample(**fields, match=1, size=(1028, 1024), window=16)

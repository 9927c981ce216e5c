"""Enlarged pictures are held to the small ones: against the definition, and where they are not."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from darkroom.core.errors import InputError
from darkroom.core.pictures import from_bytes, to_bytes, to_pictures
from darkroom.core.spec import parse
from darkroom.data.degrade import BicubicSpec, degrade
from darkroom.process.objective import NoisiestTimeSpec, ObjectiveSpec
from darkroom.tasks.enlarge import held_to
from darkroom.tasks.model import Model
from darkroom.tasks.note import read_note
from darkroom.tasks.request import Request, given
from darkroom.tasks.settle import settle

Small = Callable[[str], Model]
GIVEN = Image.fromarray(np.full((8, 8, 3), (110, 128, 140), np.uint8))


def reduced(images: Tensor, size: list[int]) -> Tensor:
    return torch.nn.functional.interpolate(images, size=size, mode="bicubic", antialias=True)


@pytest.mark.parametrize(("size", "small"), [((32, 32), (8, 8)), ((24, 40), (6, 10)), ((48, 32), (24, 16))])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_nearest_pictures_of_which_bicubic_reduction_makes_the_small_ones(
    size: tuple[int, int], small: tuple[int, int], channels: int
) -> None:
    torch.manual_seed(0)
    drawn, wanted = torch.rand(2, channels, *size) * 2 - 1, torch.rand(2, channels, *small) * 2 - 1
    held = held_to(drawn, wanted)
    assert (reduced(held, [*small]) - wanted).abs().max() < 1e-4
    # nearest: the way there is at right angles to every other way that stays within such pictures
    other = held_to(torch.randn(2, channels, *size), wanted)
    product = ((held - drawn) * (other - held)).sum(dim=(1, 2, 3))
    lengths = (held - drawn).flatten(1).norm(dim=1) * (other - held).flatten(1).norm(dim=1)
    assert (product / lengths).abs().max() < 1e-4
    assert (held_to(held, wanted) - held).abs().max() < 1e-4


def test_a_picture_that_agrees_stays_as_it_is() -> None:
    torch.manual_seed(0)
    levels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    small = from_bytes(degrade(levels, BicubicSpec(), seed=0, indices=[0, 1]))
    whole = from_bytes(levels)
    assert (held_to(whole, small) - whole).abs().max() < 4 / 255  # the small one was rounded


def knows(model: Model, kind: str) -> Model:
    card = {**model.card, "data": {"degradation": {"kind": kind, "factor": 2}}}
    return Model(model.diffusion, compute=model.compute, name=model.name, card=card)


def test_models_of_bicubic_reduction_keep_the_small_picture(small: Small) -> None:
    model = knows(small("low-res"), "bicubic")
    # smooth, in the middle of the range: held to it, no value need be clipped
    (held,), (drawn,) = model.sample(low_res=GIVEN), model.sample(low_res=GIVEN, match=0)
    seen = [reduced(from_bytes(to_bytes(each)[None]), [8, 8]) for each in (held, drawn)]
    wanted = from_bytes(to_bytes(GIVEN)[None])
    far, near = (float((each - wanted).abs().mean()) for each in (seen[1], seen[0]))
    assert near < far / 4
    assert read_note(held).match == 1
    assert np.array_equal(np.asarray(model.sample(like=held, low_res=GIVEN)[0]), np.asarray(held))
    by_hand = to_pictures(held_to(from_bytes(to_bytes(drawn)[None]), wanted))[0]
    assert np.abs(np.asarray(by_hand).astype(int) - np.asarray(held)).max() <= 3 or np.asarray(drawn).max() == 255


@pytest.mark.parametrize("kind", ["blind", None])
def test_other_models_do_not_unless_told(small: Small, kind: str | None) -> None:
    model = small("low-res") if kind is None else knows(small("low-res"), kind)
    left, asked = model.sample(low_res=GIVEN)[0], model.sample(low_res=GIVEN, match=1)[0]
    assert np.array_equal(np.asarray(left), np.asarray(model.sample(low_res=GIVEN, match=0)[0]))
    assert not np.array_equal(np.asarray(left), np.asarray(asked))
    assert read_note(left).match == 0


@pytest.mark.parametrize("large", [513, 1030])
def test_long_sides_are_worked_out_piece_by_piece(large: int) -> None:
    torch.manual_seed(0)
    drawn, wanted = torch.rand(1, 1, large, 8), torch.rand(1, 1, large // 4, 4)
    assert (reduced(held_to(drawn, wanted), [large // 4, 4]) - wanted).abs().max() < 1e-4


def test_sides_that_are_too_long(small: Small) -> None:
    model = knows(small("low-res"), "bicubic")
    request = given({"low_res": Image.new("RGB", (4104, 4)), "window": 16})
    assert settle(model, parse(Request, request, where="request")).match == 0
    with pytest.raises(InputError, match="has a side above 8192 pixels"):
        settle(model, parse(Request, {**request, "match": 1}, where="request"))


def test_once_or_not(small: Small) -> None:
    with pytest.raises(InputError, match="held to the small one once"):
        small("low-res").sample(low_res=Image.new("RGB", (8, 8)), match=2)


def test_a_regression_draws_the_same_whatever_the_seed(small: Small) -> None:
    model = small("low-res")
    diffusion = copy.copy(model.diffusion)
    diffusion.spec = model.spec.model_copy(update={"objective": ObjectiveSpec(times=NoisiestTimeSpec())})
    mean = Model(diffusion, compute=model.compute, name="mean", card=model.card)
    first, second = (np.asarray(mean.sample(low_res=GIVEN, seed=seed, steps=1)[0]) for seed in (0, 1))
    assert np.array_equal(first, second)
    assert not np.array_equal(*(np.asarray(model.sample(low_res=GIVEN, seed=seed, steps=1)[0]) for seed in (0, 1)))

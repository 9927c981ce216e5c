"""Resize, crop and flip as functions of (seed, index)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_folders import picture
from PIL import Image

from darkroom.core.errors import SpecError
from darkroom.core.spec import parse
from darkroom.data.transforms import TransformSpec, finish, mirrored, prepare, resize, still, transform


@given(
    sides=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    spec=st.builds(
        TransformSpec,
        size=st.integers(4, 48),
        crop=st.sampled_from(["centre", "random"]),
        flip=st.booleans(),
        scale=st.sampled_from([None, (1.0, 1.5)]),
        channels=st.sampled_from([1, 3, 4]),
    ),
)
@settings(max_examples=60, deadline=None)
def test_every_picture_becomes_a_square(sides: tuple[int, int], spec: TransformSpec):
    image = picture(1, size=sides)
    one = transform(image, spec, seed=3, index=5)
    assert one.shape == (spec.channels, spec.size, spec.size)
    assert one.dtype == torch.uint8
    assert one.is_contiguous()
    assert torch.equal(one, finish(prepare(image, spec), spec, seed=3, index=5))
    assert still(image, spec).shape == one.shape


def test_resizing_agrees_with_pillow():
    image = picture(2, size=(90, 60))
    ours = resize(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous(), 20)
    theirs = np.array(image.resize((30, 20), Image.Resampling.BICUBIC))
    assert (ours.permute(1, 2, 0).numpy().astype(int) - theirs).__abs__().max() <= 1


def test_crops_and_flips_vary_and_reach_the_corners():
    ramp = Image.fromarray(np.arange(40, dtype=np.uint8)[None].repeat(8, 0))
    spec = TransformSpec(size=8, channels=1, crop="random", flip=True)
    samples = [transform(ramp, spec, seed=0, index=index)[0, 0] for index in range(400)]
    lows = {int(sample.min()) for sample in samples}
    assert {0, 32} <= lows
    flips = [bool(sample[0] > sample[-1]) for sample in samples]
    assert 150 < sum(flips) < 250
    assert flips == mirrored(seed=0, indices=range(400)).tolist()


def test_without_chance_all_samples_are_the_still_one():
    image, spec = picture(3, size=(50, 30)), TransformSpec(size=16)
    assert torch.equal(transform(image, spec, seed=0, index=0), still(image, spec))
    assert torch.equal(transform(image, spec, seed=8, index=9), still(image, spec))


def test_a_picture_of_the_right_size_is_untouched():
    image = picture(4, size=(16, 16))
    assert np.array_equal(still(image, TransformSpec(size=16)).permute(1, 2, 0).numpy(), np.array(image))


@pytest.mark.parametrize("values", [{"size": 0}, {"size": 8, "scale": [2, 1]}, {"size": 8, "scale": [0.5, 1]}])
def test_specs_that_do_not_fit(values: dict[str, object]):
    with pytest.raises(SpecError):
        parse(TransformSpec, values, where="test")

"""Randomness: a function of (seed, sample, purpose) and nothing else."""

import torch

from darkroom.core.seeds import generator, normal, stream, uniform


def test_a_sample_is_the_same_in_any_batch() -> None:
    together = normal((3, 4), seed=5, indices=range(8), purpose="noise")
    alone = torch.cat([normal((3, 4), seed=5, indices=[k], purpose="noise") for k in range(8)])
    assert torch.equal(together, alone)


def test_seeds_indices_and_purposes_do_not_share_numbers() -> None:
    found = {stream(seed, index, purpose=name) for seed in range(20) for index in range(20) for name in "ab"}
    assert len(found) == 20 * 20 * 2
    assert stream(1, 11, purpose="x") != stream(11, 1, purpose="x")


def test_the_numbers_stay_what_they_are() -> None:
    """Frozen: pictures of a seed must not change between versions."""
    assert stream(7, 3, purpose="noise") == 1381587190938434337
    drawn = torch.randn(2, generator=generator(7, 3, purpose="noise"))
    assert torch.equal(drawn, normal((2,), seed=7, indices=[3], purpose="noise")[0])


def test_moments_over_many_samples() -> None:
    numbers = normal((16,), seed=0, indices=range(4000), purpose="noise")
    assert abs(float(numbers.mean())) < 0.01
    assert abs(float(numbers.std()) - 1) < 0.01
    shares = uniform(seed=0, indices=range(4000), purpose="time")
    assert abs(float(shares.mean()) - 0.5) < 0.02
    assert float(shares.min()) >= 0
    assert float(shares.max()) < 1

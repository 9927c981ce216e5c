"""A guess at latents is the best linear one, and what it says passes the ports."""

import pytest
import torch

from darkroom.conditioning.conditioner import Conditioning
from darkroom.conditioning.guess import SIDE, Guess
from darkroom.conditioning.spatial import LowResSpec, MapSpec
from darkroom.core.conditions import concatenate


def test_a_linear_map_is_found() -> None:
    torch.manual_seed(0)
    wanted, guess = Guess(3, 5), Guess(3, 5)
    wanted.kernel.normal_()
    planes = [torch.randn(4, 3, 12, 16) for _ in range(3)]
    guess.fit((each, wanted(each)) for each in planes)
    torch.testing.assert_close(guess.kernel, wanted.kernel, rtol=0, atol=2e-3)


def test_no_other_kernel_is_nearer() -> None:
    torch.manual_seed(0)
    planes, latents, guess = torch.randn(8, 2, 16, 16), torch.randn(8, 4, 16, 16), Guess(2, 4)
    guess.fit([(planes, latents)])
    best = (guess(planes) - latents).square().mean()
    for _ in range(5):
        other = Guess(2, 4)
        other.kernel.copy_(guess.kernel + 0.02 * torch.randn_like(guess.kernel))
        assert (other(planes) - latents).square().mean() > best


def test_flat_pictures_are_no_obstacle() -> None:
    guess = Guess(3, 4)
    guess.fit([(torch.zeros(2, 3, 8, 8), torch.randn(2, 4, 8, 8))])
    assert torch.equal(guess.kernel, torch.zeros(4, 3, SIDE, SIDE))


@pytest.fixture
def conditioning() -> Conditioning:
    torch.manual_seed(0)
    made = Conditioning([MapSpec(classes=3, channels=2, halvings=0, drop=0.1), LowResSpec(channels=3, guesses=4)])
    made.get_buffer("by_field.low_res.guess.kernel").normal_()
    return made


def test_the_guess_stands_beside_the_planes(conditioning: Conditioning) -> None:
    low, ids = torch.randn(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    made = conditioning({"low_res": low, "map": ids})
    assert made.guess is not None
    assert made.guess.shape == (2, 4, 8, 8)
    without = conditioning.null(made)  # of the map alone
    assert without.guess is not None
    assert torch.equal(without.guess, made.guess)
    nothing = conditioning.null(made, ["low_res"])
    assert nothing.guess is not None
    assert not nothing.guess.any()
    twice = concatenate([made, made]).guess
    assert twice is not None
    assert torch.equal(twice[2:], made.guess)
    doubled = made.map(lambda port: 2 * port).guess
    assert doubled is not None
    assert torch.equal(doubled, 2 * made.guess)

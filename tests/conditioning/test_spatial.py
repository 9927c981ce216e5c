"""Pictures as planes: halving and mixing in closed form, zeros as null."""

from typing import Any

import pytest
import torch

from darkroom.conditioning.conditioner import Conditioning
from darkroom.conditioning.spatial import LowResSpec, MapConditioner, MapSpec, MaskedSpec, PlanesConditioner
from darkroom.core.conditions import concatenate
from darkroom.core.errors import SpecError
from darkroom.core.spec import Spec, parse


@torch.no_grad()
@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_a_map_is_averaged_and_mixed(halvings: int) -> None:
    """Bilinear halving is the mean of 2 x 2 squares; the 1 x 1 convolution mixes classes without a bias."""
    torch.manual_seed(0)
    conditioner = MapConditioner(MapSpec(classes=5, channels=2, halvings=halvings))
    side = 2**halvings
    one_hot = torch.nn.functional.one_hot(torch.randint(5, (2, 3 * side, 4 * side)), 5).permute(0, 3, 1, 2).float()
    shares = one_hot.unflatten(3, (4, side)).unflatten(2, (3, side)).mean(dim=(3, 5))
    expected = torch.einsum("kc,bchw->bkhw", conditioner.mix.weight[:, :, 0, 0], shares)
    torch.testing.assert_close(conditioner(one_hot), expected)
    assert conditioner.mix.bias is None


@torch.no_grad()
def test_an_empty_map_gives_the_null_planes() -> None:
    conditioner = MapConditioner(MapSpec(classes=5, channels=2, halvings=1))
    empty = torch.zeros(2, 5, 4, 4)
    assert not conditioner(empty).any()
    assert torch.equal(conditioner.null(torch.ones(2, 2, 2, 2)), conditioner(empty))


@pytest.mark.parametrize(
    ("spec", "values", "sentence"),
    [
        (LowResSpec, {"guesses": 4, "drop": 0.1}, "drop must be 0 beside guesses"),
        (MaskedSpec, {"shrink": "any", "fill": "smooth", "guesses": True, "drop": 0.1}, "drop must be 0"),
        (MaskedSpec, {"shrink": "nearest", "fill": "smooth", "guesses": True}, "needs shrink any and no black fill"),
        (MaskedSpec, {"shrink": "any", "fill": "black", "guesses": True}, "needs shrink any and no black fill"),
        (MaskedSpec, {"shrink": "any", "fill": "smooth", "guesses": True, "units": "first-stage"}, "denoiser's units"),
    ],
)
def test_a_guess_must_be_sound(spec: type[Spec], values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        parse(spec, {"channels": 5, **values}, where="it")


def test_what_is_certain_is_what_the_mask_leaves() -> None:
    spec = MaskedSpec(channels=3, shrink="any", fill="smooth", guesses=True)
    planes = torch.randn(2, 3, 4, 4)
    planes[:, 2] = torch.tensor([[-1.0, 1, 1, -1]] * 4)
    conditions = Conditioning([spec])({"masked": planes})
    assert conditions.known is not None
    assert torch.equal(conditions.known[:, 0], (planes[:, 2] < 0).float())
    assert conditions.guess is not None
    assert torch.equal(conditions.guess, planes[:, :2])
    twice = concatenate([conditions, conditions])
    assert twice.known is not None
    assert torch.equal(twice.known[2:], conditions.known)
    assert Conditioning([LowResSpec(guesses=4)])({"low_res": torch.randn(2, 3, 4, 4)}).known is None


@pytest.mark.parametrize("spec", [LowResSpec(channels=3), MaskedSpec(channels=3)])
def test_given_planes_pass(spec: LowResSpec | MaskedSpec) -> None:
    conditioner = PlanesConditioner(spec)
    planes = torch.randn(2, 3, 4, 5)
    assert conditioner(planes) is planes
    assert not conditioner.null(planes).any()
    assert conditioner.null(planes).shape == planes.shape
    assert not list(conditioner.parameters())


@pytest.mark.parametrize(
    "conditioner",
    [MapConditioner(MapSpec(classes=3, channels=2, halvings=0)), PlanesConditioner(LowResSpec(channels=3))],
)
def test_dropping_acts_on_each_sample(conditioner: MapConditioner | PlanesConditioner) -> None:
    planes = torch.ones(3, 3, 2, 2)
    dropped = conditioner.drop(planes, torch.tensor([False, True, False]))
    assert dropped.sum(dim=(1, 2, 3)).tolist() == [12, 0, 12]
    assert planes.all()

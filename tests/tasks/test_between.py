"""From one picture to another: what lies between, where the ends are, what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.core import seeds
from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError
from darkroom.diffusion.walk import seeded_noise
from darkroom.tasks.between import mix, noise_between, slerp
from darkroom.tasks.generate import generate
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request

Small = Callable[[str], Model]
SHAPE = (3, 4, 4)


def levels(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture, dtype=np.int16) for picture in pictures])


def noise(seed: int, *, count: int = 1) -> torch.Tensor:
    return seeds.normal(SHAPE, seed=seed, indices=range(count), purpose="noise")


def places(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_on_a_quarter_of_a_circle_it_is_sine_and_cosine() -> None:
    one, other = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    angle = places(0.3) * torch.pi / 2
    expected = torch.stack([angle.cos(), angle.sin()], dim=-1).float().view(1, 1, 1, 2)
    torch.testing.assert_close(slerp(one, other, at=places(0.3)), expected)
    wide = slerp(one, torch.tensor([[[[-0.6, 0.8]]]]), at=places(0.5))  # any angle: on the circle, halfway round
    assert wide.norm() == pytest.approx(1.0)
    assert wide[0, 0, 0, 0] / wide[0, 0, 0, 1] == pytest.approx(0.4 / 0.8)


def test_the_ends_of_a_way_are_the_noises_themselves() -> None:
    one, other = noise(1, count=2), noise(2, count=2)
    found = slerp(one, other, at=places(0.0, 1.0))
    assert torch.equal(found[0], one[0])
    assert torch.equal(found[1], other[1])


def test_each_sample_has_its_own_place_and_angle() -> None:
    one, other = noise(1, count=3), noise(2, count=3)
    together = slerp(one, other, at=places(0.2, 0.5, 0.9))
    for row, place in enumerate((0.2, 0.5, 0.9)):
        alone = slerp(one[row : row + 1], other[row : row + 1], at=places(place))
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.8])
def test_noise_between_noises_keeps_their_variance(place: float) -> None:
    count = 2000
    one, other = (seeded_noise(SHAPE, seed=seed, indices=range(count)) for seed in (1, 2))
    between = noise_between(one, other, at=torch.full((count,), place, dtype=torch.float64))
    for drawn in (between(0), slerp(one(5), other(5), at=torch.full((count,), place, dtype=torch.float64))):
        assert float(drawn.var()) == pytest.approx(1.0, abs=0.02)
        assert float(drawn.mean()) == pytest.approx(0.0, abs=0.02)
    assert not torch.equal(between(0), between(1))
    assert float(((1 - place) * one(0) + place * other(0)).var()) < 0.9  # what a straight line would do


def test_noises_in_one_direction_are_joined_by_a_line() -> None:
    one = noise(1)
    torch.testing.assert_close(slerp(one, one, at=places(0.3)), one)
    torch.testing.assert_close(slerp(one, 3 * one, at=places(0.5)), 2 * one)
    assert torch.isfinite(slerp(one, -one, at=places(0.5))).all()


def test_conditions_are_mixed_port_by_port() -> None:
    def filled(value: float) -> Conditions:
        return Conditions(torch.full((3, 2, 4), value), torch.full((3, 5), value), torch.full((3, 1, 2, 2), value))

    found = mix(filled(0.1), filled(0.7), at=places(0.0, 0.5, 1.0))
    for port in (found.tokens, found.vector, found.planes):
        assert port is not None
        assert (port[0] == torch.tensor(0.1)).all()
        torch.testing.assert_close(port[1], torch.full_like(port[1], 0.4))
        assert (port[2] == torch.tensor(0.7)).all()
    assert mix(Conditions(), Conditions(), at=places(0.5)) == Conditions()


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (
            Conditions(tokens=torch.zeros(1, 9, 4)),
            r"between \(1, 7, 4\) and \(1, 9, 4\): both ends need tokens of equal",
        ),
        (Conditions(vector=torch.zeros(1, 4)), r"between \(1, 7, 4\) and nothing"),
    ],
)
def test_ends_of_unlike_shape_have_nothing_between(last: Conditions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mix(Conditions(tokens=torch.zeros(1, 7, 4)), last, at=places(0.5))


WAYS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "seed": ("plain", {}, {"seed": 9}),
    "seed, noise in every step": ("plain", {"solver": "ddpm"}, {"seed": 9}),
    "seed, half of it": ("plain", {"eta": 0.6}, {"seed": 9}),
    "seed, without a first stage": ("pixels", {"solver": "heun", "steps": 2}, {"seed": 9}),
    "prompt": ("text", {"prompt": "a red circle"}, {"prompt": "a blue square"}),
    "prompt, with a negative": (
        "text",
        {"prompt": "a red circle", "negative": "a star"},
        {"prompt": "a blue square", "negative": "a star"},
    ),
    "prompt, unguided": ("text", {"prompt": "a red circle", "guidance": 1.0}, {"prompt": "a star", "guidance": 1.0}),
    "prompt and seed": ("text", {"prompt": "a red circle", "eta": 1.0}, {"prompt": "a blue square", "seed": 9}),
    "label": ("class", {"label": "circle"}, {"label": "star"}),
    "label as a vector": ("vector", {"label": 0}, {"label": 2}),
    "prompt of two": ("both", {"prompt": "a", "label": 1}, {"prompt": "a blue square"}),
    "all three": ("both", {"prompt": "a", "label": 1}, {"prompt": "a blue square", "label": 2, "seed": 9}),
}


def way(first: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    names = {"prompt": "to", "label": "to_label", "seed": "to_seed"}
    return first | {names[key]: value for key, value in last.items() if key in names}


@pytest.mark.parametrize("case", WAYS)
def test_a_way_begins_and_ends_with_what_is_drawn_without_it(small: Small, case: str) -> None:
    name, first, last = WAYS[case]
    model = small(name)
    found = levels(model.sample(count=4, first=2, batch=1, **way(first, last)))
    ends = [levels(model.sample(first=2, **options))[0] for options in (first, first | last)]
    assert (found[0] == ends[0]).all()
    assert (found[-1] == ends[1]).all()
    assert len({picture.tobytes() for picture in found}) == 4
    together = levels(model.sample(count=4, first=2, **way(first, last)))
    assert abs(together - found).max() <= 2


def test_a_place_on_the_way_can_be_drawn_alone(small: Small) -> None:
    model = small("text")
    options = {"prompt": "a red circle", "to": "a star", "to_seed": 3, "batch": 1}
    found = levels(model.sample(count=5, first=1, **options))
    (alone,) = levels(model.sample(first=1, at=0.75, **options))
    assert (alone == found[3]).all()
    first, second = levels(model.sample(count=2, first=1, at=0.75, **options))
    assert (first == alone).all()
    assert (second != alone).any()  # another picture of both seeds, at the same place
    assert (levels(model.sample(first=1, at=0, **options)) == found[0]).all()


def test_each_of_several_prompts_has_its_way(small: Small) -> None:
    model = small("text")
    prompts, ends = ["a red circle", "a star"], ["a blue square", "a green star"]
    found = list(generate(model, Request(prompts=prompts, to_prompts=ends, count=3), batch=1))
    assert [each.recipe["prompt"] for each in found] == [prompts[0]] * 3 + [prompts[1]] * 3
    assert [each.recipe["to_prompt"] for each in found] == [ends[0]] * 3 + [ends[1]] * 3
    assert [each.recipe["at"] for each in found] == [0.0, 0.5, 1.0] * 2
    assert [each.index for each in found] == [0, 0, 0, 1, 1, 1]
    for place, texts in ((0, prompts), (2, ends)):
        plain = levels(model.sample(texts, batch=1))
        assert (levels([found[place].picture, found[3 + place].picture]) == plain).all()
    shared = list(generate(model, Request(prompts=prompts, to_prompts=("a heart",), count=2), batch=1))
    assert [each.recipe["to_prompt"] for each in shared] == ["a heart"] * 4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("plain", {"to_seed": 1}, r"a way from one end to the other is a count of 2 pictures or more; `at`"),
        ("plain", {"at": 0.5}, r"`at` is a place between two ends and there is one; give the other: to, to_label"),
        ("plain", {"to_seed": -1, "count": 2}, "to_seed"),
        ("plain", {"to_seed": 1, "at": 1.5}, "at"),
        ("plain", {"to_seed": 1, "at": float("nan")}, "at"),
        ("plain", {"to": "a", "count": 2}, "plain takes no prompt; it is unconditional"),
        ("text", {"to": "a", "count": 2}, "there is a prompt to go to and none to start from; give both"),
        ("text", {"prompt": "a", "to_label": 1, "count": 2}, "text takes no label"),
        ("class", {"label": 1, "to_label": "sta", "count": 2}, r"unknown label 'sta' \(did you mean 'star'\?\)"),
        ("text", {"prompt": ["a", "b", "c"], "to": ["d", "e"], "count": 2}, "2 prompts to go to came for 3; give one"),
    ],
)
def test_ways_that_lead_nowhere(small: Small, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        small(name).sample(**options)
    assert "\n" not in str(caught.value)

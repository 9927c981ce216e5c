"""Grids of times: any count from 1 to T, the original's grids with their faults named, given times."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st

from darkroom.core.errors import InputError
from darkroom.process.schedule import FlowSpec, LinearSpec, build_schedule
from darkroom.process.times import Times, choose_times, earlier, given, original, original_quad, trailing

THOUSAND = build_schedule(LinearSpec())
FLOW = build_schedule(FlowSpec())
FAILING = {3, 9, 27, 36, 37, *range(101, 112), *range(251, 334), *range(501, 1001)}  # of T = 1000


@settings(deadline=None, max_examples=100)
@forall(st.integers(1, 300), st.data())
def test_trailing_takes_any_count(total, data):
    steps = data.draw(st.integers(1, total))
    times = trailing(build_schedule(LinearSpec(steps=total)), steps)
    assert len(times.visited) == steps
    assert times.visited[0] == total - 1
    assert times.visited[-1] >= 0
    assert times.end == -1
    assert (times.visited.diff() < 0).all()


def test_trailing_with_every_step_visits_every_time():
    assert torch.equal(trailing(THOUSAND, 1000).visited, torch.arange(999, -1, -1))


@pytest.mark.parametrize("steps", [1, 7, 16, 32, 50, 61, 80, 160, 400])  # 16, 32, 80, 160 and 400 have halves
def test_trailing_rounds_halves_to_even(steps):
    exact = [round(Fraction(1000 * left, steps)) - 1 for left in range(steps, 0, -1)]
    assert trailing(THOUSAND, steps).visited.tolist() == exact


def test_trailing_in_continuous_time():
    times = trailing(FLOW, 4)
    assert times.visited.tolist() == [1.0, 0.75, 0.5, 0.25]
    assert times.end == 0.0


@pytest.mark.parametrize(("steps", "count"), [(10, 10), (30, 31), (60, 63), (75, 77), (80, 84), (150, 167)])
def test_original_visits_what_the_original_visits(steps, count):
    times = original(THOUSAND, steps)
    assert len(times.visited) == count
    assert times.visited[-1] == 1
    assert times.end == 0
    assert len(original(THOUSAND, 400).visited) == 500


def test_original_fails_exactly_where_the_original_fails():
    for steps in range(1, 1001):
        if steps in FAILING:
            with pytest.raises(InputError, match="nearest counts that work"):
                original(THOUSAND, steps)
        else:
            assert original(THOUSAND, steps).visited[0] <= 999


def test_the_message_names_counts_that_work():
    with pytest.raises(InputError, match="work: 250 and 334"):
        original(THOUSAND, 300)


def test_original_quad_refuses_times_that_coincide():
    times = original_quad(THOUSAND, 20)
    assert len(times.visited) == 20
    assert times.end == 0
    with pytest.raises(InputError, match="coincide"):
        original_quad(THOUSAND, 200)


@pytest.mark.parametrize("name", ["original", "original-quad"])
def test_original_grids_are_discrete(name):
    with pytest.raises(InputError, match="continuous"):
        choose_times(FLOW, name, steps=10)


@pytest.mark.parametrize("name", ["original", "original-quad", "trailing", None])
def test_counts_that_no_grid_has(name):
    with pytest.raises(InputError, match=r"more steps than times: 1001 .* 1000"):
        choose_times(THOUSAND, name, steps=1001)
    with pytest.raises(InputError, match="at least 1"):
        choose_times(THOUSAND, name, steps=0)


def test_continuous_time_has_no_end_of_steps_either():
    with pytest.raises(InputError, match="steps=4611686018427387904 does not fit: at most 1000000 are taken"):
        choose_times(FLOW, None, steps=2**62)


def test_given_times_end_at_clean():
    assert given(THOUSAND, torch.arange(19, -1, -1)).end == -1
    assert len(given(THOUSAND, torch.arange(19, -1, -1)).visited) == 20
    explicit = given(THOUSAND, torch.arange(19, -2, -1))
    assert len(explicit.visited) == 20
    assert explicit.end == -1
    assert given(THOUSAND, torch.tensor([9.6, 3.2])).visited.tolist() == [10, 3]
    flow = given(FLOW, torch.tensor([0.9, 0.5, 0.0]))
    assert len(flow.visited) == 2
    assert flow.end == 0.0


@pytest.mark.parametrize(
    ("visited", "words"),
    [
        (torch.tensor([5, 5, 1]), "strictly decrease"),
        (torch.tensor([5.4, 5.3]), "strictly decrease"),
        (torch.tensor([1, 5]), "strictly decrease"),
        (torch.tensor([1000, 5]), "outside"),
        (torch.tensor([-1]), "strictly decrease"),
        (torch.tensor([], dtype=torch.int64), "empty"),
    ],
)
def test_given_times_that_do_not_fit(visited, words):
    with pytest.raises(InputError, match=words):
        given(THOUSAND, visited)


def test_choosing():
    assert torch.equal(choose_times(THOUSAND, steps=7).visited, trailing(THOUSAND, 7).visited)
    own = Times(torch.tensor([8, 4]), end=2)
    assert choose_times(THOUSAND, own) is own
    assert choose_times(THOUSAND, torch.tensor([8, 4])).end == -1
    with pytest.raises(InputError, match="outside"):
        choose_times(THOUSAND, Times(torch.tensor([2000, 4]), end=2))
    with pytest.raises(InputError, match="did you mean 'trailing'"):
        choose_times(THOUSAND, "trailling", steps=7)


def test_earlier_times_end_at_the_clean_one():
    t = torch.tensor([999, 500, 24, 0])
    assert earlier(THOUSAND, t, distance=0.025).tolist() == [974, 475, -1, -1]
    assert earlier(THOUSAND, t, distance=1e-6).tolist() == [998, 499, 23, -1]
    assert earlier(THOUSAND, t, distance=1.0).tolist() == [-1] * 4
    assert earlier(FLOW, torch.tensor([1.0, 0.5, 0.1]), distance=0.25).tolist() == [0.75, 0.25, 0.0]

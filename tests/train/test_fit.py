"""Fitting a recipe into a time: measured once, then written down."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from darkroom.core.errors import InputError, SpecError
from darkroom.core.record import read_json, write_yaml
from darkroom.core.spec import parse_yaml
from darkroom.recipes.clock import Clock, seconds_before
from darkroom.recipes.given import first_stage_alone
from darkroom.recipes.pace import Pace, pace
from darkroom.recipes.plan import LARGE, fit, plan_of, told
from darkroom.recipes.read import recipe
from darkroom.recipes.resolve import resolve
from darkroom.recipes.run import Run, open_recipe_data
from darkroom.recipes.schema import Recipe
from darkroom.train.events import Advance

SMALL = ["data.count=20", "first_stage.train.batch=2", "denoiser.train.batch=2"]


def measured(made: Recipe) -> Pace:
    splits = open_recipe_data(made.data, seed=made.seed)
    return pace(resolve(made, splits.train).recipe, device="cpu")


def planned(made: Recipe) -> dict[str, Any]:
    splits = open_recipe_data(made.data, seed=made.seed)
    return plan_of(resolve(made, splits.train).recipe, splits, measure=lambda: measured(made))


def unmeasured() -> Pace:
    raise AssertionError("nothing needs measuring")


def test_more_minutes_are_more_steps_and_the_parts_follow(tmp_path: Path) -> None:
    made = recipe("tiny-text", overrides=SMALL)
    found = measured(made)
    short, long = (fit(made, minutes=part, folder=tmp_path / "new", measure=lambda: found) for part in (0.2, 20))
    for stage in ("first_stage", "denoiser"):
        few, many = getattr(short, stage).train, getattr(long, stage).train
        assert 20 <= few.steps < many.steps
    assert short.first_stage.train is not None
    assert short.first_stage.train.warmup <= short.first_stage.train.steps // 10
    assert short.first_stage.train.sample_every <= short.first_stage.train.steps
    changed = {"first_stage": made.first_stage, "denoiser": made.denoiser, "minutes": None}
    assert short.model_copy(update=changed) == made


def test_what_finding_the_pace_took_is_not_there_for_steps(tmp_path: Path) -> None:
    made = recipe("tiny-text", overrides=SMALL)
    found = {"first_stage": 0.01, "denoiser": 0.01}
    whole = fit(made, minutes=2, folder=tmp_path / "new", measure=lambda: found)
    half = fit(made, minutes=2, folder=tmp_path / "new", measure=lambda: found, spent=lambda: 60.0)
    for stage in ("first_stage", "denoiser"):
        steps = [getattr(each, stage).train.steps for each in (whole, half)]
        assert steps[1] == pytest.approx(steps[0] / 2, abs=1)
    late = fit(made, minutes=2, folder=tmp_path / "new", measure=lambda: found, spent=lambda: 600.0)
    assert late.first_stage.train is not None
    assert late.first_stage.train.steps == 20


def test_a_run_keeps_the_steps_it_was_begun_with(tmp_path: Path) -> None:
    made = recipe("tiny-text", overrides=[*SMALL, "minutes=5"])
    first = fit(made, minutes=5, folder=tmp_path, measure=lambda: {"first_stage": 0.5, "denoiser": 0.5})
    begun = Run(first, tmp_path, device="cpu").recipe
    again = Run(fit(made, minutes=5, folder=tmp_path, measure=unmeasured), tmp_path, device="cpu").recipe
    from_file = Run(recipe(str(tmp_path / "recipe.yaml")), tmp_path, device="cpu").recipe
    assert begun == again == from_file
    new = fit(made, minutes=5, folder=None, measure=lambda: {"first_stage": 0.5, "denoiser": 0.5})
    assert new == first  # a plan is not of what lies in a folder
    with pytest.raises(InputError, match=r"minutes was 5\.0 and is 6\.0 now"):
        Run(fit(made, minutes=6, folder=tmp_path, measure=unmeasured), tmp_path, device="cpu")


def test_minutes_on_a_run_of_other_stages_leave_the_refusal_to_the_run(tmp_path: Path) -> None:
    both = recipe("tiny-vq")
    write_yaml(tmp_path / "recipe.yaml", both.plain())
    alone = first_stage_alone(both)
    assert fit(alone, minutes=1, folder=tmp_path, measure=unmeasured).denoiser is None
    with pytest.raises(InputError, match="another recipe was begun here"):
        Run(fit(alone, minutes=1, folder=tmp_path, measure=unmeasured), tmp_path, device="cpu")
    write_yaml(tmp_path / "recipe.yaml", alone.plain())
    assert fit(both, minutes=1, folder=tmp_path, measure=unmeasured).denoiser == both.denoiser


def test_a_plan_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = recipe("shapes-f4", overrides=["first_stage.loss.perceptual=lpips", "data.count=20"])
    plan = planned(asked)
    assert plan["seconds"] is None
    assert "not tried here: LPIPS would have to be downloaded first" in told(plan)
    assert "network" not in told(plan)


@pytest.mark.parametrize("large", [False, True])
def test_a_plan_tells_what_it_costs_and_tries_only_what_fits_a_desk(large: bool, monkeypatch) -> None:
    if large:
        monkeypatch.setattr("darkroom.recipes.plan.LARGE", 10)
    else:
        assert LARGE > 10_000_000
    found = planned(recipe("tiny-text", overrides=SMALL))
    assert (found["seconds"] is None) == large
    words = told(found)
    for word in ("parameters", "operations", "memory", "first_stage", "denoiser"):
        assert word in words
    assert ("too large" in words) == large


def test_the_second_stage_takes_what_time_the_first_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes, 8 % of them kept: two are gone, and a step takes two seconds."""
    few = ["first_stage.train.steps=2", "denoiser.sample.count=1", "denoiser.sample.steps=1"]
    made = recipe("tiny-text", overrides=[*SMALL, *few, "minutes=10"])
    monkeypatch.setattr("darkroom.recipes.clock.denoiser_pace", lambda recipe, device: 2.0)
    run = Run(made, tmp_path, device="cpu", spent=120.0)
    events = run.develop()
    next(event for event in events if isinstance(event, Advance) and event.stage == "denoiser")
    events.close()
    (settled,) = [parse_yaml(path.read_text(), where="recipe") for path in tmp_path.glob("recipe.yaml")]
    steps = settled["denoiser"]["train"]["steps"]
    assert steps == pytest.approx((600 - 120) * 0.92 / 2, abs=8)
    assert settled["denoiser"]["train"]["warmup"] == steps // 10 < 50
    monkeypatch.setattr("darkroom.recipes.clock.denoiser_pace", unmeasured)
    again = fit(made, minutes=10, folder=tmp_path, measure=unmeasured)
    event = next(
        event
        for event in Run(again, tmp_path, device="cpu").develop()
        if isinstance(event, Advance) and event.stage == "denoiser"
    )
    assert (event.total, event.progress.step) == (steps, 2)


def test_a_wrong_pace_is_mended_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute a step was measured, two seconds it takes: ten minutes, 4 % of them kept, hold 288 steps."""
    few = ["first_stage.train.steps=2", "denoiser.sample.count=1", "denoiser.sample.steps=1"]
    made = recipe("tiny-text", overrides=[*SMALL, *few, "minutes=10"])
    monkeypatch.setattr("darkroom.recipes.clock.denoiser_pace", lambda recipe, device: 27.6)
    monkeypatch.setattr("darkroom.recipes.clock.time", SimpleNamespace(monotonic=lambda: 0.0))  # of that room alone
    monkeypatch.setattr(Clock, "_seconds", lambda _, stage: 10.0 if stage == "denoiser" else 0.0)
    events = Run(made, tmp_path, device="cpu").develop()
    totals = {
        event.progress.step: event.total
        for event in itertools.takewhile(lambda event: not (isinstance(event, Advance) and event.total > 20), events)
        if isinstance(event, Advance) and event.stage == "denoiser"
    }
    assert totals == dict.fromkeys(range(1, 5), 20)
    events.close()
    train = parse_yaml((tmp_path / "recipe.yaml").read_text(), where="recipe")["denoiser"]["train"]
    assert (train["steps"], train["warmup"], train["sample_every"], train["save_every"]) == (288, 2, 72, 7)
    decided = read_json(tmp_path / "denoiser" / "pace.json")
    assert decided == {
        "at": 5,
        "steps": 288,
        "seconds_used": 10.0,
        "seconds_before": 0.0,
        "seconds_of_a_step": 2.0,
    }
    again = Run(fit(made, minutes=10, folder=tmp_path, measure=unmeasured), tmp_path, device="cpu")
    event = next(event for event in again.develop() if isinstance(event, Advance))
    assert (event.total, event.progress.step) == (288, 6)


def test_a_run_that_was_killed_gains_no_time_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute went into encoding and three into 90 steps, then it was killed: of ten minutes 5.6 are left."""
    made = recipe("tiny-text", overrides=[*SMALL, "minutes=10"])
    monkeypatch.setattr("darkroom.recipes.clock.denoiser_pace", lambda recipe, device: 2.0)
    monkeypatch.setattr("darkroom.recipes.clock.time", SimpleNamespace(monotonic=lambda: 0.0))
    settled = Clock(tmp_path, spent=60.0).settled(made, device="cpu")
    assert seconds_before(tmp_path / "denoiser") == 60.0
    monkeypatch.setattr(Clock, "_seconds", lambda _, stage: 180.0 if stage == "denoiser" else 0.0)
    for _ in range(2):  # what is settled anew does not forget it
        settled = Clock(tmp_path, spent=1.0).settled_again(settled, step=90)
        assert settled.denoiser is not None
        assert settled.denoiser.train is not None
        assert settled.denoiser.train.steps == 90 + int((600 * 0.96 - 240) / 2)
        assert read_json(tmp_path / "denoiser" / "pace.json")["seconds_used"] == 240.0


def test_what_cannot_be_tried_cannot_be_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.recipes.plan.LARGE", 10)
    with pytest.raises(SpecError, match="minutes=5 cannot be fitted: too large; say how many steps"):
        fit(recipe("tiny-text", overrides=SMALL), minutes=5, folder=tmp_path, measure=unmeasured)

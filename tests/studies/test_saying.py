"""What studies say of how they were made: lengths of trainings, cells that do not compare, numbers in tables."""

from typing import Any

import pytest

from darkroom.studies.compression import _of_bias
from darkroom.studies.lengths import minutes_of, said_of_lengths, slowed, speed_of
from darkroom.studies.models import asks
from darkroom.studies.reading import short
from darkroom.studies.wishes import Wishes


def card(**protocol: Any) -> dict[str, Any]:
    """Of a quality cell, as JSON values."""
    return {
        "figures": [],
        "subject": {"name": "model", "weights_hash": protocol.pop("weights", "w0")},
        "versions": {"torch": "2.13.0"},
        "notes": protocol.pop("notes", []),
        "protocol": {
            "kind": "set",
            "count": 40,
            "reference": {"name": "faces", "split": "test", "pictures": 90, "hash": "abc"},
            "sampling": {"seed": 3, "steps": 10},
            "networks": [{"name": "judge", "hash": "f00", "preprocessing": {}}],
            **protocol,
        },
    }


def test_cells_that_were_measured_alike_say_so_once() -> None:
    found = {"a": card(notes=["few"]), "b": card(sampling={"seed": 3, "steps": 20}, notes=["few"])}
    found["pace"] = {"drawn_per_second": 3.0, "notes": ["busy"]}
    assert asks(found) == (
        "40 pictures of each cell beside 90 of faces (test), seed 3; seen through judge f00; model model, weights w0.",
        "few",
        "busy",
    )


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"count": 50}, "b does not compare with a: count (40 here, 50 there)."),
        (
            {"reference": {"name": "faces", "split": "test", "pictures": 91, "hash": "abd"}},
            "b does not compare with a: reference.pictures (90 here, 91 there).",
        ),
        ({"weights": "w1"}, "The model model changed while the study was made: it had the weights w0, w1."),
    ],
)
def test_a_cell_that_was_measured_otherwise_is_named(other: dict[str, Any], sentence: str) -> None:
    assert sentence in asks({"a": card(), "b": card(**other)})


def test_several_networks_are_told_apart() -> None:
    two = [{"name": name, "hash": "f00", "preprocessing": {}} for name in ("judge", "inception")]
    assert (
        "seen through judge f00, inception f00, of which tables and plots show judge"
        in asks({"a": card(networks=two)})[0]
    )


def trained(seconds: float) -> dict[str, Any]:
    return {"stages": {"denoiser": {"seconds": seconds}}}


@pytest.mark.parametrize(
    ("asked", "seconds", "sentence"),
    [
        (Wishes(minutes=9), (60, 63), "Denoisers were given equal time"),
        (Wishes(minutes=9), (60, 90), "The times of denoisers differ all the same, from 1 minutes (a) to 1.5 (b)"),
        (Wishes(steps=9), (60, 90), "Every training made 9 steps, so neither time"),
        (Wishes(), (60, 90), "Trainings had the steps of the folder's recipe each"),
    ],
)
def test_only_what_was_equal_is_called_equal(asked: Wishes, seconds: tuple[float, float], sentence: str) -> None:
    found = {"a": trained(seconds[0]), "b": trained(seconds[1])}
    said = said_of_lengths(asked, found, models=["a", "b", "not made yet"])
    assert sentence in said[-1]
    assert len(said) == 1 + sentence.startswith("The times")


def test_first_stages_that_were_not_equal_are_told_too() -> None:
    found = {
        **{name: {"stages": {"first_stage": {"seconds": 60.0 * minutes}}} for name, minutes in (("f", 2), ("g", 3))},
        **{name: trained(60) for name in ("a", "b")},
    }
    said = said_of_lengths(Wishes(minutes=9), found, models=["a", "b"])
    assert said[1:] == (
        "The times of first stages differ all the same, from 2 minutes (f) to 3 (g): figures do not compare as they "
        "should.",
    )


@pytest.mark.parametrize(
    ("real", "sentence"),
    [
        ({"protocol": {"count": 256}}, "held-out-pictures show: a perfect model comes as near as they do"),
        ({"protocol": {"count": 25}}, "held-out-pictures are only 25, so theirs is larger"),
        ({"notes": ["too few"]}, "brings 'distance lower' nearer to 1."),
    ],
)
def test_what_held_out_pictures_say_of_a_perfect_model(real: dict[str, Any], sentence: str) -> None:
    assert sentence in _of_bias(real, count=256)
    assert ("held-out" in _of_bias(real, count=256)) == ("protocol" in real)


def test_speed_is_that_of_training_and_not_of_looking() -> None:
    lines = [
        {"step": 1, "seconds": 5.0},  # compiled here
        {"step": 50, "seconds": 9.9},
        {"step": 50, "validation_loss": 1.0},
        {"step": 100, "seconds": 34.9},  # 20 seconds of these were a look
        {"step": 150, "seconds": 39.9},
        {"step": 200, "seconds": 44.9},
    ]
    assert speed_of(lines, batch=8) == pytest.approx(80)
    assert speed_of(lines[:1], batch=8) == pytest.approx(8 / 5)
    assert speed_of([], batch=8) is None


def test_a_training_that_was_disturbed_is_told() -> None:
    steady = [{"step": 50 * (row + 1), "seconds": 5.0 * (row + 1)} for row in range(6)]
    assert slowed(steady, batch=8) is None
    busy = [*steady, *({"step": 350 + 50 * row, "seconds": 40.0 + 10.0 * row} for row in range(8))]
    assert slowed(busy, batch=8) == (
        "40 pictures a second were usual in training, 80 at best: other work was in the way"
    )
    assert slowed(busy[-3:], batch=8) is None  # too little is known


def test_minutes_have_what_came_before_the_first_step_in_them() -> None:
    found = {"stages": {"denoiser": {"seconds": 60.0, "before": 30.0}}}
    assert minutes_of(found, stage="denoiser") == 1.5
    assert minutes_of(found, stage="first_stage") is None


def test_numbers_of_tables_can_be_read() -> None:
    assert [short(value) for value in (None, 0.123456, 69.82, 9876.5, 9999.7, 12345.6, -20000)] == [
        "–",
        "0.1235",
        "69.82",
        "9876",
        "10,000",
        "12,346",
        "-20,000",
    ]

"""Specs: unknown keys refused with a near one, overrides, no loss through plain values."""

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import PositiveInt

from darkroom.core.errors import SpecError, did_you_mean
from darkroom.core.spec import Spec, override, parse, parse_yaml
from darkroom.recipes.read import recipe
from darkroom.recipes.schema import DataSpec, Recipe


def test_unknown_key_names_the_place_and_a_near_one() -> None:
    values = recipe("tiny-text").plain()
    values["denoiser"]["network"]["chanels"] = 3
    with pytest.raises(
        SpecError, match=r"here: unknown key 'denoiser\.network\.chanels' \(did you mean 'channels'\?\)"
    ):
        parse(Recipe, values, where="here")


def test_a_union_member_is_named_as_a_person_writes_it() -> None:
    values = override(recipe("tiny-text").plain(), ["first_stage.model.chanels=3"])
    with pytest.raises(SpecError, match=r"'first_stage\.model\.chanels' \(did you mean 'channels'\?\)"):
        parse(Recipe, values, where="x")
    values = override(recipe("tiny-text").plain(), ["denoiser.conditioners.0.encoder.length=-1"])
    with pytest.raises(SpecError, match=r"'denoiser\.conditioners\.0\.encoder\.length': input should be greater"):
        parse(Recipe, values, where="x")


class _Levels(Spec):
    levels: PositiveInt | tuple[PositiveInt, ...]


def test_a_plain_member_of_a_union_leaves_the_key_alone() -> None:
    with pytest.raises(SpecError, match=r"^x: 'levels': input should be greater than 0"):
        parse(_Levels, {"levels": 0}, where="x")


def test_unknown_kind_offers_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"unknown kind 'autoencodr' \(did you mean 'autoencoder'\?\)"):
        parse(Recipe, override(recipe("tiny-text").plain(), ["first_stage.model.kind=autoencodr"]), where="x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], "a mapping of keys is needed, list came"),
        ({}, "'size' is missing"),
        ({"size": 0}, "'size': input should be greater than 0"),
        ({"size": 64, "crop": "left"}, "'crop': input should be 'centre' or 'random'"),
    ],
)
def test_each_fault_is_one_sentence(data: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(DataSpec, data, where="data.yaml")
    assert str(caught.value).startswith("data.yaml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_together_is_said_without_all_its_parts() -> None:
    values = override(recipe("tiny-text").plain(), ["denoiser.network.in_channels=9"])
    with pytest.raises(SpecError) as caught:
        parse(Recipe, values, where="mine.yaml")
    assert str(caught.value) == "mine.yaml: network.in_channels is 9, 4 latent and 0 plane channels enter it"


def test_plain_values_carry_everything() -> None:
    made = recipe("tiny-text")
    assert parse(Recipe, made.plain(), where="again") == made


def test_overrides_reach_into_lists_of_keys_and_leave_the_original() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}}
    assert override(before, ["a.b=2.5", "a.d=null", "e.f=[3]"]) == {
        "a": {"b": 2.5, "c": [1, 2], "d": None},
        "e": {"f": [3]},
    }
    assert override(before, ["a.c.1=5"]) == {"a": {"b": 1, "c": [1, 5]}}
    assert before == {"a": {"b": 1, "c": [1, 2]}}


@pytest.mark.parametrize("wrong", ["a.b", "=3", "a.b.c=1", "a.c.2=1", "a.c.x=1", "a.c.²=1"])
def test_a_wrong_override_is_refused(wrong: str) -> None:
    with pytest.raises(SpecError):
        override({"a": {"b": 1, "c": [1, 2]}}, [wrong])


def test_broken_yaml_names_its_line() -> None:
    with pytest.raises(SpecError, match=r"f\.yaml: not valid YAML at line 2"):
        parse_yaml("a: 1\nb: [", where="f.yaml")


@pytest.mark.parametrize("text", ["2020-99-99", "!!bool x", "!!timestamp x", "!!int ''", "9" * 5000, "[" * 5000])
def test_what_yaml_stumbles_over_is_a_sentence(text: str) -> None:
    with pytest.raises(SpecError, match=r"^data\.license: not valid YAML"):
        parse_yaml(text, where="data.license")


def test_a_key_that_stands_twice_is_named() -> None:
    for text in ("a: 1\nb: {c: 2,\n c: 3}", "- c: 1\n  c: 1\n"):
        with pytest.raises(SpecError, match=r"^f\.yaml: key 'c' stands twice, the second time at line [23]$"):
            parse_yaml(text, where="f.yaml")
    assert parse_yaml("a: &a {c: 1}\nb: {<<: *a, <<: *a, c: 2}\n1: x\n'1': y", where="f.yaml") == {
        "a": {"c": 1},
        "b": {"c": 2},
        1: "x",
        "1": "y",
    }


def test_aliases_that_would_be_written_out_for_ever() -> None:
    bomb = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    for text in (bomb, "a: &a [*a]"):
        with pytest.raises(SpecError, match="more than 1000 values with its aliases written out"):
            parse_yaml(text, where="f.yaml", most=1000)
    assert parse_yaml("a: &a [1]\nb: *a", where="f.yaml") == {"a": [1], "b": [1]}


@given(st.text(min_size=1, max_size=12), st.lists(st.text(min_size=1, max_size=12), max_size=5))
def test_hints_never_fail(word: str, options: list[str]) -> None:
    hint = did_you_mean(word, options)
    assert hint == "" or any(option in hint or repr(option) in hint for option in options)


def test_a_word_as_long_as_a_book_is_near_to_nothing() -> None:
    """Comparing it would take seconds and, for the places of its letters, many times its memory."""
    assert did_you_mean("step" * 10**6, ["steps"]) == " (known: steps)"


def test_a_field_that_came_later_is_written_where_it_is_used() -> None:
    """Specs are hashed, and pictures name the hash of their model: a new field must not rename old ones."""

    class Thing(Spec):
        written_where_used: ClassVar = frozenset({"wings"})
        legs: int = 4
        wings: int = 0

    class Pair(Spec):
        one: Thing = Thing()

    assert Pair().plain() == {"one": {"legs": 4}}
    flying = Pair(one=Thing(wings=2))
    assert flying.plain() == {"one": {"legs": 4, "wings": 2}}
    assert parse(Pair, flying.plain(), where="again") == flying


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("denoiser.schedule={kind: linear, zero_terminal_snr: true, end: .inf}", "denoiser.schedule.end"),
        ("denoiser.train.clip=.inf", "denoiser.train.clip"),
        ("denoiser.train.betas=[0.9, 1.0]", "denoiser.train.betas.1"),
        ("denoiser.network.time_scale=.nan", "denoiser.network.time_scale"),
        ("denoiser.network.time_scale=0", "denoiser.network.time_scale"),
    ],
)
def test_numbers_that_spoil_all_others_are_refused(change: str, place: str) -> None:
    with pytest.raises(SpecError, match=rf"x: '{place}': input should be"):
        parse(Recipe, override(recipe("tiny-text").plain(), [change]), where="x")


def test_a_number_that_python_does_not_write_is_refused_in_words() -> None:
    change = "denoiser.train.steps=-0x" + "f" * 5000
    with pytest.raises(SpecError, match="a number of thousands of digits came"):
        parse(Recipe, override(recipe("tiny-text").plain(), [change]), where="x")


def test_a_place_in_a_list_is_a_number_as_int_reads_it() -> None:
    with pytest.raises(SpecError, match="'²' does not fit, this list has places"):
        override({"conditioners": [{"drop": 0.1}]}, ["conditioners.².drop=0.2"])

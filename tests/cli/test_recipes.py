"""`darkroom recipes` lists, shows and answers in JSON."""

import json

import pytest
import yaml

from darkroom.cli.main import main
from darkroom.core.spec import parse
from darkroom.recipes.read import names, recipe
from darkroom.recipes.schema import Recipe


def test_the_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and recipe(name).summary in shown for name in names())
    assert "55.31 M" in shown


def test_one_is_shown_as_yaml_that_can_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "CIN256_V2"]) == 0
    shown = capsys.readouterr().out
    assert parse(Recipe, yaml.safe_load(shown), where="shown") == recipe("cin256-v2")
    assert "# steered by: label" in shown
    assert "network 400.92 M" in shown


def test_one_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "kl_f8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "kl-f8"
    assert found["parameters"] == {"first_stage": 83_653_863, "network": 0, "conditioner": 0}
    assert {"summary", "flops", "memory", "fields"} <= found.keys()


def test_all_in_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.recipes.read.names", lambda: ["tiny-vq", "tiny-text"])
    assert main(["recipes", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["tiny-vq", "tiny-text"]


def test_an_unknown_one_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "kl-f9"]) == 2
    assert "did you mean 'kl-f" in capsys.readouterr().err

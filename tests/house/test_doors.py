"""A request is asked for in Python, by the command and over HTTP: every field of it at every door, by one name."""

from inspect import signature
from typing import Any

import pytest

from darkroom.cli.main import main
from darkroom.serve.asked import Ask
from darkroom.tasks import model as python_door
from darkroom.tasks import request as room
from darkroom.tasks.model import Model
from darkroom.tasks.request import EACH, Request, Settings

NAMES = {"to" if name == "to_prompt" else name for name in EACH}
NAMES |= {*Settings.model_fields, "count", "seed", "size", "guidance_interval"}


class Came(Exception):
    """What a door hands on."""


def caught(asked: Any) -> None:
    raise Came(*asked)


def test_a_request_has_these_fields_and_no_others() -> None:
    assert {*Request.model_fields} == {*EACH.values()} | {name for name in NAMES if name not in {"to", *EACH}}


def test_python_asks_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_door, "given", caught)
    with pytest.raises(Came) as came:
        Model.sample(object.__new__(Model))
    assert {*came.value.args} == NAMES
    assert {*signature(Model.sample).parameters} - NAMES == {"self", "like", "batch", "on_step"}


def test_the_command_asks_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "given", caught)
    with pytest.raises(Came) as came:
        main(["sample"])
    assert {*came.value.args} == NAMES


def test_the_server_asks_for_all_of_them() -> None:
    assert {*Ask.model_fields} == {*NAMES, "model"}

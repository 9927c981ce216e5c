"""What the command answers is JSON for every reader, whatever stands in it."""

import json
import math

import pytest

from darkroom.cli.answers import say, say_json


def test_what_json_has_no_word_for(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"loss": math.nan, "all": [math.inf, 1.5, (2,)], "name": "é \udcff"})
    told = capsys.readouterr().out
    assert "é" in told
    strict = json.loads(told, parse_constant=pytest.fail)
    assert strict == {"loss": None, "all": [None, 1.5, [2]], "name": "é \udcff"}


def test_words_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    say("one picture", {"pictures": 1}, as_json=False)
    say("one picture", {"pictures": 1}, as_json=True)
    assert capsys.readouterr().out == 'one picture\n{\n  "pictures": 1\n}\n'

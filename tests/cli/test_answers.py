"""What the command answers is JSON for every reader, whatever stands in it."""

import json
import math

import pytest

from darkroom.cli.answers import note, say, say_json
from darkroom.cli.watch import Line


def test_what_json_has_no_word_for(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"loss": math.nan, "all": [math.inf, 1.5, (2,)], "name": "é \udcff \x9b"})
    told = capsys.readouterr().out
    assert "é" in told
    assert "\x9b" not in told
    strict = json.loads(told, parse_constant=pytest.fail)
    assert strict == {"loss": None, "all": [None, 1.5, [2]], "name": "é \udcff \x9b"}


def test_words_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    say("one picture", {"pictures": 1}, as_json=False)
    say("one picture", {"pictures": 1}, as_json=True)
    assert capsys.readouterr().out == 'one picture\n{\n  "pictures": 1\n}\n'


STEERING = "a \x1b[2Jb \u202e\N{NO-BREAK SPACE}é\n  c"


def test_what_strangers_write_does_not_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of classes, captions and recipes stand in answers; their lines and letters stay as they are."""
    say(STEERING, {}, as_json=False)
    note(STEERING)
    Line().say(STEERING)
    Line().show(STEERING, last=True)
    seen, shown = capsys.readouterr(), "a \\u001b[2Jb \\u202e\N{NO-BREAK SPACE}é\n  c\n"
    assert (seen.out, seen.err) == (shown, f"note: {shown}{shown}{shown}")

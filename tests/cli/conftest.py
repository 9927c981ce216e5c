"""One command line at a time, as a person sees it."""

from collections.abc import Callable

import pytest

from darkroom.cli.main import main

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run one command line: exit code, what it printed, what it complained about."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call


@pytest.fixture
def refused(say: Say) -> Callable[..., str]:
    """Run a command line that must be refused with code 2 and one sentence, which is answered."""

    def call(*words: object) -> str:
        code, out, complaint = say(*words)
        assert (code, out) == (2, "")
        assert complaint.startswith("darkroom: ")
        assert complaint.count("\n") == 1, complaint
        return complaint

    return call

"""The command line answers with sentences and exit codes, never with a traceback."""

import io
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import pytest
import typer

import darkroom
from darkroom.cli import main as door
from darkroom.cli.main import VERBS, command, main
from darkroom.core.errors import SpecError, TrainingError
from darkroom.core.spec import Spec

Verb = Callable[[Callable[..., object]], None]


@pytest.fixture
def models_does(monkeypatch: pytest.MonkeyPatch) -> Verb:
    """Put a function in the place of what `darkroom models` does."""

    def put(act: Callable[..., object]) -> None:
        def run(
            name: Annotated[str | None, typer.Argument(help="Which one.")] = None,
            *,
            count: Annotated[int, typer.Option(help="How many.", min=1)] = 1,
        ) -> None:
            """Show a stand-in."""
            act(name, count)

        module = types.SimpleNamespace(run=run, EXAMPLE="darkroom models tiny --count 3")
        monkeypatch.setitem(sys.modules, "darkroom.cli.models", module)

    return put


def fails(error: BaseException) -> Callable[..., object]:
    def act(*_: object) -> None:
        raise error

    return act


def test_the_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="darkroom")
    assert script.load() is command


def test_the_process_ends_with_the_code_of_its_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["darkroom", "nonsense"])
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 2


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown and summary in shown for verb, summary in VERBS.items())


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"darkroom {darkroom.__version__}\n"


def test_the_words_of_the_process_are_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["darkroom", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("darkroom ")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    usage, _, example = capsys.readouterr().out.partition("Example:")
    assert f"Usage: darkroom {verb}" in usage
    assert f"darkroom {verb}" in example


def test_arguments_options_and_example_reach_the_verb(models_does: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    came: list[object] = []
    models_does(lambda *values: came.extend(values))
    assert main(["models", "tiny", "--count", "3"]) == 0
    assert came == ["tiny", 3]
    assert main(["models", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Show a stand-in." in shown
    assert "--count" in shown
    assert "Example:\n    darkroom models tiny --count 3" in shown


class Size(Spec):
    width: int


def test_a_value_of_the_wrong_kind_is_a_sentence(models_does: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    models_does(lambda *_: Size.model_validate({"width": "wide"}))
    assert main(["models"]) == 2
    assert capsys.readouterr().err.startswith("darkroom: Size: width: ")


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (SpecError("unknown key 'stepz'"), 2, "darkroom: unknown key 'stepz'\n"),
        (SpecError("two\n  lines"), 2, "darkroom: two lines\n"),
        (SpecError("type \x1b[2j\udcff"), 2, "darkroom: type \\u001b[2j\\udcff\n"),
        (TrainingError("the loss is not finite"), 1, "darkroom: the loss is not finite\n"),
        (KeyboardInterrupt(), 130, "darkroom: stopped; what was written is kept\n"),
        (PermissionError(13, "Permission denied", "a.png"), 2, "darkroom: a.png: permission denied\n"),
        (OSError(28, "No space left on device"), 2, "darkroom: no space left on device\n"),
        (
            typer.BadParameter("no such place"),
            2,
            "darkroom: invalid value: no such place; see darkroom models --help\n",
        ),
    ],
)
def test_an_error_is_one_sentence(
    models_does: Verb, capsys: pytest.CaptureFixture[str], *, error: BaseException, code: int, sentence: str
) -> None:
    models_does(fails(error))
    assert main(["models"]) == code
    seen = capsys.readouterr()
    assert (seen.out, seen.err.lower()) == ("", sentence)


def test_what_a_terminal_cannot_show_ends_nothing(models_does: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    models_does(lambda *_: typer.echo("a – b, \udcff"))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["darkroom", "models"])
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 0
    assert stream.buffer.getvalue() == rb"a \u2013 b, \udcff" + b"\n"


def test_a_fault_of_ours_keeps_its_traceback(models_does: Verb) -> None:
    models_does(fails(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        main(["models"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sampel"], "unknown verb 'sampel' (did you mean 'sample'?); see darkroom --help"),
        (["zzz"], f"unknown verb 'zzz' (known: {', '.join(sorted(VERBS))}); see darkroom --help"),
        (["--bogus"], "no such option: --bogus; see darkroom --help"),
        (["models", "--cuont", "3"], "see darkroom models --help"),
        (["models", "--count", "many"], "'--count'"),
        (["models", "--count", "0"], "'--count'"),
    ],
)
def test_a_wrong_word_is_refused_in_one_sentence(
    models_does: Verb, capsys: pytest.CaptureFixture[str], *, words: list[str], sentence: str
) -> None:
    models_does(lambda *_: None)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("darkroom: ")
    assert sentence in said
    assert said.count("\n") == 1


def test_only_the_called_verb_is_imported(models_does: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    models_does(lambda *_: None)
    asked: list[str] = []
    original = door.import_module
    monkeypatch.setattr(door, "import_module", lambda name: asked.append(name) or original(name))
    assert main(["models"]) == 0
    assert asked == ["darkroom.cli.models"]


def test_a_reader_who_leaves_early_is_no_error() -> None:
    script = '"$0" -m darkroom.cli.main --help | true'
    done = subprocess.run(["bash", "-c", script, sys.executable], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_a_broken_pipe_is_quiet(models_does: Verb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    models_does(lambda *_: None)
    with (tmp_path / "closed").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", Leaving(stream.fileno()))
        assert main(["models"]) == 1


class Leaving:
    """A stream whose reader has gone."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        raise BrokenPipeError


def test_what_several_processes_cannot_share_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["reconstruct", "shapes-f8", "pictures"]) == 2
    assert capsys.readouterr().err == (
        "darkroom: only train, sample and evaluate are shared by several processes yet; run this without torchrun\n"
    )

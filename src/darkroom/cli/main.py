"""The command `darkroom`: finds the verb, imports its module alone, and turns errors into one sentence.

A verb is a module `darkroom.cli.VERB` with two names:

    EXAMPLE = "darkroom VERB ..."          one or more lines, shown at the end of `darkroom VERB --help`
    def run(...) -> None: ...              a typer command: arguments and options are its annotated parameters

Modules of verbs import their heavy rooms inside `run`, so that `--help` answers at once.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Generator, Sequence
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from darkroom import __version__
from darkroom.core.errors import DarkroomError, InputError, NotYetError, did_you_mean, harmless
from darkroom.core.memory import keep_freed_memory, leave_at_once

VERBS = {
    "sample": "Make pictures with a model.",
    "train": "Train a model from a folder or a recipe; run again to go on.",
    "evaluate": "Measure pictures, a model or a first stage.",
    "reconstruct": "Send pictures through a first stage and back.",
    "inspect": "Say what a model, data set, run or picture is.",
    "convert": "Write a model in another format.",
    "recipes": "List the built-in recipes, or show one.",
    "models": "List the built-in models, or show one.",
    "study": "Carry out one of the paper's experiments on your data.",
    "vote": "Ask people in a browser which of two pictures is better.",
    "serve": "Answer over HTTP: every task, jobs with progress and previews.",
}
SHARED = ("train", "sample", "evaluate")  # verbs that several processes carry out together

DONE, FAILED, REFUSED, STOPPED = 0, 1, 2, 130


def command() -> NoReturn:
    """The process `darkroom`: it ends with the exit code of its command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold bytes that are no text, terminals lack letters
        sys.stdout.reconfigure(errors="backslashreplace")
    code = main()
    if not _is_alone():
        from darkroom.core.parallel import leave

        leave(code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and answer its exit code.

    0 done · 1 a run had to stop · 2 what was asked for does not fit · 130 stopped by Ctrl-C.
    """
    keep_freed_memory()
    leave_at_once()
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        with _with_others(words):
            code = _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = STOPPED
    except DarkroomError as error:
        code = REFUSED if isinstance(error, InputError) else FAILED
        return code if error.told else _say(str(error), code=code)
    except BrokenPipeError:
        return _quiet()
    except (typer.TyperException, ValidationError, OSError) as error:
        return _say(_complaint(error), code=REFUSED)
    if code == STOPPED:
        return _say("stopped; what was written is kept", code=STOPPED)
    return code


@contextlib.contextmanager
def _with_others(words: Sequence[str]) -> Generator[None]:
    """Within the block this process works with the others that `torchrun` started, and only the first one speaks."""
    if _is_alone():
        yield
        return
    if not words or words[0] not in SHARED:
        shared = f"{', '.join(SHARED[:-1])} and {SHARED[-1]}"
        raise NotYetError(f"only {shared} are shared by several processes yet; run this without torchrun")
    from darkroom.core.parallel import is_first, together

    with contextlib.ExitStack() as stack:
        stack.enter_context(together())
        if not is_first():
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _is_alone() -> bool:
    """Is this the only process? Asked before torch is imported."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1


def _dispatch(words: list[str]) -> int:
    verb = words[0] if words and not words[0].startswith("-") else None
    if verb is not None and verb not in VERBS:
        raise InputError(f"unknown verb {verb!r}{did_you_mean(verb, VERBS)}; see darkroom --help")
    # Outside standalone mode typer raises its errors, and answers the code of an Exit (130 after Ctrl-C).
    answer = _application(verb)(words or ["--help"], prog_name="darkroom", standalone_mode=False)
    return answer if isinstance(answer, int) else DONE


def _application(called: str | None) -> typer.Typer:
    """The typer application with the called verb in full; the others are only names in the list."""
    application = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        callback=_root,
        subcommand_metavar="VERB ...",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        epilog="`darkroom VERB --help` shows the options of a verb and an example.",
    )
    for verb, summary in VERBS.items():
        module = import_module(f"darkroom.cli.{verb}") if verb == called else None
        run: Callable[..., None] = _named_only if module is None else module.run
        epilog = None if module is None else _example(module.EXAMPLE)
        application.command(verb, short_help=summary, epilog=epilog)(run)
    return application


def _named_only() -> None:
    """Stands for a verb that was not called."""


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"darkroom {__version__}")
        raise typer.Exit
    return wanted


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version and leave.")
]


def _root(*, version: Version = False) -> None:
    """Train, sample, evaluate and serve latent diffusion models."""


def _example(text: str) -> str:
    """An epilog whose lines are kept as they are (`\\b` forbids typer to fill the paragraph)."""
    lines = "\n".join(f"  {line}" for line in cleandoc(text).splitlines())
    return f"\b\nExample:\n{lines}"


def _complaint(error: typer.TyperException | ValidationError | OSError) -> str:
    """What is said of an error that is none of ours."""
    match error:
        case ValidationError():
            return _first(error)
        case OSError():
            return _of_system(error)
        case _:
            return _usage(error)


def _usage(error: typer.TyperException) -> str:
    """What is wrong with the command line, and which help would tell."""
    context = getattr(error, "ctx", None)
    asked = "darkroom" if context is None else context.command_path
    message = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    return f"{message[:1].lower()}{message[1:]}; see {asked} --help"


def _of_system(error: OSError) -> str:
    """What the system does not let us do, and with which file: a name, a right or a disk that nobody looked at."""
    reason = error.strerror or str(error) or type(error).__name__
    place = "" if error.filename is None else f"{error.filename}: "
    return f"{place}{reason[:1].lower()}{reason[1:]}"


def _first(error: ValidationError) -> str:
    """The first complaint of a pydantic value that was built without `core.spec.parse`."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{error.title}: {place}: {first['msg']}" if place else f"{error.title}: {first['msg']}"


def _say(sentence: str, *, code: int) -> int:
    print(f"darkroom: {harmless(' '.join(sentence.split()))}", file=sys.stderr)
    return code


def _quiet() -> int:
    """The reader of our output has left (`| head`): nothing more to say, not even when the streams close."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


if __name__ == "__main__":
    command()

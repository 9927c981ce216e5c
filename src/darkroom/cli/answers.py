"""What the command says: words for people that steer no terminal, or one JSON value for programs."""

import json
import math
from typing import Any

import typer

from darkroom.core.errors import harmless


def say(words: str, value: object, *, as_json: bool) -> None:
    """Print an answer in words, or as JSON."""
    if as_json:
        say_json(value)
    else:
        say_words(words)


def say_words(words: str, *, aside: bool = False) -> None:
    """Print lines that a stranger's files may have a part in. aside: to stderr, beside the answer."""
    typer.echo(harmless(words), err=aside)


def note(sentence: str) -> None:
    """Print a sentence that whoever reads the answer should know."""
    say_words(f"note: {sentence}", aside=True)


def say_json(value: object) -> None:
    """Print a value as JSON that every reader takes; null stands for numbers that are not finite."""
    say_words(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value

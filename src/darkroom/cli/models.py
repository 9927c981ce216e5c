"""`darkroom models`: the models that come with the package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = """
darkroom models
darkroom models emoji --json
"""


def run(
    name: Annotated[str | None, typer.Argument(help="A model; without one, all are listed.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """List the built-in models, or show one."""
    from darkroom.cli.answers import say_json, say_words
    from darkroom.cli.inspect import in_lines
    from darkroom.core.errors import ModelFileError, did_you_mean
    from darkroom.tasks.find import built_in

    known = built_in()
    if name is not None and name not in known:
        raise ModelFileError(f"no built-in model {name!r}{did_you_mean(name, known)}")
    if as_json:
        say_json(_entry(name, known[name]) if name else [_entry(*each) for each in known.items()])
    elif name:
        say_words("\n".join(in_lines(_entry(name, known[name]))))
    else:
        _list(known)


def _list(known: Mapping[str, Path]) -> None:
    """A line each, of what their headers say: what a model costs takes its network to tell, and is not shown here."""
    from darkroom.checkpoint.store import read_header

    for name, path in known.items():
        summary = read_header(path).card.get("summary", "")
        typer.echo(f"{name:<15} {path.stat().st_size / 1e6:>5.1f} MB  {summary}")


def _entry(name: str, path: Path) -> dict[str, Any]:
    from darkroom.checkpoint.store import read_header
    from darkroom.diffusion.model import ModelSpec
    from darkroom.recipes.describe import describe_model

    header = read_header(path)
    whole = isinstance(header.spec, ModelSpec)
    return {
        "name": name,
        "kind": "model" if whole else "first stage",
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "fields": list(header.spec.fields) if whole else [],
        **describe_model(header.spec, size=None if whole else header.card.get("data", {}).get("size")),
        "card": header.card,
    }

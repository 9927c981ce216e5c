"""`darkroom recipes`: the experiments that come with the package, and what they would cost."""

from typing import Annotated, Any

import typer

EXAMPLE = """
darkroom recipes
darkroom recipes cin256-v2
darkroom recipes tiny-text --json
"""


def run(
    name: Annotated[str | None, typer.Argument(help="A recipe or its YAML file; without one, all.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """List the built-in recipes, or show one as YAML with its size and cost; `_` and `-` are the same."""
    from darkroom.cli.answers import say_json
    from darkroom.recipes.describe import describe
    from darkroom.recipes.read import names, recipe

    if as_json:
        found = describe(recipe(name)) if name else [describe(recipe(each)) for each in names()]
        say_json(found)
    elif name:
        _show(name)
    else:
        _list()


def _list() -> None:
    from darkroom.recipes.describe import count
    from darkroom.recipes.read import groups, recipe

    for title, members in groups().items():
        typer.echo(f"\n{title}")
        for each in members:
            read = recipe(each)
            typer.echo(f"  {each:<25} {_millions(sum(count(read).values())):>10}  {read.summary}")


def _show(name: str) -> None:
    import yaml

    from darkroom.recipes.describe import describe
    from darkroom.recipes.read import recipe

    read = recipe(name)
    typer.echo(yaml.safe_dump(read.plain(), sort_keys=False, allow_unicode=True, width=100).rstrip())
    for line in _cost(describe(read)):
        typer.echo(f"# {line}")


def _cost(found: dict[str, Any]) -> list[str]:
    """What the YAML does not say, one line each."""
    parts = {part: _millions(number) for part, number in found["parameters"].items() if number}
    flops = {part: f"{number / 1e9:.2f} G" for part, number in found["flops"].items() if number}
    memory = {part: _bytes(number) for part, number in found["memory"].items() if number}
    return [
        f"parameters: {_pairs(parts)}",
        f"multiply-adds at batch 1: {_pairs(flops)}",
        f"memory in float32, without activations: {_pairs(memory)}",
        f"latent: {' x '.join(map(str, found['latent']))}, f = {found['factor']}; "
        f"sides of pictures are multiples of {found['size_multiple']}",
        f"steered by: {', '.join(found['fields']) or 'nothing'}",
    ]


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{part.replace('_', ' ')} {value}" for part, value in values.items()) or "none"


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} M"


def _bytes(number: int) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"

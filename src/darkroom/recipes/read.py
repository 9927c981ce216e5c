"""Recipes by name or from a file: read, completed from the first stage they refer to, overridden, validated.

A recipe may take the first stage of a built-in one instead of repeating it, and change parts of it:

    first_stage: {recipe: vq-f4}
    first_stage: {recipe: vq-f4, model: {latent_channels: 4}, train: null}

Keys that stand beside `recipe` win. A part that changes its `kind` replaces what was there.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.core.errors import SpecError, did_you_mean
from darkroom.core.spec import override, parse, parse_yaml
from darkroom.recipes.schema import Recipe

HERE = Path(__file__).parent
MOST = 2**26  # bytes that are read of a recipe
GROUPS = {
    "first stages of the paper": "paper/first-stages",
    "latent models of the paper": "paper/models",
    "compression ladder": "paper/ladder",
    "of this package": "own",
    "miniatures": "tiny",
}


def recipe(name_or_path: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a built-in name (`_`, `-` and case do not matter) or of a YAML file.

    overrides: `key=value` assignments, e.g. `denoiser.train.steps=2000`, applied before anything is checked.
    `SpecError` names an unknown name, file or key and what is near it.
    """
    return read_recipe(_find(name_or_path), overrides=overrides)


def read_recipe(file: Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, such as the `recipe.yaml` of a run; `SpecError` as of `recipe`."""
    plain = _plain(file)
    where = plain["name"] if file.is_relative_to(HERE) else str(file)
    return parse(Recipe, _complete(override(plain, overrides), where=where), where=where)


def names() -> list[str]:
    """All built-in names: first stages and models of the paper, its compression ladder, miniatures."""
    return [name for group in groups().values() for name in group]


def groups() -> dict[str, list[str]]:
    """Built-in names by what they are, in the order in which people count (f4 before f16)."""
    return {
        title: sorted((file.stem for file in (HERE / folder).glob("*.yaml")), key=_counting)
        for title, folder in GROUPS.items()
    }


def _counting(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _same(name: str) -> str:
    return name.lower().replace("_", "-")


def _find(name_or_path: str | Path) -> Path:
    """The file of a built-in name, or the path itself if it is that of a file."""
    built_in = {_same(file.stem): file for folder in GROUPS.values() for file in (HERE / folder).glob("*.yaml")}
    asked = str(name_or_path)
    file = built_in.get(_same(asked))
    if file is not None:
        return file
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.suffix.lower() in (".yaml", ".yml") or len(path.parts) > 1:
        raise SpecError(f"{asked}: there is no such recipe file")
    known = {_same(name): name for name in names()}
    near = did_you_mean(_same(asked), known)
    near = near if "did you mean" in near else ""
    raise SpecError(f"unknown recipe {asked!r}{near}; `darkroom recipes` lists them")


def _plain(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST).decode("utf-8-sig")
    except OSError as error:
        raise SpecError(f"{file}: cannot be read as a recipe ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise SpecError(
            f"{file}: no recipe, which is YAML; pictures are given as a folder, shards (.tar) or a COCO file (.json)"
        ) from None
    plain = parse_yaml(text, where=str(file))
    if not isinstance(plain, dict):
        raise SpecError(f"{file}: a recipe is a mapping of keys, {type(plain).__name__} came")
    return plain


def _complete(plain: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The first stage it refers to put in place of the reference."""
    own = plain.get("first_stage")
    if not isinstance(own, Mapping) or "recipe" not in own:
        return plain
    asked, changes = own["recipe"], {key: value for key, value in own.items() if key != "recipe"}
    options = {_same(name): name for name in names()}
    if _same(str(asked)) not in options:
        raise SpecError(f"{where}: first_stage.recipe: unknown recipe {asked!r}{did_you_mean(str(asked), options)}")
    base = _complete(_plain(_find(str(asked))), where=str(asked))["first_stage"]
    return {**plain, "first_stage": _merged(base, changes)}


def _merged(base: Any, changes: Any) -> Any:
    """`changes` laid over `base`, mapping by mapping; a mapping of another kind replaces."""
    if not isinstance(base, Mapping) or not isinstance(changes, Mapping):
        return changes
    if changes.get("kind", base.get("kind")) != base.get("kind"):
        return dict(changes)
    return {**base, **{key: _merged(base.get(key), value) for key, value in changes.items()}}

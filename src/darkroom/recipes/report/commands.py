"""What a finished run can be used for: lines for the shell and for Python, exactly as they are typed."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, final

from darkroom.recipes.schema import Recipe

EXAMPLE: Final = "example"  # the folder of what a test picture would be asked for
EXAMPLES: Final = {  # by field: options of `darkroom sample` and names of files
    "objects": {"--layout": "layout.json"},
    "map": {"--map": "map.png"},
    "low_res": {"--low-res": "low-res.png"},
    "masked": {"--image": "image.png", "--mask": "mask.png"},
}


@final
@dataclass(frozen=True)
class Command:
    """A line for the shell, and what it does, in words that begin a sentence."""

    does: str
    line: str


@final
class Example(NamedTuple):
    """What a model can be asked for, if it takes such a thing."""

    prompt: str
    label: str


def own_commands(folder: Path, recipe: Recipe, *, example: Example) -> list[Command]:
    """Drawing pictures with the run in this folder, or reconstructing some where there is only a first stage.

    A model steered by boxes or pictures is given those in the run's folder `example`, where they are (`EXAMPLES`).
    """
    place, fields = shlex.quote(str(folder)), _fields(recipe)
    if recipe.denoiser is None:
        return [Command("Send pictures through it and back", f"darkroom reconstruct {place} my-pictures --grid")]
    pictured = _pictured(folder, fields)
    if not fields <= {"caption", "label", *pictured}:
        return []
    # After `--` a prompt may begin with a dash; and so may a label that is written into its option.
    words = ["--model", place]
    words += [f"--label={shlex.quote(example.label)}"] if "label" in fields else []
    words += [f"{option} {shlex.quote(str(path))}" for files in pictured.values() for option, path in files]
    words += ["--count", "16", "--seed", "0", "--grid", "--out", "pictures"]
    if "caption" in fields:
        prompt = shlex.quote(example.prompt)
        words = [*words, "--", prompt] if example.prompt.startswith("-") else [prompt, *words]
    return [Command("Draw pictures", f"darkroom sample {' '.join(words)}")]


def python_lines(folder: Path, recipe: Recipe, *, example: Example) -> str:
    """The same in Python."""
    fields = _fields(recipe)
    if recipe.denoiser is None:
        return f"import darkroom\n\nfirst_stage = darkroom.load_autoencoder({str(folder)!r})"
    load = f"import darkroom\n\nmodel = darkroom.load({str(folder)!r})"
    pictured = _pictured(folder, fields)
    if not fields <= {"caption", "label", *pictured} or "objects" in fields:
        return load
    given = [repr(example.prompt)] if "caption" in fields else []
    given += [f"label={example.label!r}"] if "label" in fields else []
    for files in pictured.values():
        given += [f"{option.lstrip('-').replace('-', '_')}={str(path)!r}" for option, path in files]
    call = ", ".join([*given, "count=4", "seed=0"])
    return f'{load}\nfor place, picture in enumerate(model.sample({call})):\n    picture.save(f"{{place:04}}.png")'


def _pictured(folder: Path, fields: frozenset[str]) -> dict[str, list[tuple[str, Path]]]:
    """Options and files, by field, for those whose example lies in the run's folder."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for field, files in EXAMPLES.items():
        paths = [(option, folder / EXAMPLE / name) for option, name in files.items()]
        if field in fields and all(path.exists() for _, path in paths):
            found[field] = paths
    return found


def _fields(recipe: Recipe) -> frozenset[str]:
    spec = recipe.model_spec()
    return frozenset() if spec is None else frozenset(spec.fields)

"""`darkroom inspect`: what is this?"""

import contextlib
import json
import math
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

import typer

EXAMPLE = """
darkroom inspect runs/tiny-text-0
darkroom inspect my-pictures --json
darkroom inspect samples/0000.png
"""


def run(
    path: Annotated[str, typer.Argument(help="A model, run folder, data set, picture, or built-in model's name.")],
    *,
    config: Annotated[Path | None, typer.Option(help="YAML of an original checkpoint.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Say what a model, data set, run or picture is: sizes, fields, parameters, card, and what is odd."""
    from darkroom.cli.answers import say_json

    found = look(path, config=config)
    if as_json:
        say_json(found)
        return
    for line in in_lines(found):
        typer.echo(line)


def in_lines(found: dict[str, Any]) -> list[str]:
    """Facts as they are shown, without those that say nothing."""
    return [f"{key:<12} {_words(value)}" for key, value in found.items() if value not in (None, [], {})]


def look(path: str, *, config: Path | None = None, ema: bool = True) -> dict[str, Any]:
    """The facts, as plain values; `InputError` for what is none of these.

    ema: are the moving averages of an original checkpoint to be taken where they are there?
    """
    from darkroom.checkpoint.store import is_ours
    from darkroom.cli.options import refuse
    from darkroom.data.shards import are_shards
    from darkroom.data.sources import SCENES
    from darkroom.tasks.find import CHECKPOINTS, built_in

    known = built_in()
    place = Path(path)
    checkpoint = place.suffix.lower() in CHECKPOINTS
    if config is not None and (path in known or place.is_dir() or not checkpoint):
        refuse({"config": config}, why=f"{path} is no original checkpoint, which it would belong to")
    if path in known:
        return _model(known[path]) | ({"data_set": _scenes(path)} if path in SCENES else {})
    listed = place.suffix == ".json" and place.is_file()  # boxes and pictures, as COCO has them
    if path in SCENES or place.is_dir() or are_shards(path) or listed:
        return _run(place) if (place / "recipe.yaml").exists() else _folder(path)
    if checkpoint and place.exists() and config is None and is_ours(place):
        return _model(place)
    if checkpoint:
        return _original(place, config, ema=ema)
    if place.suffix in (".yaml", ".yml") and place.is_file():
        raise _told_of_yaml(place)
    if place.exists():
        return _picture(place)
    return _absent(path, known)


def _absent(path: str, known: dict[str, Path]) -> dict[str, Any]:
    from darkroom.core.errors import InputError, did_you_mean

    raise InputError(f"{path}: no such file, folder or built-in model{did_you_mean(path, known)}")


def _told_of_yaml(path: Path) -> Exception:
    """What a YAML alone is good for, by the keys that stand at its margin."""
    from darkroom.checkpoint.config import CONFIG_LIMIT
    from darkroom.core.errors import InputError

    with path.open("rb") as file:
        keys = {line.partition(b":")[0] for line in file.read(CONFIG_LIMIT).splitlines()}
    if b"model" in keys:
        return InputError(
            f"{path}: the YAML of an original checkpoint and no model; name the checkpoint that it belongs to, "
            f"darkroom inspect FILE.ckpt --config {path}"
        )
    if b"first_stage" in keys:
        return InputError(
            f"{path}: a recipe and no model; `darkroom recipes {path}` says what it costs, `darkroom train {path}` "
            "carries it out"
        )
    return InputError(
        f"{path}: neither the YAML of an original checkpoint (model: ...) nor a recipe (first_stage: ...)"
    )


def _model(path: Path) -> dict[str, Any]:
    from darkroom.checkpoint.store import read_header, spec_hash
    from darkroom.diffusion.model import ModelSpec

    header = read_header(path)
    spec = header.spec
    whole = isinstance(spec, ModelSpec)
    return {
        "kind": "model" if whole else "first stage",
        "name": header.card.get("name", path.stem),
        "summary": header.card.get("summary", ""),
        **_asked_by(header),
        "factor": spec.first_stage.factor if whole else spec.factor,
        "parameters": _counted(path, spec) if whole else {"first_stage": _elements(header.tensors)},
        "megabytes": _megabytes(path),
        "precision": sorted({str(info.dtype).removeprefix("torch.") for info in header.tensors.values()}),
        "latents": None if header.latents is None else header.latents.plain(),
        "hash": spec_hash(header),
        "card": header.card,
        "spec": spec.plain(),
    }


def _asked_by(header: Any) -> dict[str, Any]:
    """What a model can be asked for, in the words that a request says."""
    from darkroom.diffusion.model import ModelSpec
    from darkroom.tasks.fields import task_of

    spec, names = header.spec, header.names
    whole = isinstance(spec, ModelSpec)
    return {
        "task": task_of(spec) if whole else None,
        "fields": list(spec.fields) if whole else [],
        "image_size": spec.image_size if whole else None,
        "classes": list(names.classes),
        **{key: list(getattr(names, key)) for key in ("categories", "map_classes") if getattr(names, key)},
    }


def _counted(path: Path, spec: Any) -> dict[str, int]:
    from darkroom.core.errors import ModelFileError, first_line
    from darkroom.core.hollow import UNBUILDABLE
    from darkroom.diffusion.model import count_parameters

    try:
        return count_parameters(spec)
    except UNBUILDABLE as error:
        raise ModelFileError(f"{path}: its spec cannot be built ({first_line(error)})") from None


def _elements(tensors: Any) -> int:
    return sum(math.prod(info.shape) for info in tensors.values())


def _original(path: Path, config: Path | None, *, ema: bool) -> dict[str, Any]:
    """Of a checkpoint of others, from names, shapes and types alone: its weights are not read."""
    from darkroom.checkpoint.inventory import compare_original, precisions
    from darkroom.diffusion.model import ModelSpec
    from darkroom.tasks.fields import task_of
    from darkroom.tasks.find import find, find_config, needs_yaml

    file = find(path)
    beside = find_config(file, config=config)
    if beside is None and (tiny := _preview(file)) is not None:
        return tiny
    described = needs_yaml(file) if beside is None else _understood(beside, given=config is not None)
    if isinstance(described, str):
        return without_yaml(file, yaml=beside, reason=described)
    found = compare_original(file, described, ema=ema)
    spec, state = found.described.spec, found.checkpoint.state_dict
    whole = isinstance(spec, ModelSpec)
    return {
        "kind": "original model" if whole else "original first stage",
        "family": found.described.family,
        "config": str(beside),
        "task": task_of(spec) if whole else None,
        "fields": list(spec.fields) if whole else [],
        "conditioning": {each.field: f"by {each.port}" for each in spec.conditioners} if whole else {},
        "image_size": spec.image_size if whole else None,
        "factor": spec.first_stage.factor if whole else spec.factor,
        "parameters": found.parameters,
        "steps": found.checkpoint.global_step,
        "megabytes": _megabytes(file),
        "tensors": len(state),
        "precision": precisions(state),
        "averages": found.averages,
        "weights": "ema" if found.ema else "raw",
        "missing": list(found.missing),
        "misshapen": list(found.misshapen),
        "strays": list(found.strays),
        "left_out": list(found.left_out),
        "odd": list(found.odd),
        "spec": spec.plain(),
    }


def _preview(path: Path) -> dict[str, Any] | None:
    """Of a tiny decoder of others; None for all else."""
    from darkroom.checkpoint.previews import find_preview

    found = find_preview(path)
    if found is None:
        return None
    return {
        "kind": "tiny decoder",
        "name": path.resolve().name,
        "factor": found.spec.factor,
        "parameters": {"decoder": sum(math.prod(entry.shape) for entry in found.table.entries)},
        "odd": list(found.odd),
        "spec": found.spec.plain(),
    }


def _understood(yaml: Path, *, given: bool) -> Any:
    """What a YAML describes, or why it is refused; `ModelFileError` when one was given that is no configuration."""
    from darkroom.checkpoint.config import read_config
    from darkroom.checkpoint.inventory import read_original_spec
    from darkroom.core.errors import InputError

    try:
        return read_original_spec(yaml)
    except InputError as error:
        if given:
            read_config(yaml)
        return str(error)


def without_yaml(file: Path, *, yaml: Path | None, reason: str) -> dict[str, Any]:
    """Of a checkpoint whose YAML is not there or not understood: its tensors."""
    from darkroom.checkpoint.inventory import outline
    from darkroom.checkpoint.unpickle import read_checkpoint

    checkpoint = read_checkpoint(file)
    kind = f"checkpoint {'without its YAML' if yaml is None else 'whose YAML is refused'}"
    known = {"kind": kind, "config": None if yaml is None else str(yaml), "megabytes": _megabytes(file)}
    return {**known, **outline(checkpoint), "odd": [*checkpoint.odd, reason]}


def _diffusers(folder: Path) -> dict[str, Any]:
    """A pipeline or one of its parts, by its configurations and the headers of its files."""
    from darkroom.checkpoint.diffusers import model_spec, open_folder
    from darkroom.tasks.fields import task_of

    opened = open_folder(folder)
    parts: dict[str, Any] = {
        "first_stage": opened.first_stage,
        "network": opened.network,
        "conditioner": opened.encoder,
        "classes": opened.labels,
    }
    there = {name: part for name, part in parts.items() if part is not None}
    spec = model_spec(opened, where=str(folder)) if len(there) > 1 else None
    return {
        "kind": "diffusers pipeline" if len(there) > 1 else "diffusers part",
        "name": folder.resolve().name,
        "family": opened.family,
        "task": None if spec is None else task_of(spec),
        "fields": [] if spec is None else list(spec.fields),
        "image_size": None if spec is None else spec.image_size,
        "factor": None if opened.first_stage is None else opened.first_stage.spec.factor,
        "parameters": {name: part.sizes["parameters"] for name, part in there.items()},
        "megabytes": round(sum(part.sizes["bytes"] for part in there.values()) / 1e6, 2),
        "precision": sorted({str(each).removeprefix("torch.") for part in there.values() for each in part.dtypes}),
        "odd": [*opened.odd, *([] if opened.lacking is None else [f"draws nothing yet: {opened.lacking}"])],
        "spec": {name: part.spec.plain() for name, part in there.items()} if spec is None else spec.plain(),
    }


def _megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 2)


def _run(folder: Path) -> dict[str, Any]:
    from darkroom.checkpoint.store import read_header
    from darkroom.core.errors import InputError
    from darkroom.core.record import read_json, read_log
    from darkroom.recipes.length import trained
    from darkroom.recipes.read import recipe
    from darkroom.train.guard import health

    made = recipe(folder / "recipe.yaml")
    length = trained(made)
    stages: dict[str, Any] = {}
    odd: list[str] = []
    for stage in ("first_stage", "denoiser"):
        lines = [line for line in read_log(folder / stage / "log.jsonl") if "loss" in line]
        report = folder / stage / "report.json"
        if lines:
            stages[stage] = {key: lines[-1][key] for key in ("step", "loss", "seconds") if key in lines[-1]}
            stages[stage] |= {"of": length[stage].steps} if stage in length else {}
        if report.exists():
            try:
                stages.setdefault(stage, {})["report"] = read_json(report)
            except InputError:
                odd.append(f"{stage}: its report.json is damaged")
        odd += [f"{stage}: {sentence}" for sentence in health(folder / stage, stage)]
    finished = folder / "model.safetensors"
    asked: dict[str, Any] = {}
    if finished.exists():
        try:
            asked = _asked_by(read_header(finished))
        except InputError as error:
            odd.append(str(error))
    return {
        "kind": "run",
        "recipe": made.name,
        "summary": made.summary,
        "stages": stages,
        "finished": finished.exists(),
        **asked,
        "odd": odd,
    }


def _folder(folder: Path | str) -> dict[str, Any]:
    from darkroom.checkpoint.diffusers import is_folder
    from darkroom.core.errors import DataError
    from darkroom.data.sources import open_data
    from darkroom.data.summary import summary
    from darkroom.tasks.find import find, instead_of

    known = any(Path(folder, name).exists() for name in ("model.safetensors", "unet/config.json"))
    if known or is_folder(Path(folder)):
        place = find(folder)
        return _model(place) if place.is_file() else _preview(place) or _diffusers(place)
    try:
        splits = open_data(folder)
    except DataError as error:
        raise DataError(f"{error}{instead_of(Path(folder)) if Path(folder).is_dir() else ''}") from None
    return {"kind": "data set", **summary(splits.train), "test": len(splits.test)}


def _scenes(name: str) -> dict[str, Any]:
    """Of built-in scenes what is known without drawing them."""
    from darkroom.data.sources import open_data

    train, test = open_data(name)
    return {"kind": "data set", "count": len(train), "test": len(test), "fields": sorted(train.fields)}


def _picture(path: Path) -> dict[str, Any]:
    from darkroom.core.errors import InputError
    from darkroom.core.pictures import open_picture
    from darkroom.core.record import is_nested
    from darkroom.tasks.note import KEY, read_note

    picture = open_picture(path)
    facts: dict[str, Any] = {"kind": "picture", "width": picture.width, "height": picture.height, "mode": picture.mode}
    facts["made_by"] = None
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(str(picture.info.get(KEY)))
        facts["made_by"] = None if is_nested(said) else said
    with contextlib.suppress(InputError):
        facts["in_words"] = read_note(picture).words()
    return facts


def _words(value: Any) -> str:
    """Plain values and rows of them on their line, tables below it, as YAML."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (dict, list)):
        return _safe(str(value))
    row = value if isinstance(value, list) else list(value.values())
    if all(isinstance(each, (str, int)) for each in row):
        return _safe(", ".join(map(str, row if isinstance(value, list) else [f"{key} {value[key]}" for key in value])))
    import yaml

    text = yaml.safe_dump(_short(value), default_flow_style=None, sort_keys=False, allow_unicode=True, width=110)
    return "\n" + indent(text.rstrip(), "  ")


def _safe(text: str) -> str:
    """Text of a stranger's file that cannot steer a terminal."""
    return text if text.isprintable() else json.dumps(text)


def _short(value: Any) -> Any:
    """Numbers with as many digits as a reader wants."""
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value

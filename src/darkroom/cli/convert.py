"""`darkroom convert`: a model from one format into another, or pictures into shards."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = """
darkroom convert model.ckpt model.safetensors --config config.yaml
darkroom convert model.safetensors model.ckpt --dtype float16
darkroom convert runs/tiny-text-0 wide.safetensors --ema 0.1
darkroom convert model.ckpt clean.safetensors --to compvis --keep-all
darkroom convert my-pictures my-shards --to shards
"""

FORMS = ("darkroom", "compvis", "diffusers")
BY_SUFFIX = {".safetensors": "darkroom", ".ckpt": "compvis", "": "diffusers"}
TYPES = {"darkroom": ("float32", "bfloat16", "float16", "int8"), "compvis": ("float32", "bfloat16", "float16")}
READ = """
kind name family config task conditioning image_size factor
parameters steps precision averages weights numbers strays odd
"""


def run(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Model file, checkpoint, run or diffusers folder; pictures.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="NAME.safetensors, NAME.ckpt or a folder.")],
    *,
    config: Annotated[Path | None, typer.Option(help="YAML of an original checkpoint.")] = None,
    to: Annotated[
        str | None, typer.Option(help="darkroom, compvis, diffusers (else DST's name says it); shards.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the weights: float32 (default), bfloat16, float16; int8 for darkroom."),
    ] = None,
    width: Annotated[
        float | None, typer.Option("--ema", help="Of a run that stored averages: the one so wide, e.g. 0.1.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Of an original: ema (where there) or raw.")] = None,
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="From original to original: every tensor, raw and averaged.")
    ] = False,
    samples: Annotated[int | None, typer.Option(help="In a shard, with --to shards; 1000 without.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report in JSON.")] = False,
) -> None:
    """Convert a model, and say what was read, written and dropped; DST must not be there yet."""
    from darkroom.cli.answers import say_json
    from darkroom.cli.convert_pictures import SHARDS, into_shards
    from darkroom.cli.inspect import in_lines
    from darkroom.cli.options import refuse
    from darkroom.tasks.find import find, read_whole

    if to == SHARDS:
        of_models = {"config": config, "dtype": dtype, "ema": width, "weights": weights, "keep_all": keep_all}
        refuse(of_models, why="it is about models, and --to shards writes pictures")
        into_shards(source, target, samples=1000 if samples is None else samples, as_json=as_json)
        return
    refuse({"samples": samples}, why="it is for --to shards")
    form = _form(target, to)
    _check_options(form, dtype=dtype, weights=weights, keep_all=keep_all)
    averaged = None if width is None else _averaged(source, width)
    path = find(source)
    facts = _facts(path, config, keep_all=keep_all, ema=weights != "raw")
    _check_weights(path, facts, weights=weights, keep_all=keep_all)
    _check_free(target, form)
    if keep_all:
        written, dropped = _rewritten(path, target, config=config, dtype=dtype, understood="spec" in facts)
    else:
        stored = read_whole(source, config=config, ema=weights != "raw")
        if averaged is not None:
            stored = replace(stored, state={**stored.state, **averaged})
        written, dropped = _converted(stored, target, form=form, dtype=dtype)
        facts["odd"] = [*facts.get("odd", []), *(each for each in stored.odd if each not in facts.get("odd", []))]
        dropped = [*_unread(facts), *dropped]
    report = {
        "read": {"path": str(path), **{key: facts[key] for key in READ.split() if key in facts}},
        "written": {"to": form, "paths": [str(each) for each in written], "megabytes": _megabytes(written)},
        "dropped": dropped,
    }
    if as_json:
        say_json(report)
        return
    made = f"{', '.join(map(str, written))} ({form}, {report['written']['megabytes']} MB)"
    for line in in_lines({**report["read"], "written": made}):
        typer.echo(line)
    for sentence in dropped:
        typer.echo(in_lines({"dropped": sentence})[0])


def _facts(path: Path, config: Path | None, *, keep_all: bool, ema: bool) -> dict[str, Any]:
    """What is known of the source; with `keep_all` the YAML may say what it likes."""
    from darkroom.checkpoint.store import is_ours
    from darkroom.cli.inspect import look, without_yaml
    from darkroom.core.errors import ModelFileError
    from darkroom.tasks.find import find_config

    try:
        return look(str(path), config=config, ema=ema)
    except ModelFileError as error:
        if not keep_all or path.is_dir() or is_ours(path):
            raise
        return without_yaml(path, yaml=find_config(path, config=config), reason=str(error))


def _form(target: Path, to: str | None) -> str:
    """The format asked for, or that of DST's name; `InputError` when they do not go together."""
    from darkroom.core.errors import InputError, did_you_mean

    if to is None and target.is_dir():
        return "diffusers"
    if to is None and target.suffix not in BY_SUFFIX:
        raise InputError(
            f"{target}: its name does not say a format: NAME.safetensors (darkroom), NAME.ckpt (compvis) or a folder "
            "(diffusers), or use --to"
        )
    if to is not None and to not in FORMS:
        raise InputError(f"format {to!r} is unknown{did_you_mean(to, FORMS)}")
    if to == "darkroom" and target.suffix != ".safetensors":
        raise InputError(f"{target}: a file of darkroom's is called NAME.safetensors")
    if to == "diffusers" and target.suffix in (".safetensors", ".ckpt"):
        raise InputError(f"{target}: diffusers models are folders; give a name without {target.suffix}")
    return to or BY_SUFFIX[target.suffix]


def _check_options(form: str, *, dtype: str | None, weights: str | None, keep_all: bool) -> None:
    from darkroom.core.errors import InputError, did_you_mean

    if weights not in (None, "ema", "raw"):
        raise InputError(f"weights {weights!r} are unknown{did_you_mean(weights, ('ema', 'raw'))}")
    if keep_all and form != "compvis":
        raise InputError(
            "--keep-all writes every tensor of an original checkpoint into another one (NAME.ckpt, or --to compvis); "
            f"{'a file of darkroom' if form == 'darkroom' else 'a diffusers folder'} holds one set of weights"
        )
    if keep_all and weights:
        raise InputError("--keep-all keeps raw and averaged weights; leave out --weights")
    if dtype is not None and form == "diffusers":
        raise InputError("diffusers folders are written in float32; leave out --dtype")
    if dtype is not None and dtype not in TYPES[form]:
        raise InputError(f"dtype {dtype!r} does not fit{did_you_mean(dtype, TYPES[form])}")


def _check_weights(path: Path, facts: dict[str, Any], *, weights: str | None, keep_all: bool) -> None:
    """`InputError` for a choice that the source does not leave."""
    from darkroom.core.errors import InputError

    original = path.is_file() and "averages" in facts
    if keep_all and not original:
        raise InputError(f"{path}: --keep-all is for original checkpoints")
    if weights and not original:
        raise InputError(f"{path}: it holds one set of weights; --weights is for original checkpoints")
    if weights == "ema" and facts.get("weights") == "raw":
        why = {"none": "there are none", "incomplete": "some are missing"}.get(facts["averages"], "use_ema is false")
        raise InputError(
            f"{path}: moving averages cannot be taken ({why}); --weights raw takes the weights as they are"
        )


def _check_free(target: Path, form: str) -> None:
    """`InputError` when something would be written over; the YAML of a checkpoint is looked at when it is made."""
    from darkroom.checkpoint.write_compvis import check_suffix
    from darkroom.core.errors import InputError

    if form == "compvis":
        check_suffix(target)
    if target.exists() and not (form == "diffusers" and target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target}: this is there already; choose another DST")


def _averaged(source: str, width: float) -> dict[str, Any]:
    """The weights of a run averaged so wide; `InputError` for what is no run, or stored no averages."""
    from darkroom.core.errors import InputError
    from darkroom.train.averages import FOLDER, reconstructed

    run = Path(source)
    if not (run / "recipe.yaml").exists():
        raise InputError(f"{source}: --ema chooses among the averages that a run stored; give its folder")
    stage = "denoiser" if (run / "denoiser").exists() else "first_stage"
    return reconstructed(run / stage / FOLDER, width=width)


def _converted(stored: Any, target: Path, *, form: str, dtype: Any) -> tuple[list[Path], list[str]]:
    """What was written, and what the format has no place for."""
    from darkroom.checkpoint.store import save_model
    from darkroom.checkpoint.write_compvis import save_original

    match form:
        case "darkroom":
            return [save_model(target, stored, dtype=dtype or "float32")], _mute(stored)
        case "compvis":
            lost = save_original(target, stored, dtype=dtype or "float32")
            return [target, target.with_suffix(".yaml")], list(lost)
        case _:
            from darkroom.checkpoint.to_diffusers import save_folder

            lost = save_folder(target, stored)
            return [target], list(lost)


def _mute(stored: Any) -> list[str]:
    """A sentence for a text model that came without its tokenizer."""
    if stored.tokenizer is not None or "caption" not in getattr(stored.spec, "fields", ()):
        return []
    clip = any(each.kind == "text" and each.encoder.family == "clip" for each in stored.spec.conditioners)
    files = "vocab.json with merges.txt" if clip else "vocab.txt"
    return [f"the tokenizer: no {files} lies beside the checkpoint, so captions can only be given as ids"]


def _rewritten(
    path: Path, target: Path, *, config: Path | None, dtype: Any, understood: bool
) -> tuple[list[Path], list[str]]:
    """Every tensor of an original checkpoint in another file, and its YAML when there is one, understood or not."""
    from darkroom.checkpoint.config import CONFIG_LIMIT
    from darkroom.checkpoint.write_compvis import rewrite_original
    from darkroom.tasks.find import find_config, yaml_beside

    yaml = find_config(path, config=config)
    several = [each.name for each in yaml_beside(path)] if yaml is None else []
    about = [f"every YAML: {', '.join(several)} lie beside it, and none is copied (--config chooses)"] * bool(several)
    if yaml is not None and yaml.stat().st_size > CONFIG_LIMIT:
        yaml, about = None, [f"{yaml.name}, which is too large for a YAML"]
    elif yaml is not None and not understood:
        about = [f"what {yaml.name} means: it is copied as it is, not understood"]
    lost = rewrite_original(target, path, config=yaml, dtype=dtype)
    return [target, *([target.with_suffix(".yaml")] if yaml else [])], [*about, *lost]


def _unread(facts: dict[str, Any]) -> list[str]:
    """What lies in the source and was not taken."""
    strays = facts.get("strays", [])
    named = [f"what nothing explains: {', '.join(strays)}"] if strays else []
    return [*facts.get("left_out", []), *named]


def _megabytes(paths: list[Path]) -> float:
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)

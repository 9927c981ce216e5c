"""`darkroom sample`: make pictures with a model."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = """
darkroom sample "a small blue star above a large red heart" --count 4 --seed 7 --grid --out pictures
darkroom sample --like pictures/0002.png --out again
darkroom sample "a red circle" --to "a blue square" --count 8 --grid --out way
darkroom sample --model runs/shapes-0 --label star --steps 20
darkroom sample --model runs/photos --image photo.png --mask hole.png --count 4
"""


def run(
    prompt: Annotated[str | None, typer.Argument(help="What to draw, for a model steered by text.")] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(help="Built-in name, run or diffusers folder, model file, checkpoint; shapes without."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of an original checkpoint.")] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Decode with this one, e.g. a tiny-decoder run, or TAESD's.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file, one prompt a line.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Class name or number; may be repeated.")] = None,
    negative: Annotated[
        list[str] | None, typer.Option(help="What to steer away from; repeat it for one of each prompt.")
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option(help="Another prompt: --count pictures lead to it, both ends included.")
    ] = None,
    to_label: Annotated[list[str] | None, typer.Option(help="The same for a label.")] = None,
    to_seed: Annotated[int | None, typer.Option(min=0, help="The same for the seed.")] = None,
    at: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only this place between the ends, e.g. 0.5 for the middle.")
    ] = None,
    layout: Annotated[
        list[Path] | None, typer.Option(help="JSON, [{category, box: [x, y, width, height] in 0..1}]; may be repeated.")
    ] = None,
    semantic: Annotated[
        list[Path] | None, typer.Option("--map", help="A picture whose levels are class ids; may be repeated.")
    ] = None,
    low_res: Annotated[list[Path] | None, typer.Option(help="A picture to enlarge; may be repeated.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture to vary, or with --mask to paint into; may be repeated.")
    ] = None,
    mask: Annotated[list[Path] | None, typer.Option(help="With --image: white where to paint.")] = None,
    match: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=16,
            help="With --mask: how often a step is moved to meet what is known at the edge. With --low-res: 0 leaves "
            "the picture as drawn, 1 holds it to the small one.",
        ),
    ] = None,
    strength: Annotated[float | None, typer.Option(help="How much of --image is left open, up to 1; else 0.6.")] = None,
    inverted: Annotated[
        bool, typer.Option("--inverted", help="Begin with the noise that leads to --image instead of a drawn one.")
    ] = False,
    guide: Annotated[
        list[Path] | None, typer.Option(help="A small picture that the drawn one shall match when made small.")
    ] = None,
    guide_weight: Annotated[float | None, typer.Option(help="How strongly --guide pulls, up to 1, as without.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures of each prompt or label, or on the way.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Picture k of a seed is always the same; 0 without.")] = None,
    first: Annotated[int | None, typer.Option(min=0, help="The k to begin with; 0 without.")] = None,
    size: Annotated[str | None, typer.Option(help="Height x width in pixels, e.g. 64x96.")] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels of overlapping windows, for pictures larger than that.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Solver steps; the model's without.")] = None,
    solver: Annotated[
        str | None,
        typer.Option(help="ddim, ddpm, ddpm-large, plms, euler, heun, dpm++2m, unipc, lcm; the model's without."),
    ] = None,
    eta: Annotated[float | None, typer.Option(min=0, help="Noise of ddim, dpm++2m: 0 none, 1 as DDPM.")] = None,
    guidance: Annotated[
        str | None,
        typer.Option(help="How strongly to follow the condition, 1 adds nothing; of several caption=3,map=1.5."),
    ] = None,
    guidance_rescale: Annotated[
        float | None, typer.Option(min=0, max=1, help="How much of the contrast that guidance adds is taken back.")
    ] = None,
    guidance_interval: Annotated[
        tuple[float, float] | None, typer.Option(help="Guide only at noise levels (sigma / alpha) from .. to.")
    ] = None,
    times: Annotated[
        str | None, typer.Option(help="Which times the steps visit: trailing, original, original-quad.")
    ] = None,
    like: Annotated[Path | None, typer.Option(help="Repeat the picture in this PNG; options given change it.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for 0000.png, 0001.png, ...")] = Path("samples"),
    grid: Annotated[bool, typer.Option("--grid", help="Also write grid.png, all pictures on one sheet.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn together.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (float32), float32, bfloat16, float16.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto (eager), eager, compiled, openvino.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Report what was made as JSON.")] = False,
) -> None:
    """Make pictures: the fields given choose the task, the model says which it takes."""
    from darkroom.cli.answers import say
    from darkroom.cli.sample_pictures import Work
    from darkroom.core.errors import InputError
    from darkroom.tasks.request import given

    if prompts is not None and prompt is not None:
        raise InputError("a prompt and --prompts were both given; give one of them")
    fields = given(
        {
            "prompt": _lines(prompts) if prompts is not None else prompt,
            "label": label,
            "negative": negative,
            "to": to,
            "to_label": to_label,
            "to_seed": to_seed,
            "at": at,
            "layout": [_layout(path) for path in layout] if layout else None,
            "map": semantic,
            "low_res": low_res,
            "image": image,
            "mask": mask,
            "guide": guide,
            "count": count,
            "seed": seed,
            "first": first,
            "size": _size(size),
            "window": window,
            "strength": strength,
            "inverted": inverted or None,
            "guide_weight": guide_weight,
            "match": match,
            "steps": steps,
            "solver": solver,
            "eta": eta,
            "guidance": _guidance(guidance),
            "guidance_interval": guidance_interval,
            "guidance_rescale": guidance_rescale,
            "times": times,
        }
    )
    options = {"config": config, "device": device, "dtype": precision, "engine": engine}
    drawing, request = _asked(fields, like=like, out=out, source=model, decoder=decoder, options=options)
    work = Work(drawing, request, out, grid=grid)
    work.draw(batch)
    say(work.sentence(), work.report(), as_json=as_json)


def _asked(
    fields: dict[str, Any],
    *,
    like: Path | None,
    out: Path,
    source: str | None,
    decoder: str | None,
    options: Mapping[str, Any],
) -> tuple[Any, Any]:
    """The model and the request, settled: from the fields alone, or from a picture that they change."""
    from darkroom.core.errors import InputError
    from darkroom.core.spec import parse
    from darkroom.tasks.find import DEFAULT, built_in
    from darkroom.tasks.load import load
    from darkroom.tasks.note import again, check_maker, read_note
    from darkroom.tasks.request import Request
    from darkroom.tasks.settle import offered, settle

    if like is None:
        request = parse(Request, fields, where="request")
        drawing = load(source or DEFAULT, **options)
        drawing = drawing if decoder is None else drawing.with_decoder(decoder)
        return drawing, settle(drawing, offered(drawing, request))
    note = read_note(like)
    request = again(note, fields)
    name = source or note.model
    if os.path.dirname(os.path.realpath(like)) == os.path.realpath(out):
        raise InputError(f"{out}: the picture to repeat is in this folder; choose another --out")
    if source is None and name not in built_in():
        raise InputError(f"{like}: made by {name!r}, which is not built in; say where it is with --model")
    dtype = note.precision if note.precision is not None and options["dtype"] == "auto" else options["dtype"]
    drawing = load(name, **{**options, "dtype": dtype})
    drawing = drawing if decoder is None else drawing.with_decoder(decoder)
    check_maker(note, name=name, card=drawing.card, where=str(like))
    return drawing, settle(drawing, request)


def _lines(path: Path) -> Sequence[str]:
    from darkroom.core.errors import DataError

    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # every kind of line end is read as \n
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a text file of prompts ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: cannot be read as a text file of prompts; save it as UTF-8") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"{path}: no prompts in this file; write one a line")
    return prompts


def _layout(path: Path) -> list[Any]:
    """The objects in a JSON file: a list of them, or `objects` of an object."""
    from darkroom.core.errors import DataError

    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    found = found.get("objects") if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise DataError(f'{path}: a list of {{"category": "...", "box": [x, y, width, height]}} is needed, all in 0..1')
    return found


def _guidance(text: str | None) -> float | dict[str, float] | None:
    from darkroom.core.errors import InputError

    if text is None:
        return None
    try:
        if "=" not in text:
            return float(text)
        pairs = [each.split("=", 1) for each in text.split(",")]
        return {name.strip().replace("-", "_"): float(scale) for name, scale in pairs}
    except ValueError:
        raise InputError(f"guidance {text!r} does not fit; write a number, or one a field: caption=3,map=1.5") from None


def _size(text: str | None) -> tuple[int, int] | None:
    from darkroom.core.errors import InputError

    if text is None:
        return None
    sides = [side.strip() for side in text.lower().split("x")]
    if len(sides) not in (1, 2) or not all(side.isdecimal() and len(side) < 19 for side in sides):
        raise InputError(f"size {text!r:.60} does not fit; write HEIGHTxWIDTH, e.g. 64x96")
    return int(sides[0]), int(sides[-1])

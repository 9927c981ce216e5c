"""`darkroom sample`: make pictures with a model."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = """
darkroom sample "woman, dark skin tone" --count 4 --seed 7 --grid --out pictures
darkroom sample --model runs/shapes-0 --label star --steps 20
darkroom sample --like pictures/0002.png --out again
"""


def run(
    prompt: Annotated[str | None, typer.Argument(help="What to draw, for a model steered by text.")] = None,
    *,
    model: Annotated[str | None, typer.Option(help="Built-in name, model file, checkpoint or run folder.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of an original checkpoint.")] = None,
    decoder: Annotated[str | None, typer.Option(help="Decode with this one, e.g. a tiny-decoder run.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file, one prompt a line.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Class name or number; may be repeated.")] = None,
    negative: Annotated[str | None, typer.Option(help="What to steer away from.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures of each prompt or label.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Picture k of a seed is always the same.")] = None,
    size: Annotated[str | None, typer.Option(help="Height x width in pixels, e.g. 64x96.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Solver steps; the model's default without.")] = None,
    solver: Annotated[str | None, typer.Option(help="ddim, ddpm, plms, euler, heun, dpm++2m, unipc.")] = None,
    eta: Annotated[float | None, typer.Option(min=0, help="Randomness of DDIM steps: 0 none, 1 as DDPM.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strongly to follow the condition; 1 is none.")] = None,
    guidance_rescale: Annotated[float | None, typer.Option(min=0, max=1, help="Against over-contrast.")] = None,
    times: Annotated[str | None, typer.Option(help="trailing, original or original-quad.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for 0000.png, 0001.png, ...")] = Path("samples"),
    grid: Annotated[bool, typer.Option("--grid", help="Also write grid.png, all pictures on one sheet.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn together.")] = 16,
    layout: Annotated[Path | None, typer.Option(help="Boxes and categories, JSON (not there yet).")] = None,
    semantic: Annotated[Path | None, typer.Option("--map", help="A semantic map (not there yet).")] = None,
    low_res: Annotated[Path | None, typer.Option(help="A picture to enlarge (not there yet).")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture to start from (not there yet).")] = None,
    mask: Annotated[Path | None, typer.Option(help="Where to paint, with --image (not there yet).")] = None,
    strength: Annotated[float | None, typer.Option(help="How far to leave --image (not there yet).")] = None,
    like: Annotated[Path | None, typer.Option(help="Repeat the picture in this PNG; options given change it.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (float32), float32, bfloat16, float16.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto or eager.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Report what was made as JSON.")] = False,
) -> None:
    """Make pictures: the fields given choose the task, the model says which it takes."""
    from darkroom.core.errors import InputError
    from darkroom.core.record import writable_folder
    from darkroom.tasks.load import DEFAULT, built_in, load
    from darkroom.tasks.request import Request

    _refuse_planned(
        {"layout": layout, "map": semantic, "low-res": low_res, "image": image, "mask": mask, "strength": strength}
    )
    if prompts is not None and prompt is not None:
        raise InputError("a prompt and --prompts were both given; give one of them")
    before = _repeated(like)
    texts = _lines(prompts) if prompts is not None else prompt
    name = model or before.get("model") or DEFAULT
    if like is not None and model is None and name not in built_in():
        raise InputError(f"{like}: made by {name!r}, which is not built in; say where it is with --model")
    drawing = load(name, config=config, device=device, dtype=precision, engine=engine)
    if before.get("spec_hash", drawing.card["spec_hash"]) != drawing.card["spec_hash"]:
        raise InputError(f"{like}: made by another model than {name}; give the one that made it with --model")
    drawing = _decoding(drawing, decoder, made_with=before.get("decoder"), like=like)
    for sentence in drawing.odd:
        typer.echo(f"note: {sentence}", err=True)
    writable_folder(out)
    offered = [] if texts is not None or before.get("prompt") else _offered(drawing, label, count=count)
    given = {
        "negative": negative,
        "seed": seed,
        "steps": steps,
        "solver": solver,
        "eta": eta,
        "guidance": guidance,
        "guidance_rescale": guidance_rescale,
        "times": times,
    }
    others = {
        **{key: before[key] for key in (*given, "guidance_interval") if key in before},
        **{key: value for key, value in given.items() if value is not None},
        "count": 1 if offered else count,
        "first": before.get("index", 0),
    }
    request = Request.of(
        prompt=texts if texts is not None else before.get("prompt") or offered or None,
        label=label or before.get("label"),
        size=_size(size) or before.get("size"),
        others=others,
    )
    paths = _draw(drawing, request, out=out, batch=batch, grid=grid)
    if as_json:
        sheet = str(out / "grid.png") if grid else None
        made = {"model": drawing.name, "pictures": [str(path) for path in paths], "grid": sheet}
        typer.echo(json.dumps(made, indent=2))
    else:
        typer.echo(f"{len(paths)} {'picture' if len(paths) == 1 else 'pictures'} in {out}")


def _refuse_planned(given: dict[str, object]) -> None:
    from darkroom.core.errors import NotYetError

    for name, value in given.items():
        if value is not None:
            raise NotYetError(f"--{name} is planned and not there yet; prompts, labels and seeds are")


def _decoding(drawing: Any, decoder: str | None, *, made_with: Any, like: Path | None) -> Any:
    """The model with the decoder asked for; `InputError` when a picture to repeat had one and none is given."""
    from darkroom.core.errors import InputError

    if decoder is not None:
        return drawing.with_decoder(decoder)
    if made_with is not None:
        known = made_with if isinstance(made_with, dict) else {}
        name, digits = known.get("name"), known.get("spec_hash")
        raise InputError(f"{like}: decoded by {name!r} (spec {digits}); say where that is with --decoder")
    return drawing


def _draw(drawing: Any, request: Any, *, out: Path, batch: int, grid: bool) -> list[Path]:
    from darkroom.cli.watch import Line
    from darkroom.core.pictures import contact_sheet, save_png
    from darkroom.tasks.generate import generate

    line = Line()
    pictures, paths = [], []
    drawn = generate(
        drawing,
        request,
        batch=batch,
        on_step=lambda done, total: line.show(f"step {done}/{total}", last=done == total),
    )
    for place, sampled in enumerate(drawn):
        paths.append(save_png(sampled.picture, out / f"{place:04}.png", metadata=sampled.metadata))
        pictures.append(sampled.picture)
    if grid:
        save_png(contact_sheet(pictures), out / "grid.png")
    return paths


def _offered(drawing: Any, label: list[str] | None, *, count: int) -> list[str]:
    """`count` of the prompts that a model's card offers, in turn, for when none was given."""
    known = drawing.default("prompts", [])
    if not known or label or "caption" not in drawing.fields:
        return []
    return [known[place % len(known)] for place in range(count)]


def _lines(path: Path) -> list[str]:
    from darkroom.core.errors import DataError

    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text file of prompts ({error})") from None
    prompts = [line for line in lines if line]
    if not prompts:
        raise DataError(f"{path}: no prompts in this file; write one a line")
    return prompts


def _size(text: str | None) -> tuple[int, int] | None:
    from darkroom.core.errors import InputError

    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.strip().isdecimal() for side in sides):
        raise InputError(f"size {text!r} does not fit; write HEIGHTxWIDTH, e.g. 64x96")
    return int(sides[0]), int(sides[-1])


def _repeated(path: Path | None) -> dict[str, Any]:
    from darkroom.core.errors import InputError
    from darkroom.core.pictures import open_picture

    if path is None:
        return {}
    try:
        note = json.loads(str(open_picture(path).info.get("darkroom")))
    except ValueError:
        note = None
    if not isinstance(note, dict) or "reconstruction_of" in note:
        raise InputError(f"{path}: this picture does not say how it was made, so it cannot be repeated")
    return note

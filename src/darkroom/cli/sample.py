"""`darkroom sample`: make pictures with a model."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, final

import typer

EXAMPLE = """
darkroom sample "a small blue star above a large red heart" --count 4 --seed 7 --grid --out pictures
darkroom sample --like pictures/0002.png --out again
darkroom sample "a red circle" --to "a blue square" --count 8 --grid --out way
darkroom sample --model runs/shapes-0 --label star --steps 20
darkroom sample --model runs/photos --image photo.png --mask hole.png --count 4
"""
LONG = 10.0  # seconds of drawing, after which it is said what would be faster
ROW = 12  # pictures on one row of a sheet, where a row has a meaning
LARGEST_SHEET = 2**28  # pixels: 0.8 GB of memory


def run(
    prompt: Annotated[str | None, typer.Argument(help="What to draw, for a model steered by text.")] = None,
    *,
    model: Annotated[str | None, typer.Option(help="Built-in name, model file, checkpoint or run folder.")] = None,
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
    count: Annotated[int, typer.Option(min=1, help="Pictures of each prompt or label, or on the way.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Picture k of a seed is always the same.")] = None,
    first: Annotated[int | None, typer.Option(min=0, help="The k to begin with; 0 without.")] = None,
    size: Annotated[str | None, typer.Option(help="Height x width in pixels, e.g. 64x96.")] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels of overlapping windows, for pictures larger than that.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Solver steps; the model's default without.")] = None,
    solver: Annotated[
        str | None, typer.Option(help="ddim, ddpm, ddpm-large, plms, euler, heun, dpm++2m, unipc, lcm.")
    ] = None,
    eta: Annotated[float | None, typer.Option(min=0, help="Noise of ddim, dpm++2m: 0 none, 1 as DDPM.")] = None,
    guidance: Annotated[
        str | None,
        typer.Option(help="How strongly to follow the condition, 1 is none; of several caption=3,map=1.5."),
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
    out: Annotated[Path, typer.Option(help="Folder for 0000.png, 0001.png, ...")] = Path("samples"),
    grid: Annotated[bool, typer.Option("--grid", help="Also write grid.png, all pictures on one sheet.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn together.")] = 16,
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
    like: Annotated[Path | None, typer.Option(help="Repeat the picture in this PNG; options given change it.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (float32), float32, bfloat16, float16.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto (eager), eager, compiled, openvino.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Report what was made as JSON.")] = False,
) -> None:
    """Make pictures: the fields given choose the task, the model says which it takes."""
    from darkroom.cli.answers import say
    from darkroom.core.errors import InputError
    from darkroom.tasks.request import given

    if prompts is not None and prompt is not None:
        raise InputError("a prompt and --prompts were both given; give one of them")
    fields = given(
        prompt=_lines(prompts) if prompts is not None else prompt,
        label=label or None,
        negative=negative or None,
        to=to or None,
        to_label=to_label or None,
        size=_size(size),
        layout=[_layout(path) for path in layout] if layout else None,
        pictures={
            "maps": semantic or None,
            "low_res": low_res or None,
            "images": image or None,
            "masks": mask or None,
            "guides": guide or None,
        },
        others={
            "window": window,
            "strength": strength,
            "inverted": inverted or None,
            "guide_weight": guide_weight,
            "match": match,
            "to_seed": to_seed,
            "at": at,
            "count": count,
            "seed": seed,
            "first": first,
            "steps": steps,
            "solver": solver,
            "eta": eta,
            "guidance": _guidance(guidance),
            "guidance_rescale": guidance_rescale,
            "guidance_interval": guidance_interval,
            "times": times,
        },
    )
    options = {"config": config, "device": device, "dtype": precision, "engine": engine}
    drawing, request = _asked(fields, like=like, out=out, source=model, decoder=decoder, options=options)
    work = _Work(drawing, request, out, grid=grid)
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
    from darkroom.tasks.load import DEFAULT, built_in, load
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


@final
@dataclass(eq=False)
class _Work:
    """One settled request on its way to files."""

    drawing: Any
    request: Any
    out: Path
    grid: bool

    def __post_init__(self) -> None:
        """Everything that can be refused is refused here, before the first step."""
        from darkroom.core.record import writable_folder
        from darkroom.tasks.note import check_ours

        self.columns = _columns(self.request)
        if self.grid:
            _check_sheet(self.request, columns=self.columns)
        self.paths = [self.out / f"{place:04}.png" for place in range(self.request.total)]
        self.sheet = self.out / "grid.png" if self.grid else None
        writable_folder(self.out)
        check_ours([*self.paths, self.out / "grid.png"] if self.grid else self.paths)

    def draw(self, batch: int) -> None:
        """Draw and write the pictures one after the other, then the sheet; Ctrl-C keeps those written."""
        from darkroom.cli.watch import Line
        from darkroom.core.compute import faster
        from darkroom.core.pictures import contact_sheet
        from darkroom.tasks.generate import generate
        from darkroom.tasks.note import KEY, XMP_KEY, provenance
        from darkroom.tasks.settle import hardly_meant

        drawing, request = self.drawing, self.request
        for sentence in [*drawing.odd, *hardly_meant(drawing, request), *_noted(drawing, request), *self._left_over()]:
            typer.echo(f"note: {sentence}", err=True)
        line, shown, began = Line(), [], time.monotonic()
        drawn = generate(self.drawing, self.request, batch=batch, on_step=_progress(line))
        done = 0
        try:
            for path, sampled in zip(self.paths, drawn, strict=True):
                _write(sampled.picture, path, metadata=sampled.metadata)
                done += 1
                if self.grid:
                    shown.append(sampled.picture)
        except KeyboardInterrupt:
            line.say(f"{done} of {len(self.paths)} pictures are in {_printable(self.out)}")
            raise
        if time.monotonic() - began > LONG and (hint := faster(self.drawing.compute)) is not None:
            typer.echo(f"note: {hint}", err=True)
        if self.sheet is not None:
            note = {"model": self.drawing.name, "sheet_of": len(shown), "columns": self.columns}
            sheet, text = contact_sheet(shown, columns=self.columns), json.dumps(note, ensure_ascii=False)
            _write(sheet, self.sheet, metadata={KEY: text, XMP_KEY: provenance(painted=bool(self.request.masks))})

    def _left_over(self) -> list[str]:
        """A sentence when the folder keeps pictures of an earlier command beside the new ones."""
        new = {path.name for path in [*self.paths, self.out / "grid.png"]}
        old = sorted(path.name for path in self.out.glob("*.png") if path.name not in new and path.stem.isdecimal())
        if not old:
            return []
        which = old[0] if len(old) == 1 else f"{old[0]} to {old[-1]} ({len(old)} pictures)"
        return [f"{_printable(self.out)} also holds {which} of an earlier command"]

    def report(self) -> dict[str, Any]:
        """What was made, as JSON values."""
        sheet = None if self.sheet is None else str(self.sheet)
        return {"model": self.drawing.name, "pictures": [str(path) for path in self.paths], "grid": sheet}

    def sentence(self) -> str:
        """What was made."""
        count = len(self.paths)
        sheet = "" if self.sheet is None else f", together on {_printable(self.sheet)}"
        return f"{count} picture{'' if count == 1 else 's'} in {_printable(self.out)}{sheet}"


def _progress(line: Any) -> Callable[[int, int], None]:
    from darkroom.cli.watch import clock

    begun = time.monotonic()

    def show(done: int, total: int) -> None:
        left = (time.monotonic() - begun) / done * (total - done)
        line.show(f"step {done}/{total}  {clock(left)} left", last=done == total)

    return show


def _write(picture: Any, path: Path, *, metadata: Mapping[str, str]) -> None:
    from darkroom.core.errors import InputError
    from darkroom.core.pictures import save_png

    try:
        save_png(picture, path, metadata=metadata)
    except OSError as error:
        raise InputError(f"{_printable(path)}: cannot be written ({error.strerror or error})") from None


def _columns(request: Any) -> int:
    """Of the sheet: a row for each prompt, label or way where it is short enough, else a square."""
    groups = request.total // request.count
    if (groups > 1 or request.on_a_way) and 1 < request.count <= ROW:
        return request.count
    return math.ceil(math.sqrt(request.total))


def _check_sheet(request: Any, *, columns: int) -> None:
    from darkroom.core.errors import InputError

    height, width = math.ceil(request.total / columns) * request.size[0], columns * request.size[1]
    if height * width > LARGEST_SHEET:
        raise InputError(
            f"{request.total} pictures of {request.size[0]}x{request.size[1]} make a sheet of {height}x{width} pixels, "
            f"more than fit on one; leave --grid out"
        )


def _noted(drawing: Any, request: Any) -> list[str]:
    """A sentence when a prompt is the name of a file, has words the model never learnt, or is not read to its end."""
    files = [text for text in request.prompts if Path(text).suffix and os.path.exists(text)]
    said = [f"{text!r} is taken as words; --prompts reads a file, --model takes a model" for text in files[:1]]
    tokenizer = drawing.tokenizer
    if tokenizer is None:
        return said
    texts = dict.fromkeys((*request.prompts, *request.to_prompts, *request.negatives))
    strange = list(dict.fromkeys(word for text in texts for word in tokenizer.spelt(text)))
    if strange:
        words = ", ".join(map(repr, strange[:3])) + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
        said.append(f"{drawing.name} hardly knows {words}: no such word, or next to none, was in its captions")
    long = [text for text in texts if tokenizer.cuts(text)]
    if not long:
        return said
    which = "the prompt is" if len(long) == 1 else f"{len(long)} prompts are"
    return [
        *said,
        f"{which} longer than the {tokenizer.length} tokens this model reads; what comes after has no effect",
    ]


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
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.strip().isdecimal() for side in sides):
        raise InputError(f"size {text!r} does not fit; write HEIGHTxWIDTH, e.g. 64x96")
    return int(sides[0]), int(sides[-1])


def _printable(path: Path) -> str:
    from darkroom.data.metadata import printable

    return printable(path)

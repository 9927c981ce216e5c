"""`darkroom evaluate`: quality, with its protocol."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

EXAMPLE = """
darkroom evaluate emoji my_pictures --first-stage
darkroom evaluate runs/shapes-text-0 shapes --count 512
darkroom evaluate runs/tiny-vq-0 shapes --first-stage --count 64 --out quality.json
"""

LARGEST_DEFAULT = 256
PROMPTS = 512
LEGEND = "obeyed: as the caption says; shown: wherever it lies; shuffled: by another picture's caption"
ROWS = (
    ("PSNR (dB)", "psnr", "{:.2f}"),
    ("  deviation over pictures", "psnr_std", "{:.2f}"),
    ("SSIM", "ssim", "{:.4f}"),
    ("L1", "l1", "{:.4f}"),
    ("feature distance", "feature_distance", "{:.4f}"),
    ("LPIPS", "lpips", "{:.4f}"),
    ("Fréchet distance", "frechet_distance", "{:.4g}"),
    ("kernel distance", "kernel_distance", "{:.4g}"),
    ("precision", "precision", "{:.3f}"),
    ("recall", "recall", "{:.3f}"),
    ("scenes read right", "scenes_right", "{:.1%}"),
)


def run(
    model: Annotated[str, typer.Argument(help="Built-in name, model file, checkpoint or run folder.")],
    data: Annotated[str, typer.Argument(help="A folder of pictures, shapes or shapes:single.")],
    *,
    first_stage: Annotated[bool, typer.Option("--first-stage", help="Measure reconstructions.")] = False,
    split: Annotated[Literal["test", "train", "all"] | None, typer.Option(help="Of the data; test without.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="So many pictures at most; captions of each kind.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Side in pixels; the model's own without.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the split: the model's own without. Of noise: 0.")] = None,
    solver: Annotated[str | None, typer.Option(help="Of a whole model; its own without.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of a whole model; its own without.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Of a whole model; its own without.")] = None,
    match: Annotated[int | None, typer.Option(min=0, max=16, help="As of sample; its own without.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of holes to paint, instead of the model's own.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures taken together.")] = 16,
    config: Annotated[Path | None, typer.Option(help="YAML of an original checkpoint.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the report to this JSON file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (float32), float32, bfloat16, float16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Measure a first stage on pictures it was not trained on, or whether a model does what it is told.

    With --first-stage: how much of pictures is kept, beside bicubic resizing. Without, for a text model and `shapes`:
    512 captions of one, two and three things each, drawn and read back without any model. For any other model or
    data: 512 test pictures asked for by their own words, classes, boxes, maps, or themselves made small or given holes.
    """
    from darkroom.core.errors import InputError

    whole = {"--solver": solver, "--steps": steps, "--guidance": guidance, "--match": match}
    unfit = {**whole, "--masks": masks} if first_stage else {"--split": split, "--size": size}
    for option, value in unfit.items():
        if value is not None:
            raise InputError(f"{option} does not fit: it is {'not ' if first_stage else ''}for --first-stage")
    if out is not None:
        _check_writable(out)
    said, values = (
        _reconstructions(
            model,
            data,
            split=split or "test",
            count=count,
            size=size,
            seed=seed,
            batch=batch,
            config=config,
            device=device,
            precision=precision,
        )
        if first_stage
        else _obedience(
            model,
            data,
            count=count,
            batch=batch,
            masks=masks,
            sample={"seed": seed or 0, "solver": solver, "steps": steps, "guidance": guidance, "match": match},
            opened={"config": config, "device": device, "dtype": "float32" if precision == "auto" else precision},
        )
    )
    typer.echo(json.dumps(values, indent=2, ensure_ascii=False) if as_json else said)
    if out is not None:
        from darkroom.core.record import write_json

        write_json(out, values)


def _reconstructions(
    model: str,
    data: str,
    *,
    split: str,
    count: int | None,
    size: int | None,
    seed: int | None,
    batch: int,
    config: Path | None,
    device: str,
    precision: str,
) -> tuple[str, dict[str, Any]]:
    """What a first stage keeps, as a table and as JSON values."""
    from darkroom.cli.watch import Counter
    from darkroom.core.compute import sampling_compute
    from darkroom.data.transforms import TransformSpec
    from darkroom.evaluate.first_stage import evaluate_first_stage
    from darkroom.evaluate.judges import present_judge, present_lpips
    from darkroom.tasks.first_stage import check_channels, open_first_stage

    compute = sampling_compute(device, precision)
    opened = open_first_stage(model, config=config, compute=compute)
    channels = check_channels(opened.model)
    blind = seed is None and opened.seed is None and split != "all"
    seed = opened.seed or 0 if seed is None else seed
    side = size or opened.size
    source = _pictures(data, split, seed=seed, size=side, count=count, alpha=channels == 4)
    side = side or _usual_size(source, factor=opened.model.spec.factor)
    for sentence in opened.odd:
        typer.echo(f"note: {sentence}", err=True)
    report = evaluate_first_stage(
        opened.model,
        source,
        transform=TransformSpec.model_validate({"size": side, "channels": channels}),
        judge=present_judge(compute),
        lpips=present_lpips(compute),
        compute=compute,
        batch=batch,
        about={"model": opened.name, "split": split, "seed": seed, "count": count},
        on_batch=Counter("pictures").show,
    )
    if blind:
        typer.echo("note: which pictures this model learnt from is not known; those of the test split may be", err=True)
    return _table(report), report.plain()


def _obedience(
    model: str,
    data: str,
    *,
    count: int | None,
    batch: int,
    masks: Path | None,
    sample: dict[str, Any],
    opened: dict[str, Any],
) -> tuple[str, dict[str, Any]]:
    """Whether a text model obeys captions of `shapes`, as a table and as JSON values; others: `_conditions`."""
    from darkroom.cli.watch import Counter
    from darkroom.core.errors import InputError, NotYetError
    from darkroom.evaluate.obedience import captions_trained_on, evaluate_obedience
    from darkroom.tasks.load import load

    loaded = load(model, **opened)
    if masks is not None and "masked" not in loaded.fields:
        raise InputError(f"--masks does not fit: {loaded.name} does not inpaint")
    if sample["match"] is not None and not {"masked", "low_res"} & set(loaded.fields):
        raise InputError(f"--match does not fit: {loaded.name} neither inpaints nor enlarges")
    if loaded.fields and (data != "shapes" or set(loaded.fields) != {"caption"}):
        return _conditions(loaded, data, count=count, batch=batch, masks=masks, sample=sample)
    if not loaded.fields:
        raise NotYetError(
            f"{loaded.name} is steered by nothing, so it cannot disobey, and how near its pictures come to "
            "others is not measured yet; its first stage is: give --first-stage"
        )
    known = captions_trained_on(loaded.card, on_scene=Counter("scenes").show)
    if known is None:
        typer.echo(f"note: {_unknown(loaded.card)}", err=True)
    report = evaluate_obedience(
        loaded,
        count=count or PROMPTS,
        **{name: value for name, value in sample.items() if name != "match"},
        trained_on=known or frozenset(),
        batch=batch,
        on_picture=Counter("pictures").show,
    )
    lines = [f"{'things':>6}{'prompts':>9}{'obeyed':>9}{'shown':>9}{'shuffled':>10}"]
    for each in report.by_things:
        shuffled = "-" if each.shuffled is None else f"{each.shuffled:.1%}"
        shares = f"{each.obeyed:>9.1%}{each.shown:>9.1%}{shuffled:>10}"
        lines.append(f"{each.things:>6}{each.prompts:>9}{shares}")
    made = report.protocol
    lines += ["", ", ".join(f"{name} {value}" for name, value in made["sample"].items())]
    lines += [f"model {made['model']['name']}, weights {made['model']['weights_hash']}; {LEGEND}"]
    return "\n".join(lines), report.plain()


def _conditions(
    model: Any, data: str, *, count: int | None, batch: int, masks: Path | None, sample: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Whether a model does what it is steered to, as a table and as JSON values."""
    from darkroom.cli.watch import Counter
    from darkroom.evaluate.conditions import evaluate_conditions
    from darkroom.evaluate.judges import present_judge
    from darkroom.tasks.held_out import spoiling_of

    card = model.card.get("data")
    known = card if isinstance(card, dict) else {}
    seed = known.get("seed") if isinstance(known.get("seed"), int) else 0
    side = model.spec.image_size
    alpha = model.spec.first_stage.image_channels == 4
    words = str(known.get("caption_field", "caption"))
    source = _pictures(data, "test", seed=seed, size=side, count=count or PROMPTS, alpha=alpha, caption_field=words)
    report = evaluate_conditions(
        model,
        source,
        spoiling=spoiling_of(model, masks=masks),
        judge=present_judge(model.compute),
        sample=sample,
        batch=batch,
        on_picture=Counter("pictures").show,
    )
    measures = list(dict.fromkeys(key for figures in report.ways.values() for key in figures))
    width = max(map(len, measures)) + 2
    lines = [" " * width + "".join(f"{name:>12}" for name in report.ways)]
    for key in measures:
        cells = (f"{figures[key]:.4f}" if key in figures else "-" for figures in report.ways.values())
        lines.append(f"{key:<{width}}" + "".join(f"{cell:>12}" for cell in cells))
    made = report.protocol
    lines += [
        "",
        f"{made['data']['pictures']} test pictures of {made['data']['name']}; "
        + ", ".join(f"{name} {value}" for name, value in made["sample"].items()),
    ]
    lines += [f"model {made['model']['name']}, weights {made['model']['weights_hash']}; judge {made['judge']['hash']}"]
    return "\n".join(lines), report.plain()


def _unknown(card: Any) -> str:
    """Why it is not known which captions a model has seen."""
    match card:
        case {"data": {"source": str(source)}} if source != "shapes":
            return f"this model was trained on {source!r}, not on `shapes`: such captions are new to it"
        case _:
            return "not all that this model was trained on is known; it may have seen some captions"


def _check_writable(out: Path) -> None:
    """`InputError` before anything is measured."""
    from darkroom.core.errors import InputError
    from darkroom.core.record import writable_folder

    writable_folder(out.parent)
    if out.is_dir():
        raise InputError(f"{out}: --out names the file of the report, and this is a folder")


def _pictures(
    data: str,
    split: str,
    *,
    seed: int,
    size: int | None,
    count: int | None,
    alpha: bool,
    caption_field: str = "caption",
) -> Any:
    """The pictures asked for; `count` of them are drawn from the whole split by the seed."""
    import torch

    from darkroom.core.seeds import generator
    from darkroom.data.sources import CANVAS, Joined, Subset, open_data

    train, test = open_data(data, seed=seed, size=size or CANVAS, alpha=alpha, caption_field=caption_field)
    source = {"test": test, "train": train, "all": Joined(train, test)}[split]
    if count is None or count >= len(source):
        return source
    drawn = torch.randperm(len(source), generator=generator(seed, 0, purpose="evaluate/count"))[:count]
    return Subset(source, tuple(sorted(drawn.tolist())))


def _usual_size(source: Any, *, factor: int) -> int:
    """For a model that does not say its size: the pictures' median shorter side, at most 256, a multiple of f."""
    import statistics

    median = statistics.median_low(min(source.size(row)) for row in range(len(source)))
    return max(1, min(LARGEST_DEFAULT, median) // factor) * factor


def _table(report: Any) -> str:
    """Figures by row, ways of reconstructing by column; the protocol below."""
    from dataclasses import asdict

    given, made = report.protocol["given"], report.protocol
    ways = {given["model"]: report.figures, **{f"bicubic {name}": each for name, each in report.bicubic.items()}}
    widths = [max(len(name), 10) for name in ways]
    lines = [" " * 26 + "".join(f"{name:>{width + 2}}" for name, width in zip(ways, widths, strict=True))]
    columns = [asdict(figures) for figures in ways.values()]
    for title, key, form in ROWS:
        if any(column[key] is not None for column in columns):
            cells = ("-" if column[key] is None else form.format(column[key]) for column in columns)
            lines.append(f"{title:<26}" + "".join(f"{c:>{w + 2}}" for c, w in zip(cells, widths, strict=True)))
    if report.codes is not None:
        use = report.codes
        lines.append(f"codes: {use.used} of {use.codes} used ({use.share:.0%}), perplexity {use.perplexity:.1f}")
    data, size = made["data"], made["preprocessing"]["size"]
    split = {"all": "of all"}.get(given["split"], given["split"])
    lines += [
        "",
        f"{data['pictures']} {split} pictures of {data['name']} (seed {given['seed']}, fingerprint "
        f"{data['fingerprint']}), {size} x {size}, centre, f = {made['model']['factor']}",
        f"{made['judge']['name']} {made['judge']['hash']}, weights {made['model']['weights_hash']}",
        *(f"note: {sentence}" for sentence in report.notes),
    ]
    return "\n".join(lines)

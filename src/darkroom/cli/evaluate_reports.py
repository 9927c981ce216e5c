"""What `darkroom evaluate` says of first stages, obedience and conditions: tables of their reports."""

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from darkroom.cli.answers import note

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


@final
@dataclass(frozen=True, eq=False)
class Said:
    """A report, the lines that a terminal shows of it, and where it was computed."""

    text: str
    report: Any
    compute: Any


def reconstructions(
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
) -> Said:
    """What a first stage keeps."""
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
    source = pictures_of(data, split, seed=seed, size=side, count=count, alpha=channels == 4)
    side = side or usual_size(source, factor=opened.model.spec.factor)
    for sentence in opened.odd:
        note(sentence)
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
        note("which pictures this model learnt from is not known; those of the test split may be")
    return Said(_table(report), report, compute)


def steered(
    model: Any, data: str, *, count: int | None, batch: int, masks: Path | None, sample: dict[str, Any]
) -> Said:
    """Whether a text model obeys captions of `shapes`, whether any other does what it is steered to."""
    if data != "shapes" or set(model.fields) != {"caption"}:
        return _conditions(model, data, count=count, batch=batch, masks=masks, sample=sample)
    return _obedience(model, count=count, batch=batch, sample=sample)


def _obedience(model: Any, *, count: int | None, batch: int, sample: dict[str, Any]) -> Said:
    from darkroom.cli.watch import Counter
    from darkroom.evaluate.obedience import captions_trained_on, evaluate_obedience

    known = captions_trained_on(model.card, on_scene=Counter("scenes").show)
    if known is None:
        note(_unknown(model.card))
    report = evaluate_obedience(
        model,
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
    lines += ["", ", ".join(f"{name} {value}" for name, value in made["sample"].items() if value is not None)]
    lines += [f"model {made['model']['name']}, weights {made['model']['weights_hash']}; {LEGEND}"]
    return Said("\n".join(lines), report, model.compute)


def _conditions(
    model: Any, data: str, *, count: int | None, batch: int, masks: Path | None, sample: dict[str, Any]
) -> Said:
    from darkroom.cli.watch import Counter
    from darkroom.evaluate.conditions import evaluate_conditions
    from darkroom.evaluate.judges import present_judge
    from darkroom.tasks.held_out import spoiling_of

    source = pictures_for(model, data, split="test", count=count or PROMPTS)
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
        + ", ".join(f"{name} {value}" for name, value in made["sample"].items() if value is not None),
    ]
    lines += [f"model {made['model']['name']}, weights {made['model']['weights_hash']}; judge {made['judge']['hash']}"]
    lines += [f"note: {sentence}" for sentence in report.notes]
    return Said("\n".join(lines), report, model.compute)


def _unknown(card: Any) -> str:
    """Why it is not known which captions a model has seen."""
    match card:
        case {"data": {"source": str(source)}} if source != "shapes":
            return f"this model was trained on {source!r}, not on `shapes`: such captions are new to it"
        case _:
            return "not all that this model was trained on is known; it may have seen some captions"


def pictures_for(model: Any, data: str, *, split: str, count: int | None) -> Any:
    """Pictures as a model's training split and saw them."""
    card = model.card.get("data")
    known = card if isinstance(card, dict) else {}
    return pictures_of(
        data,
        split,
        seed=known.get("seed") if isinstance(known.get("seed"), int) else 0,
        size=model.spec.image_size,
        count=count,
        alpha=model.spec.first_stage.image_channels == 4,
        caption_field=str(known.get("caption_field", "caption")),
    )


def pictures_of(
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


def usual_size(source: Any, *, factor: int) -> int:
    """For a model that does not say its size: the pictures' median shorter side, at most 256, a multiple of f."""
    median = statistics.median_low(min(source.size(row)) for row in range(len(source)))
    return max(1, min(LARGEST_DEFAULT, median) // factor) * factor


def _table(report: Any) -> str:
    """Figures by row, ways of reconstructing by column; the protocol below."""
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

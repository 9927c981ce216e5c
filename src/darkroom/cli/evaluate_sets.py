"""What `darkroom evaluate` does with sets: a folder of pictures, or what a model draws, beside real pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from darkroom.cli.evaluate_reports import PROMPTS, pictures_for, pictures_of, usual_size

FOLDER = "evaluations"  # where cards go without --out
BESIDE = 64  # pictures of each set on the page


@final
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What both kinds of sets are measured by: the options of the command that they share."""

    data: str
    features: Sequence[str]
    split: str | None
    count: int | None
    batch: int
    out: Path | None
    device: str
    precision: str
    against: tuple[Any, str] | None

    def folder(self, name: str) -> Path:
        """Where the card, pictures and features go."""
        from darkroom.data.place import called

        if self.out is not None and self.out.suffix != ".json":
            return self.out
        data = called(self.data).replace(":", "-") or "data"
        return Path(FOLDER) / f"{name}-on-{data}"


@final
@dataclass(frozen=True, eq=False)
class Made:
    """A card, where it goes, and pictures of both sets for its page."""

    card: Any
    folder: Path
    pictures: Mapping[str, Any]


def holds_pictures(place: str) -> bool:
    """Is this a folder of pictures, and no model, run or folder of diffusers?"""
    from darkroom.checkpoint.diffusers import is_folder
    from darkroom.data.metadata import has_pictures
    from darkroom.tasks.find import built_in

    folder = Path(place)
    if place in built_in() or not folder.is_dir():
        return False
    known = ("model.safetensors", "first_stage/model.safetensors", "recipe.yaml", "unet")
    return not (is_folder(folder) or any((folder / name).exists() for name in known)) and has_pictures(folder)


def evaluate_pictures(place: str, wanted: Wanted, *, size: int | None) -> Made:
    """A folder of pictures beside the data."""
    from darkroom.core.compute import sampling_compute
    from darkroom.core.spec import parse
    from darkroom.data.transforms import TransformSpec
    from darkroom.evaluate.lots import OfSource

    compute = sampling_compute(wanted.device, wanted.precision)
    given = pictures_of(place, "all", seed=0, size=size, count=wanted.count, alpha=False)
    side = size or usual_size(given, factor=1)
    split = wanted.split or "all"
    real = pictures_of(wanted.data, split, seed=0, size=side, count=None, alpha=False)
    transform = parse(TransformSpec, {"size": side}, where="evaluation")
    return _measured(
        OfSource(given, transform),
        OfSource(real, transform),
        wanted,
        compute=compute,
        subject={"kind": "pictures", "name": given.name},
        split=split,
        notes=_left_out(given.left_out, name=given.name),
    )


def evaluate_whole(model: Any, wanted: Wanted, *, sample: dict[str, Any], masks: Path | None) -> Made:
    """What a model draws beside the data; a steered one is asked by the data's own rows."""
    from darkroom.evaluate.conditions import check_says
    from darkroom.evaluate.judges import present_judge, present_lpips
    from darkroom.evaluate.lots import Asking, Drawn, OfSource
    from darkroom.evaluate.protocol import about
    from darkroom.evaluate.quality import Pairs
    from darkroom.tasks.held_out import spoiling_of

    split = wanted.split or ("test" if model.fields else "all")
    source = pictures_for(model, wanted.data, split=split, count=None)
    if model.fields:
        check_says(model, source)
    asking = Asking(
        model,
        sample,
        count=wanted.count or PROMPTS,
        source=source if model.fields else None,
        spoiling=spoiling_of(model, masks=masks),
    )
    folder = wanted.folder(model.name)
    return _measured(
        Drawn.of(asking, folder=folder, batch=wanted.batch),
        OfSource(source, asking.transform),
        wanted,
        compute=model.compute,
        subject={"kind": "model", **about(model)},
        split=split,
        pairs=Pairs(asking, present_judge(model.compute), present_lpips(model.compute)),
    )


def _measured(
    made: Any,
    real: Any,
    wanted: Wanted,
    *,
    compute: Any,
    subject: dict[str, Any],
    split: str,
    pairs: Any = None,
    notes: Sequence[str] = (),
) -> Made:
    from darkroom.data.sources import Subset
    from darkroom.evaluate.lots import OfSource
    from darkroom.evaluate.networks import open_networks
    from darkroom.evaluate.quality import Measuring, measure

    networks, odd = open_networks(wanted.features or ("judge",), compute)
    folder = wanted.folder(subject["name"])
    card = measure(
        Measuring(
            subject=subject,
            made=made,
            real=real,
            networks=networks,
            folder=folder,
            compute=compute,
            split=split,
            pairs=pairs,
            notes=[*notes, *odd, *_left_out(real.source.left_out)],
            tell=_counter,
            against=wanted.against,
        )
    )
    asked = None if pairs is None or pairs.asking.source is None else Subset(real.source, pairs.asking.rows)
    beside = real if asked is None else OfSource(asked, real.transform)  # the rows by which those were asked
    return Made(card, folder, {"made": _some(made), "real": _some(beside)})


def _counter(what: str) -> Callable[[int, int], None]:
    from darkroom.cli.watch import Counter

    return Counter(what).show


def _left_out(left_out: Sequence[tuple[str, str]], *, name: str = "the data") -> list[str]:
    return [f"{len(left_out)} pictures of {name} were left out, e.g. {': '.join(left_out[0])}"] if left_out else []


def _some(lot: Any) -> list[Any]:
    """Pictures for the page, on white where they are transparent."""
    import torch
    from PIL import Image

    from darkroom.core.pictures import from_bytes, to_pictures
    from darkroom.metrics.contributions import some_rows

    rows = some_rows(len(lot), most=BESIDE).tolist()
    found = to_pictures(from_bytes(torch.cat([lot.pictures(range(row, row + 1)) for row in rows])))
    white = [Image.new("RGBA", each.size, "white") for each in found]
    return [
        Image.alpha_composite(ground, each).convert("RGB") if each.mode == "RGBA" else each
        for ground, each in zip(white, found, strict=True)
    ]

"""The measuring cells of a study: cards of what models draw, and how many pictures a second they draw or learn."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast, final

from darkroom.core.compute import Compute, sampling_compute
from darkroom.core.record import read_json, read_lines, writable_folder, write_json
from darkroom.core.spec import parse
from darkroom.data.examine import examine
from darkroom.data.masks import MasksSpec
from darkroom.data.sources import Source, Subset, open_data
from darkroom.data.transforms import TransformSpec
from darkroom.diffusion.model import LatentDiffusion
from darkroom.evaluate.card import Card
from darkroom.evaluate.judges import present_judge, present_lpips
from darkroom.evaluate.lots import Asking, Drawn, OfSource
from darkroom.evaluate.networks import open_networks
from darkroom.evaluate.protocol import about
from darkroom.evaluate.quality import Measuring, Pairs, measure
from darkroom.metrics.contributions import some_rows
from darkroom.recipes.clock import seconds_before
from darkroom.recipes.describe import count
from darkroom.recipes.pace import denoiser_pace
from darkroom.recipes.resolve import resolve
from darkroom.recipes.run import MARKS, MODEL, PICTURES, Tell, open_recipe_data
from darkroom.recipes.schema import Recipe
from darkroom.studies.cells import HeldOut, Pace, Quality, Sampling, Training
from darkroom.tasks.generate import generate
from darkroom.tasks.held_out import spoiling_of
from darkroom.tasks.load import load
from darkroom.tasks.model import Model

SEEN: Final = "pictures"  # of all cells, and the features of real pictures, which they share
REPEATS: Final = 2
STEADY: Final = 1.2  # times as long as the quickest of equal draws
TOGETHER: Final = 16  # pictures drawn together for quality
NEAR: Final = 0.05  # of a training: models that are nearer to one another are measured once


@final
@dataclass(frozen=True, eq=False)
class Place:
    """Where a study is made. trainings: the models of which names mean its own, the others are for `load`."""

    folder: Path
    trainings: Mapping[str, Training]
    features: tuple[str, ...]
    device: str
    tell: Tell

    def of(self, name: str) -> Path:
        """The folder of a cell."""
        return self.folder / "cells" / name

    def model(self, name: str) -> Model:
        """One that was trained here, or any other."""
        return load(self.of(name) / MODEL if name in self.trainings else name, device=self.device)

    def progress(self, cell: str) -> Callable[[str], Callable[[int, int], None]]:
        """What is told how far each part of a cell has come."""
        return lambda what: functools.partial(self.tell, f"{cell}: {what}")


def quality(cell: Quality, place: Place) -> dict[str, Any]:
    """Figures, protocol and notes of the card; for a course one point for each model that was kept."""
    if not cell.course:
        return _said(_card(cell, place.model(cell.model), place))
    run = place.of(cell.model)
    lines, before = read_lines(run / "denoiser" / "log.jsonl"), seconds_before(run / "denoiser")
    seconds = {line["step"]: before + line["seconds"] for line in lines if "seconds" in line}
    points = [_point(cell, path, place) for path in _apart(sorted((run / MARKS).glob("*.safetensors")))]
    return {"points": [{"seconds": seconds.get(each["step"]), **each} for each in points]}


def _apart(marks: Sequence[Path]) -> list[Path]:
    """Without those hardly older than the next: the last look may follow another after a few steps."""
    least = NEAR * int(marks[-1].stem)
    return [one for one, then in pairwise(marks) if int(then.stem) - int(one.stem) > least] + [marks[-1]]


def _point(cell: Quality, path: Path, place: Place) -> dict[str, Any]:
    """A model on the way, measured once; the last is the run's own, which is drawn from elsewhere, too."""
    kept = writable_folder(place.of(cell.name)) / f"{path.stem}.json"
    if not kept.exists():
        last = path == max(path.parent.glob(f"*{path.suffix}"))
        model = place.model(cell.model) if last else load(path, device=place.device)
        write_json(kept, {"step": int(path.stem), **_said(_card(cell, model, place))})
    return read_json(kept)


def _said(card: Card) -> dict[str, Any]:
    values = card.plain()
    return {name: values[name] for name in ("figures", "protocol", "notes", "subject", "machine", "versions")}


def _card(cell: Quality, model: Model, place: Place) -> Card:
    against, memo = cell.against, place.folder / PICTURES
    asking = asking_of(model, cell.sampling, data=against.data, most=against.most, count=cell.count, memo=memo)
    if cell.holes is not None:
        least, most = cell.holes
        asking = replace(asking, spoiling=asking.spoiling.model_copy(update={"masks": _holes(asking, least, most)}))
    real, split = real_pictures(model, against.data, most=against.most, memo=memo)
    networks, odd = open_networks(place.features, model.compute)
    folder = writable_folder(place.folder / SEEN)
    return measure(
        Measuring(
            subject={"kind": "model", **about(model)},
            made=Drawn.of(asking, folder=folder, batch=TOGETHER),
            real=OfSource(real, asking.transform),
            networks=networks,
            folder=folder,
            compute=model.compute,
            split=split,
            pairs=Pairs(asking, present_judge(model.compute), present_lpips(model.compute)),
            notes=odd,
            tell=place.progress(cell.name),
        )
    )


def _holes(asking: Asking, least: float, most: float) -> MasksSpec:
    """Masks of the model's own kind, of another share."""
    own = asking.spoiling.masks
    kind = own if isinstance(own, MasksSpec) else MasksSpec()
    return kind.model_copy(update={"least": least, "most": most})


def asking_of(
    model: Model, sampling: Sampling, *, data: str | None, most: int, count: int, memo: Path | None = None
) -> Asking:
    """What a model is asked for: by rows of the data where anything steers it. memo: as of `real_pictures`."""
    source = None
    if model.fields:
        assert data is not None
        source, _ = real_pictures(model, data, most=most, memo=memo)
    return Asking(model, sampling.asked(), count=count, source=source, spoiling=spoiling_of(model))


def real_pictures(model: Model, data: str, *, most: int, memo: Path | None = None) -> tuple[Source, str]:
    """At most so many that a model is compared with, and of which split: training pictures where nothing steers it.

    memo: of a look at every pixel, by which what trainings leave out is left out here too, once for the whole study
    (None: it is not looked for).
    """
    known = cast("dict[str, Any]", model.card.get("data") or {})
    splits = open_data(
        data,
        seed=int(known.get("seed") or 0),
        size=model.spec.image_size,
        alpha=model.spec.first_stage.image_channels == 4,
        caption_field=str(known.get("caption_field", "caption")),
    )
    if memo is not None:
        splits = examine(splits, memo=memo)
    split = "test" if model.fields else "train"
    return some_of(splits.test if model.fields else splits.train, most=most), split


def some_of(source: Source, *, most: int) -> Source:
    """At most so many of its pictures, always the same ones."""
    rows = some_rows(len(source), most=most)
    return source if len(rows) == len(source) else Subset(source, tuple(rows.tolist()))


def held_out(cell: HeldOut, place: Place) -> dict[str, Any]:
    """A card of held-out pictures beside training pictures; nothing but a note where there are too few of them."""
    splits = open_data(cell.against.data, seed=cell.seed, size=cell.size, alpha=cell.channels == 4)
    train, test = examine(splits, memo=place.folder / PICTURES)
    if len(test) < 2:
        return {"notes": [f"{cell.name}: {len(test)} pictures are held out, too few to be compared with the others"]}
    compute = sampling_compute(place.device)
    transform = parse(TransformSpec, {"size": cell.size, "channels": cell.channels}, where=cell.name)
    networks, odd = open_networks(place.features, compute)
    return _said(
        measure(
            Measuring(
                subject={"kind": "pictures", "name": cell.name},
                made=OfSource(some_of(test, most=cell.count), transform),
                real=OfSource(some_of(train, most=cell.against.most), transform),
                networks=networks,
                folder=writable_folder(place.folder / SEEN),
                compute=compute,
                split="train",
                notes=odd,
                tell=place.progress(cell.name),
            )
        )
    )


def pace(cell: Pace, place: Place) -> dict[str, Any]:
    """Pictures a second drawn, the quickest of some attempts, and learnt from where a recipe is timed."""
    found: dict[str, Any] = {}
    if cell.recipe is not None:
        splits = open_recipe_data(cell.recipe.data, seed=cell.recipe.seed)
        fitted = resolve(cell.recipe, splits.train, held_out=splits.test).recipe
        assert fitted.denoiser is not None
        assert fitted.denoiser.train is not None
        found["trained_per_second"] = fitted.denoiser.train.batch / denoiser_pace(fitted, device=place.device)
        found |= {"parameters": count(fitted)["network"], "pictures": len(splits.train)}
        model, data = untrained(fitted, device=place.device), fitted.data.source
    else:
        assert cell.model is not None
        model = place.model(cell.model)
        training = place.trainings.get(cell.model)
        data = cell.data if training is None else training.recipe.data.source
    seconds = _seconds(model, cell, data=data, memo=place.folder / PICTURES)
    quickest, slowest = min(seconds), max(seconds)
    disturbed = (
        f"{cell.name}: equal draws took {quickest:.3g} to {slowest:.3g} seconds, so other work was in the way; the "
        "quickest counts"
    )
    return {
        **found,
        "drawn_per_second": cell.batch / quickest,
        "batch": cell.batch,
        "seconds": seconds,
        "notes": [disturbed] if slowest > STEADY * quickest else [],
    }


def untrained(recipe: Recipe, *, device: str, compute: Compute | None = None) -> Model:
    """A model of that recipe with any weights, for what does not depend on them."""
    spec = recipe.model_spec()
    assert spec is not None
    diffusion = LatentDiffusion(spec)
    diffusion.scale = diffusion.scale.nan_to_num(nan=1.0)
    assert recipe.denoiser is not None
    card = {"sample": recipe.denoiser.sample.plain()}
    return Model(diffusion, compute=compute or sampling_compute(device), name=recipe.name, card=card)


def _seconds(model: Model, cell: Pace, *, data: str | None, memo: Path) -> list[float]:
    """Of some draws of a batch, after one step to warm up."""
    asking = asking_of(model, cell.sampling, data=data, most=cell.batch, count=cell.batch, memo=memo)
    request = asking.request(range(cell.batch))
    if cell.size is not None:
        request = request.model_copy(update={"size": (cell.size, cell.size)})
    list(generate(model, request.model_copy(update={"steps": 1}), batch=cell.batch))
    taken = list[float]()
    for _ in range(REPEATS):
        begun = time.perf_counter()
        list(generate(model, request, batch=cell.batch))
        taken.append(time.perf_counter() - begun)
    return taken

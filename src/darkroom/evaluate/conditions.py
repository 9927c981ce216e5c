"""Does a model do what it is steered to: classes, layouts, maps, pictures made small or given holes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from PIL import Image
from torch import Tensor

from darkroom import __version__
from darkroom.conditioning.spatial import MapSpec
from darkroom.core.errors import InputError
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.core.shapes import Images, PerSample
from darkroom.core.spec import parse
from darkroom.data.examples import Source
from darkroom.data.inputs import captions, check_maps, label_of, seen_things
from darkroom.data.loader import still_batches
from darkroom.data.sources import ShapesSource, Subset
from darkroom.data.transforms import TransformSpec, still_map
from darkroom.evaluate.drawing import drawn_by_all
from darkroom.evaluate.protocol import about, few
from darkroom.evaluate.report import ConditionsReport
from darkroom.metrics.agreement import obeys, read_map, read_scene
from darkroom.metrics.contributions import Estimate, frechet, interval, kernel, mean_of, reach, share_of
from darkroom.metrics.extractors import Extractor
from darkroom.metrics.fill import mean_fill, telea_fill
from darkroom.metrics.pairs import psnr, ssim
from darkroom.metrics.sets import Gaussian
from darkroom.scenes.agree import best_overlap
from darkroom.scenes.vocabulary import NAMED
from darkroom.tasks.held_out import Spoiling, request_for
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request
from darkroom.tasks.settle import settle

NEIGHBOURS: Final = 3
SAMPLES: Final = 8  # of each hole, whose mean is compared with the mean fill
Progress = Callable[[int, int], None]
Ways = dict[str, dict[str, Estimate]]


def evaluate_conditions(
    model: Model,
    source: Source,
    *,
    spoiling: Spoiling,
    judge: Extractor,
    sample: Mapping[str, Any],
    batch: int = 16,
    on_picture: Progress | None = None,
) -> ConditionsReport:
    """Draw a picture for each row of a source, steered by what that row shows, and measure it beside simple baselines.

    Scenes of the built-in world are read back: the shape of a class, boxes and categories of a layout, the map, the
    caption. Pictures made small or given holes are compared with the whole ones. For any other task and source the set
    of what was drawn is compared with the set of what it was asked by. sample: seed, solver, steps, guidance ·
    judge: for distances · on_picture: called with (pictures done, of). `InputError` for a model that nothing steers.
    """
    check_says(model, source)
    scenes, measured = _is_scenes(source), set(model.fields)
    channels = model.spec.first_stage.image_channels
    transform = parse(TransformSpec, {"size": model.spec.image_size, "channels": channels}, where="evaluation")
    request = settle(
        model,
        request_for(model, source, rows=range(len(source)), transform=transform, spoiling=spoiling, sample=sample),
    )
    pictures = drawn_by_all(model, request, batch=batch, look=_itself, on_picture=on_picture)
    ways: Ways = {}
    if scenes and measured - {"low_res", "masked"}:
        ways["read back"] = _read_back(pictures, source, request=request, fields=measured)
    whole = torch.cat([from_bytes(part.images) for part in still_batches(source, transform, batch_size=64)])
    made = from_bytes(torch.stack([to_bytes(each, channels) for each in pictures]))
    if "low_res" in measured:
        ways |= _enlarged(request, whole=whole, made=made, judge=judge, channels=channels)
    if "masked" in measured:
        again = _mean_of_more(model, request, made=made, batch=batch, on_picture=on_picture)
        ways |= _filled(request, whole=whole, made=made, mean=again, judge=judge)
    if not ways:
        ways["model"] = _alike(whole, made, judge=judge)
    within = {way: {name: interval(each) for name, each in figures.items()} for way, figures in ways.items()}
    return ConditionsReport(
        {way: {name: each.value for name, each in figures.items()} for way, figures in ways.items()},
        _protocol(model, source, request, spoiling=spoiling, judge=judge),
        few(len(source)) if any("Fréchet distance" in figures for figures in ways.values()) else (),
        {way: {name: each for name, each in known.items() if each is not None} for way, known in within.items()},
    )


def _alone(value: float) -> Estimate:
    """A figure that is no mean over pictures, so that it has no interval."""
    return Estimate(value, torch.empty(0, dtype=torch.float64))


def _mean(values: PerSample) -> Estimate:
    """The mean, in the type of the values."""
    return Estimate(float(values.mean()), values.double().cpu() - float(values.double().mean()))


def check_says(model: Model, source: Source) -> None:
    """`InputError`, before anything is drawn, where a source does not say what the model is steered by."""
    if not model.fields:
        raise InputError(
            f"{model.name}: {model.words.takes()}; so it cannot be measured whether it does what it is told"
        )
    lacking = set(model.fields) - {"low_res", "masked"} - source.fields
    if "label" in source.fields:  # the classes' names are captions
        lacking -= {"caption"}
    if lacking:
        hint = "; shapes:single has labels" if _is_scenes(source) and "label" in lacking else ""
        raise InputError(f"{source.name} does not say the {min(lacking)} that {model.name} is steered by{hint}")
    for spec in model.spec.conditioners:
        if isinstance(spec, MapSpec):
            check_maps(source, classes=len(source.map_classes) or spec.classes)


def _is_scenes(source: Source) -> bool:
    inner = source.source if isinstance(source, Subset) else source
    return isinstance(inner, ShapesSource)


def _read_back(
    pictures: Sequence[Image.Image], source: Source, *, request: Request, fields: set[str]
) -> dict[str, Estimate]:
    """Shares and overlaps, 0..1, by measure."""
    found: dict[str, Estimate] = {}
    seen = [read_scene(picture) for picture in pictures]
    if "label" in fields:
        wanted = [source.classes[label_of(source, row)] for row in range(len(source))]
        right = [len(each) == 1 and each[0].shape == name for each, name in zip(seen, wanted, strict=True)]
        found["class right"] = share_of(right)
    if "caption" in fields:
        unnamed = [max(0, len(source.objects(row) or ()) - NAMED) for row in range(len(source))]
        right = [obeys(*pair, unnamed=more) for *pair, more in zip(seen, captions(source), unnamed, strict=True)]
        found["caption obeyed"] = share_of(right)
    if "objects" in fields:
        pairs = [
            best_overlap(
                [(source.categories.index(each.shape), each.box) for each in things],
                kind=thing.category,
                box=thing.box,
            )
            for row, things in enumerate(seen)
            for thing in seen_things(source, row)[: len(request.layouts[row])]
        ]
        found["category right"] = share_of([right for right, _ in pairs])
        found["mean box IoU"] = mean_of([overlap for _, overlap in pairs])
    if "map" in fields:
        maps = [read_map(picture) for picture in pictures]
        wanted_maps = [_map_of(source, row, size=pictures[row].size[0]) for row in range(len(source))]
        overlap = mean_iou(np.stack(maps), np.stack(wanted_maps), classes=len(source.map_classes))
        found["mean IoU of classes"] = _alone(overlap)
    return found


def _map_of(source: Source, row: int, *, size: int) -> Int[np.ndarray, "h w"]:
    map_ = source.example(row).map
    assert map_ is not None
    return still_map(torch.from_numpy(map_), parse(TransformSpec, {"size": size}, where="map")).long().numpy()


def mean_iou(found: Integer[np.ndarray, "n h w"], wanted: Integer[np.ndarray, "n h w"], *, classes: int) -> float:
    """Intersection over union of each class over all pixels, averaged over classes that occur in either."""
    table = np.bincount((wanted.astype(np.int64) * classes + found).ravel(), minlength=classes**2)
    table = table.reshape(classes, classes)
    shared = np.diag(table)
    either = table.sum(0) + table.sum(1) - shared
    return float((shared[either > 0] / either[either > 0]).mean())


def _enlarged(request: Request, *, whole: Images, made: Images, judge: Extractor, channels: int) -> Ways:
    """Bicubic enlargement and the model, against the pictures that were made small."""
    small = torch.cat([each.pixels(channels) for each in request.low_res])
    size = [*whole.shape[-2:]]
    bicubic = torch.nn.functional.interpolate(small, size=size, mode="bicubic", align_corners=False)
    return {
        "bicubic": _pairwise(whole, bicubic, judge=judge) | {"low-res PSNR (dB)": _shrunk_psnr(bicubic, small)},
        "model": _pairwise(whole, made, judge=judge) | {"low-res PSNR (dB)": _shrunk_psnr(made, small)},
    }


def _shrunk_psnr(images: Images, small: Float[Tensor, "b c _h _w"]) -> Estimate:
    """How well a picture, made small again, is the small one it was made from, dB."""
    size = [*small.shape[-2:]]
    again = torch.nn.functional.interpolate(images.clamp(-1, 1), size=size, mode="bicubic", antialias=True)
    return _mean(10 * torch.log10(4 / (again - small).square().mean(dim=(1, 2, 3)).clamp(min=4e-10)))


def _mean_of_more(model: Model, request: Request, *, made: Images, batch: int, on_picture: Progress | None) -> Images:
    """The mean of `SAMPLES` samples of each hole, `made` among them."""
    channels, total, more = model.spec.first_stage.image_channels, made.clone(), SAMPLES - 1
    for number in range(more):
        other, counted = request.model_copy(update={"seed": request.seed + number + 1}), request.total
        pictures = drawn_by_all(
            model,
            other,
            batch=batch,
            look=_itself,
            on_picture=on_picture,
            before=number * counted,
            of=more * counted,
        )
        total += from_bytes(torch.stack([to_bytes(each, channels) for each in pictures]))
    return total / SAMPLES


def _itself(picture: Image.Image) -> Image.Image:
    return picture


def _filled(request: Request, *, whole: Images, made: Images, mean: Images, judge: Extractor) -> Ways:
    """Mean fill, Telea's fill and the model; PSNR in the hole, and that of the mean of several samples."""
    assert request.size is not None
    size = request.size
    masks = torch.cat([each.ink(size) for each in request.masks])
    known = (masks <= 0.5).expand_as(whole)
    ways = {"mean fill": mean_fill(whole, masks), "telea": telea_fill(whole, masks), "model": made}
    found = {
        name: _pairwise(whole, each, judge=judge) | _in_holes(whole, each, masks, named="hole PSNR (dB)")
        for name, each in ways.items()
    }
    if bool(known.any()):
        found["model"]["known pixels identical"] = _alone(float((made == whole)[known].float().mean()))
    found["model"] |= _in_holes(whole, mean, masks, named=f"hole PSNR of the mean of {SAMPLES} (dB)")
    return found


def _in_holes(whole: Images, made: Images, masks: Float[Tensor, "b 1 _h _w"], *, named: str) -> dict[str, Estimate]:
    """PSNR of all masked pixels of all pictures together, dB, at most 100 as of pictures; nothing without any."""
    count = float(masks.sum()) * whole.shape[1]
    if not count:
        return {}
    error = ((whole - made.clamp(-1, 1)).square() * masks).sum() / count
    return {named: _alone(float(10 * torch.log10(4 / error.clamp(min=4e-10))))}


@torch.no_grad()
def _pairwise(whole: Images, made: Images, *, judge: Extractor) -> dict[str, Estimate]:
    """Figures of each picture beside its original, and of both sets."""
    parts = list(zip(whole.split(64), made.clamp(-1, 1).split(64), strict=True))
    seen, drawn = (torch.cat([judge.features(pair[side]) for pair in parts]) for side in (0, 1))
    found = {
        "PSNR (dB)": _mean(torch.cat([psnr(*pair) for pair in parts])),
        "SSIM": _mean(torch.cat([ssim(*pair) for pair in parts])),
        "judge distance": _mean(torch.cat([judge.distance(*pair) for pair in parts])),
    }
    return found | ({"Fréchet distance": _distance(seen, drawn)} if len(whole) > 1 else {})


def _distance(seen: Tensor, drawn: Tensor) -> Estimate:
    """The distance of two sets, with what each drawn picture adds to it."""
    value, pull = frechet(Gaussian.of(drawn), Gaussian.of(seen))
    return Estimate(value, pull.of(drawn))


@torch.no_grad()
def _alike(asked_by: Images, made: Images, *, judge: Extractor) -> dict[str, Estimate]:
    """Figures of both sets through the judge, and of each picture beside the one that it was asked by."""
    parts = list(zip(asked_by.split(64), made.split(64), strict=True))
    seen, drawn = (torch.cat([judge.features(pair[side]) for pair in parts]) for side in (0, 1))
    found = {"judge distance": _mean(torch.cat([judge.distance(*pair) for pair in parts]))}
    if len(asked_by) > 1:
        found["Fréchet distance"] = _distance(seen, drawn)
        found["kernel distance"] = kernel(drawn, seen)
    if len(asked_by) > NEIGHBOURS:
        found["precision"], found["recall"] = reach(seen, drawn, k=NEIGHBOURS)
    return found


def _protocol(
    model: Model, source: Source, request: Request, *, spoiling: Spoiling, judge: Extractor
) -> dict[str, Any]:
    return {
        "model": about(model),
        "data": {"name": source.name, "pictures": len(source), "fingerprint": source.fingerprint()},
        "spoiling": spoiling.plain(),
        "judge": {"name": judge.name, "hash": judge.hash},
        "sample": request.model_dump(include={"seed", "size", "solver", "steps", "eta", "guidance", "match"}),
        "darkroom": __version__,
    }

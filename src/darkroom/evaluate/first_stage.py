"""How much of pictures a first stage keeps: by pixels, by features and as a set, beside bicubic resizing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, final

import torch
from torch import Tensor

from darkroom import __version__
from darkroom.autoencoder.bottleneck import VQSpec, effective
from darkroom.autoencoder.model import Autoencoder
from darkroom.checkpoint.store import spec_hash
from darkroom.core.compute import Compute
from darkroom.core.errors import InputError
from darkroom.core.hashes import weights_hash
from darkroom.core.parallel import of_all, own_rows, world_size
from darkroom.core.pictures import as_saved, from_bytes, to_pictures
from darkroom.core.shapes import Images
from darkroom.data.examples import Source
from darkroom.data.loader import still_batches
from darkroom.data.sources import Joined, ShapesSource, Subset
from darkroom.data.transforms import TransformSpec
from darkroom.evaluate.protocol import few
from darkroom.evaluate.report import CodeUse, Figures, FirstStageReport
from darkroom.metrics.agreement import agrees, read_scene
from darkroom.metrics.contributions import Estimate, Interval, frechet, interval, kernel, mean_of, reach, share_of
from darkroom.metrics.extractors import Extractor, PairDistance
from darkroom.metrics.pairs import bicubic_round_trip, psnr, ssim
from darkroom.metrics.sets import Gaussian
from darkroom.nn.taps import SMALLEST
from darkroom.scenes.draw import Scene
from darkroom.tasks.first_stage import check_channels, through

YARDSTICK: Final = 4  # bicubic at this factor is always measured beside, so that models of any f compare
NEIGHBOURS: Final = 3
Progress = Callable[[int, int], None]


def evaluate_first_stage(
    model: Autoencoder,
    source: Source,
    *,
    transform: TransformSpec,
    judge: Extractor,
    compute: Compute,
    lpips: PairDistance | None = None,
    batch: int = 16,
    about: dict[str, Any] | None = None,
    on_batch: Progress | None = None,
) -> FirstStageReport:
    """All pictures of a source through the first stage, measured as they would be saved.

    Originals and reconstructions pass the same transform (no crop or mirror is drawn, whatever it says). Memory holds
    a batch, and a feature vector of each picture and way. about: JSON values that join the protocol (name, split, seed)
    · on_batch: called with (pictures done, of). `InputError` for sizes that do not fit the model or the judge.
    """
    _check(model, transform, source=source)
    factors = sorted({model.spec.factor, YARDSTICK} - {1})
    truth = _truth(source, transform)
    measuring = replace(compute, dtype=torch.float32)
    ways = {name: _Tally(judge, lpips) for name in ("model", *(f"x{factor}" for factor in factors))}
    codes = _Codes(model)
    originals, own = list[Tensor](), own_rows(len(source), batch=batch)
    for part in still_batches(source, transform, batch_size=batch, rows=own):
        images = from_bytes(part.images)
        made, indices = through(model, images, compute=compute)
        codes.add(indices)
        seen, scenes = compute.place(images), [] if truth is None else [truth(row) for row in part.rows]
        with measuring.autocast():
            originals.append(_features(judge, seen))
            ways["model"].add(seen, compute.place(made), scenes=scenes)
            for factor in factors:
                ways[f"x{factor}"].add(seen, as_saved(bicubic_round_trip(seen, factor)), scenes=scenes)
        if on_batch is not None:  # as if other ranks were as far
            on_batch(min((part.rows[-1] + 1 - own.start) * world_size(), len(source)), len(source))
    seen_first = torch.cat([each for of_rank in of_all(originals) for each in of_rank])
    for each in (codes, *ways.values()):
        each.join()
    found = {name: tally.estimates(seen_first) for name, tally in ways.items()}
    figures = {name: _figures(each) for name, each in found.items()}
    return FirstStageReport(
        intervals={name: _intervals(each) for name, each in found.items()},
        figures=figures.pop("model"),
        bicubic=figures,
        codes=codes.use(),
        protocol=_protocol(model, source, transform=transform, judge=judge, compute=compute, lpips=lpips)
        | {"given": about or {}},
        notes=tuple(_notes(source, transform, judge=judge, lpips=lpips)),
    )


@final
class _Tally:
    """The figures of one way of reconstructing, summed up batch by batch."""

    def __init__(self, judge: Extractor, lpips: PairDistance | None) -> None:
        self._judge, self._lpips = judge, lpips
        self._features: list[Tensor] = []
        self._pairs: dict[str, list[Tensor]] = {}
        self._right: list[bool] = []

    @torch.no_grad()
    def add(self, images: Images, made: Images, *, scenes: Sequence[Scene]) -> None:
        """One more batch, both on the device; scenes: what is in it, where that is known."""
        found = {
            "psnr": psnr(images, made),
            "ssim": ssim(images, made),
            "l1": (images - made).abs().mean(dim=(1, 2, 3)),
            "feature_distance": self._judge.distance(images, made),
        }
        if self._lpips is not None:
            found["lpips"] = self._lpips(images, made)
        for name, values in found.items():
            self._pairs.setdefault(name, []).append(values.cpu().double())
        self._features.append(_features(self._judge, made))
        if scenes:
            seen = (read_scene(picture) for picture in to_pictures(made))
            self._right += [agrees(objects, scene.objects) for objects, scene in zip(seen, scenes, strict=True)]

    def join(self) -> None:
        """Take in what all ranks have added, in their order."""
        ranks = of_all((self._features, self._pairs, self._right))
        self._features = [each for features, _, _ in ranks for each in features]
        self._pairs = {name: [each for _, pairs, _ in ranks for each in pairs.get(name, [])] for name in ranks[0][1]}
        self._right = [each for _, _, right in ranks for each in right]

    def estimates(self, originals: Tensor) -> dict[str, Estimate]:
        """Each figure for which there are pictures enough, with what each of them adds to it."""
        features = torch.cat(self._features)
        found = {name: mean_of(torch.cat(values)) for name, values in self._pairs.items()}
        if self._right:
            found["scenes_right"] = share_of(self._right)
        if len(originals) > 1:
            value, pull = frechet(Gaussian.of(features), Gaussian.of(originals))
            found["frechet_distance"] = Estimate(value, pull.of(features))
            found["kernel_distance"] = kernel(features, originals)
        if len(originals) > NEIGHBOURS:
            found["precision"], found["recall"] = reach(originals, features, k=NEIGHBOURS)
        return found


def _figures(found: Mapping[str, Estimate]) -> Figures:
    values = {name: each.value for name, each in found.items()}
    return Figures(**values, psnr_std=float(found["psnr"].contributions.std(correction=0)))


def _intervals(found: Mapping[str, Estimate]) -> dict[str, Interval]:
    within = {name: interval(each) for name, each in found.items()}
    return {name: each for name, each in within.items() if each is not None}


@final
class _Codes:
    """Which codes of a codebook were used how often."""

    def __init__(self, model: Autoencoder) -> None:
        bottleneck = model.spec.bottleneck
        self._counts = torch.zeros(bottleneck.codes if isinstance(bottleneck, VQSpec) else 0, dtype=torch.int64)

    def add(self, indices: Tensor | None) -> None:
        """Those of one more batch."""
        if indices is not None:
            self._counts += torch.bincount(indices.flatten(), minlength=len(self._counts))

    def join(self) -> None:
        """Those of all ranks."""
        self._counts = torch.stack(of_all(self._counts)).sum(0)

    def use(self) -> CodeUse | None:
        """None where there is no codebook."""
        codes, used = len(self._counts), int((self._counts > 0).sum())
        if codes == 0:
            return None
        return CodeUse(codes, used, used / codes, float(effective(self._counts.double())))


def _truth(source: Source, transform: TransformSpec) -> Callable[[int], Scene] | None:
    """What is in each row, for scenes of the built-in world seen at their own size."""
    match source:
        case ShapesSource() if source.side == transform.size and transform.channels == 3:
            return source.scene
        case Subset() if (whole := _truth(source.source, transform)) is not None:
            return lambda row: whole(source.rows[row])
        case Joined():
            first, second = (_truth(part, transform) for part in (source.first, source.second))
            before = len(source.first)
            if first is None or second is None:
                return None
            return lambda row: first(row) if row < before else second(row - before)
        case _:
            return None


@torch.no_grad()
def _features(judge: Extractor, images: Images) -> Tensor:
    return judge.features(images).float().cpu()


def _check(model: Autoencoder, transform: TransformSpec, *, source: Source) -> None:
    channels, factor, size = check_channels(model), model.spec.factor, transform.size
    if len(source) == 0:
        raise InputError(f"{source.name}: no pictures to evaluate on")
    if transform.channels != channels:
        raise InputError(
            f"pictures with {transform.channels} channels were asked for, this first stage takes {channels}"
        )
    if size < SMALLEST or size % factor:
        fits = max(-(-SMALLEST // factor), round(size / factor)) * factor
        raise InputError(
            f"size {size} does not fit: a multiple of {factor} is needed, and {SMALLEST} at least; {fits} fits"
        )


def _protocol(
    model: Autoencoder,
    source: Source,
    *,
    transform: TransformSpec,
    judge: Extractor,
    compute: Compute,
    lpips: PairDistance | None,
) -> dict[str, Any]:
    spec, size = model.spec, transform.size
    return {
        "model": {
            "spec_hash": spec_hash(spec),
            "weights_hash": weights_hash(model.state_dict().items()),
            "factor": spec.factor,
            "bottleneck": spec.bottleneck.kind,
            "latent": list(model.latent_shape((size, size))),
            "posterior": "mean",
            "precision": str(compute.dtype).removeprefix("torch."),
        },
        "data": {"name": source.name, "pictures": len(source), "fingerprint": source.fingerprint()},
        "preprocessing": {
            "size": size,
            "channels": transform.channels,
            "resize": "shorter side, bicubic with antialiasing",
            "crop": "centre",
            "levels": "8 bits, clipped",
        },
        "judge": {"name": judge.name, "hash": judge.hash},
        "lpips": None if lpips is None else {"name": lpips.name, "hash": lpips.hash},
        "neighbours": NEIGHBOURS,
        "darkroom": __version__,
    }


def _notes(source: Source, transform: TransformSpec, *, judge: Extractor, lpips: PairDistance | None) -> list[str]:
    count = len(source)
    enlarged = sum(min(source.size(row)) < transform.size for row in range(count))
    notes = [f"distances of features are those of the judge {judge.name!r}; they do not compare with Inception's FID"]
    if lpips is None:
        notes.append("LPIPS is not measured: its published weights are not here")
    if enlarged:
        notes.append(f"{enlarged} of {count} pictures are smaller than {transform.size} pixels and were enlarged")
    if source.left_out:
        notes.append(
            f"{len(source.left_out)} pictures of the data set were left out, e.g. {': '.join(source.left_out[0])}"
        )
    if count <= NEIGHBOURS:
        notes.append(f"measures of sets need {NEIGHBOURS + 1} pictures at least, {count} came; some are left out")
    else:
        notes += [f"{said}: those of sets alike lie around zero, on both sides" for said in few(count)]
    return notes

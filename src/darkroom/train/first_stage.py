"""The first stage of a run: train, reconstruct test pictures, measure."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from darkroom.autoencoder.adversary import check_adversary
from darkroom.autoencoder.bottleneck import VQSpec, perplexity
from darkroom.autoencoder.losses import FirstStageLossSpec
from darkroom.autoencoder.model import Autoencoder
from darkroom.autoencoder.statistics import LatentStatistics, LatentSums
from darkroom.core.compute import Compute
from darkroom.core.parallel import on_first, own_share
from darkroom.core.pictures import contact_sheet, from_bytes, save_png, to_pictures
from darkroom.core.record import write_json
from darkroom.data.examples import Source
from darkroom.data.loader import Reading, batches, still_batches
from darkroom.data.order import spread
from darkroom.data.sources import Splits
from darkroom.data.transforms import TransformSpec
from darkroom.metrics.pairs import bicubic_round_trip, psnr
from darkroom.nn.features import judge
from darkroom.nn.taps import SMALLEST
from darkroom.train.events import Event, Sentence, Wrote
from darkroom.train.first_stage_objective import first_stage_objective, opponent_of
from darkroom.train.optim import TrainSpec
from darkroom.train.session import Looked, Session

MEASURED, SHOWN, SPREAD_OVER = 512, 16, 4096
STAGE = "first_stage"


def train_first_stage(
    model: Autoencoder,
    splits: Splits,
    *,
    transform: TransformSpec,
    loss: FirstStageLossSpec,
    train: TrainSpec,
    compute: Compute,
    folder: Path,
    seed: int,
    keep: int = 0,
) -> Iterator[Event]:
    """Train in `folder` from where it stands; the model ends with averaged weights, in eval mode.

    Writes log.jsonl, state.pt, reconstructions.png (pictures above, reconstructions below) and report.json.
    """
    compute.host(model).train()
    viewer = _Viewer(model, splits, transform=transform, compute=compute, folder=folder)
    work = _Work(viewer=viewer, splits=splits, transform=transform, loss=loss, train=train, seed=seed, keep=keep)
    yield from work.on(model)


def train_decoder(
    model: Autoencoder,
    splits: Splits,
    *,
    full: Autoencoder,
    transform: TransformSpec,
    loss: FirstStageLossSpec,
    train: TrainSpec,
    compute: Compute,
    folder: Path,
    seed: int,
    keep: int = 0,
) -> Iterator[Event]:
    """Train what turns latents into pictures and nothing else; all other weights stay as they are, bit for bit.

    full: the first stage of the same encoder that it is compared with: its reconstructions stand between the pictures
    and the new ones, its figures in the report (`full_psnr`, `full_distance`). Writes what `train_first_stage` writes.
    """
    trained = only_decoder(compute.host(model).eval()).train()
    viewer = _Viewer(model, splits, transform=transform, compute=compute, folder=folder, full=compute.host(full).eval())
    work = _Work(viewer=viewer, splits=splits, transform=transform, loss=loss, train=train, seed=seed, keep=keep)
    yield from work.on(trained)


def only_decoder(model: Autoencoder) -> nn.ModuleDict:
    """What turns latents into pictures; all else of the model is frozen, so that no gradient is kept for it."""
    trained = nn.ModuleDict({"from_latent": model.from_latent, "decoder": model.decoder})
    if model.shortcut_out is not None:
        trained["shortcut_out"] = model.shortcut_out
    model.requires_grad_(False)
    trained.requires_grad_(True)
    return trained


@final
@dataclass(frozen=True, kw_only=True)
class _Work:
    """What every training of a first stage does, whichever part of the model it moves."""

    viewer: "_Viewer"
    splits: Splits
    transform: TransformSpec
    loss: FirstStageLossSpec
    train: TrainSpec
    seed: int
    keep: int

    def on(self, trained: nn.Module) -> Iterator[Event]:
        viewer, train = self.viewer, self.train
        check_adversary(self.loss.adversary, size=self.transform.shortest)
        begins = None if self.loss.adversary is None else self.loss.adversary.begins(train.steps).start
        if isinstance(begins, int) and begins >= train.steps:
            yield Sentence(
                f"the adversary would begin at step {begins}, and there are only {train.steps}: it never plays"
            )
        objective = first_stage_objective(viewer.model, self.loss, train=train, compute=viewer.compute, seed=self.seed)
        session = Session(
            trained,
            list(trained.parameters()),
            spec=train,
            compute=viewer.compute,
            folder=viewer.folder,
            seed=self.seed,
            stage=STAGE,
            beside=objective.beside,
            opponent=opponent_of(objective, train),
            keep=self.keep,
        )
        reading = Reading(self.splits.train)
        stream = batches(
            self.splits.train,
            self.transform,
            batch_size=train.batch,
            seed=self.seed,
            start=session.samples,
            share=own_share(),
            reading=reading,
        )
        yield from session.run(
            stream,
            losses=objective,
            after=objective.after,
            pieces=objective.pieces,
            look=viewer.look,
            reading=lambda: reading.longest,
        )
        on_first(lambda: write_json(viewer.folder / "report.json", viewer.measure()))


@torch.no_grad()
def measure_latents(
    model: Autoencoder, source: Source, *, transform: TransformSpec, compute: Compute
) -> LatentStatistics:
    """How latents are spread over the training pictures, centre crops of at most 4,096 of them, evenly chosen."""
    still = transform.model_copy(update={"crop": "centre", "scale": None, "flip": False, "turn": False})
    sums = LatentSums()
    for part in still_batches(source, still, batch_size=64, rows=spread(len(source), most=SPREAD_OVER)):
        with compute.autocast():
            mean, logvar = model.moments(compute.place(from_bytes(part.images)))
        sums.add(mean.cpu(), None if logvar is None else logvar.cpu())
    return sums.statistics()


@final
class _Viewer:
    """Looks at the model through test pictures it never trains on, and at another of the same latents (`full`)."""

    def __init__(
        self,
        model: Autoencoder,
        splits: Splits,
        *,
        transform: TransformSpec,
        compute: Compute,
        folder: Path,
        full: Autoencoder | None = None,
    ) -> None:
        self.model, self.full, self.compute, self.folder = model, full, compute, folder
        self.judge = compute.host(judge())
        rows = spread(len(splits.test), most=MEASURED)
        parts = still_batches(splits.test, transform, batch_size=64, rows=rows)
        self.images = [from_bytes(part.images) for part in parts]
        plain = [bicubic_round_trip(images, model.spec.factor) for images in self.images]
        self.yardstick = {f"bicubic_{name}": value for name, value in self._compared(plain).items()}

    def look(self, step: int) -> Looked:
        """Figures for the log, and a sheet of pictures above their reconstructions."""
        shown = self.images[0][:SHOWN]
        models = [self.model] if self.full is None else [self.full, self.model]
        rows = [shown, *(self._through(shown, model)[0] for model in models)]
        sheet = contact_sheet([picture for row in rows for picture in to_pictures(row)], columns=len(shown))
        path = save_png(sheet, self.folder / "reconstructions.png")
        report = self._figures(self.model)
        kept = ("psnr", "distance", "perplexity")
        values = {f"test_{name}": report[name] for name in kept if name in report}
        return values, [Wrote(f"reconstructions at step {step}", path)]

    def measure(self) -> dict[str, float]:
        """Mean PSNR and the judge's distance over the test pictures, those of bicubic beside them, perplexity (VQ)."""
        report = self._figures(self.model) | self.yardstick
        if self.full is not None:
            others = self._figures(self.full)
            report |= {f"full_{name}": others[name] for name in ("psnr", "distance") if name in others}
        return report

    def _figures(self, model: Autoencoder) -> dict[str, float]:
        through = [self._through(images, model) for images in self.images]
        report = self._compared([made for made, _ in through])
        report["pictures"] = float(sum(len(images) for images in self.images))
        codes = [indices for _, indices in through if indices is not None]
        if codes and isinstance(model.spec.bottleneck, VQSpec):
            report["perplexity"] = perplexity(torch.cat(codes), model.spec.bottleneck.codes)
        return report

    @torch.no_grad()
    def _compared(self, made: list[Tensor]) -> dict[str, float]:
        """Mean PSNR, and the judge's distance where pictures are large enough for it."""
        pairs = list(zip(made, self.images, strict=True))
        found = {"psnr": [psnr(images, others) for others, images in pairs]}
        place = self.compute.place
        if min(side for images in self.images for side in images.shape[-2:]) >= SMALLEST:
            found["distance"] = [self.judge.distance(place(others), place(images)).cpu() for others, images in pairs]
        return {name: float(torch.cat(values).mean()) for name, values in found.items()}

    @torch.no_grad()
    def _through(self, images: Tensor, model: Autoencoder) -> tuple[Tensor, Tensor | None]:
        with self.compute.autocast():
            made = model.reconstruct(self.compute.place(images))
        indices = None if made.indices is None else made.indices.cpu()
        return made.images.float().cpu(), indices

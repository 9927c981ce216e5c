"""The first stage of a run: train, reconstruct test pictures, measure."""

from collections.abc import Iterator
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from darkroom.autoencoder.adversary import check_adversary
from darkroom.autoencoder.bottleneck import VQSpec, perplexity
from darkroom.autoencoder.losses import FirstStageLossSpec
from darkroom.autoencoder.model import Autoencoder
from darkroom.autoencoder.statistics import LatentStatistics, LatentSums
from darkroom.core.compute import Compute
from darkroom.core.pictures import contact_sheet, from_bytes, save_png, to_pictures
from darkroom.core.record import write_json
from darkroom.data.examples import Source
from darkroom.data.loader import batches, still_batches
from darkroom.data.sources import Splits
from darkroom.data.transforms import TransformSpec
from darkroom.metrics.pairs import bicubic_round_trip, psnr
from darkroom.nn.features import judge
from darkroom.nn.taps import SMALLEST
from darkroom.train.events import Event, Wrote
from darkroom.train.optim import TrainSpec
from darkroom.train.session import Session
from darkroom.train.stages import first_stage_objective, opponent_of

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
) -> Iterator[Event]:
    """Train in `folder` from where it stands; the model ends with averaged weights, in eval mode.

    Writes log.jsonl, state.pt, reconstructions.png (pictures above, reconstructions below) and report.json.
    """
    check_adversary(loss.adversary, size=transform.size)
    compute.host(model).train()
    viewer = _Viewer(model, splits, transform=transform, compute=compute, folder=folder)
    objective = first_stage_objective(model, loss, train=train, compute=compute, seed=seed)
    session = Session(
        model,
        list(model.parameters()),
        spec=train,
        compute=compute,
        folder=folder,
        seed=seed,
        stage=STAGE,
        look=viewer.look,
        beside=objective.beside,
        opponent=opponent_of(objective, train),
    )
    stream = batches(splits.train, transform, batch_size=train.batch, seed=seed, start=session.samples)
    yield from session.run(stream, losses=objective, after=objective.after)
    write_json(folder / "report.json", viewer.measure())


@torch.no_grad()
def measure_latents(
    model: Autoencoder, source: Source, *, transform: TransformSpec, compute: Compute
) -> LatentStatistics:
    """How latents are spread over the training pictures, centre crops of at most 4,096 of them, evenly chosen."""
    rows = range(0, len(source), max(1, len(source) // SPREAD_OVER))
    still = transform.model_copy(update={"crop": "centre", "scale": None, "flip": False})
    sums = LatentSums()
    for part in still_batches(source, still, batch_size=64, rows=rows[:SPREAD_OVER]):
        with compute.autocast():
            mean, logvar = model.moments(compute.place(from_bytes(part.images)))
        sums.add(mean.cpu(), None if logvar is None else logvar.cpu())
    return sums.statistics()


@final
class _Viewer:
    """Looks at the model through test pictures it never trains on."""

    def __init__(
        self,
        model: Autoencoder,
        splits: Splits,
        *,
        transform: TransformSpec,
        compute: Compute,
        folder: Path,
    ) -> None:
        self.model, self.compute, self.folder, self.judge = model, compute, folder, judge()
        rows = range(min(len(splits.test), MEASURED))
        parts = still_batches(splits.test, transform, batch_size=64, rows=rows)
        self.images = [from_bytes(part.images) for part in parts]

    def look(self, step: int) -> tuple[dict[str, float], list[Event]]:
        """Figures for the log, and a sheet of pictures above their reconstructions."""
        shown = self.images[0][:SHOWN]
        made = self._through(shown)[0]
        sheet = contact_sheet([*to_pictures(shown), *to_pictures(made)], columns=len(shown))
        path = save_png(sheet, self.folder / "reconstructions.png")
        report = self.measure()
        kept = ("psnr", "distance", "perplexity")
        values = {f"test_{name}": report[name] for name in kept if name in report}
        return values, [Wrote(f"reconstructions at step {step}", path)]

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Mean PSNR and the judge's distance over the test pictures, those of bicubic beside them, perplexity (VQ)."""
        found: dict[str, list[Tensor]] = {}
        codes: list[Tensor] = []
        for images in self.images:
            made, indices = self._through(images)
            plain = bicubic_round_trip(images, self.model.spec.factor)
            for prefix, others in (("", made), ("bicubic_", plain)):
                found.setdefault(f"{prefix}psnr", []).append(psnr(images, others))
                if min(images.shape[-2:]) >= SMALLEST:
                    found.setdefault(f"{prefix}distance", []).append(self.judge.distance(others, images))
            if indices is not None:
                codes.append(indices)
        report = {name: float(torch.cat(values).mean()) for name, values in found.items()}
        report["pictures"] = float(sum(len(images) for images in self.images))
        if codes and isinstance(self.model.spec.bottleneck, VQSpec):
            report["perplexity"] = perplexity(torch.cat(codes), self.model.spec.bottleneck.codes)
        return report

    @torch.no_grad()
    def _through(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        with self.compute.autocast():
            made = self.model.reconstruct(self.compute.place(images))
        indices = None if made.indices is None else made.indices.cpu()
        return made.images.float().cpu(), indices

"""The second stage of a run: train the denoiser on cached latents, draw samples, measure."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import final

import torch
from PIL import Image

from darkroom.conditioning.spatial import PlanesConditioner
from darkroom.core.compute import Compute
from darkroom.core.pictures import contact_sheet, save_png
from darkroom.core.record import write_json
from darkroom.data.inputs import Inputs
from darkroom.data.latents import LatentTable
from darkroom.diffusion.model import LatentDiffusion
from darkroom.train.events import Event, Wrote
from darkroom.train.optim import TrainSpec
from darkroom.train.session import Session, Settle
from darkroom.train.stages import denoiser_objective, latent_batches, still_batch, still_batches, validation_loss

STAGE = "denoiser"
VALIDATED = 256
GUESSED_FROM = 512
Preview = Callable[[], list[Image.Image]]


@final
class Latents:
    """What the denoiser trains on and is validated with: moments, and what steers each picture, row by row."""

    def __init__(
        self,
        *,
        train: LatentTable,
        train_inputs: Mapping[str, Inputs],
        test: LatentTable,
        test_inputs: Mapping[str, Inputs],
    ) -> None:
        self.train, self.train_inputs = train, dict(train_inputs)
        self.test, self.test_inputs = test, dict(test_inputs)


def fit_guesses(model: LatentDiffusion, latents: Latents) -> None:
    """Measure what the model's conditioners guess of latents, over the first `GUESSED_FROM` training pictures."""
    scale = model.known_scale.cpu()
    for field, conditioner in model.conditioning.by_field.items():
        if isinstance(conditioner, PlanesConditioner) and conditioner.guess is not None:
            given = {field: latents.train_inputs[field]}
            batches = still_batches(latents.train, given, scale=scale, count=GUESSED_FROM, batch_size=16)
            conditioner.guess.fit((conditioner(batch.inputs[field]), batch.latents) for batch in batches)


def train_denoiser(
    model: LatentDiffusion,
    latents: Latents,
    *,
    train: TrainSpec,
    compute: Compute,
    folder: Path,
    seed: int,
    preview: Preview,
    settle: Settle | None = None,
) -> Iterator[Event]:
    """Train network and conditioners in `folder`; the model ends with averaged weights, in eval mode.

    `preview` draws pictures with the present weights; `settle` may then say how training goes on. Writes
    log.jsonl, state.pt, samples.png and report.json.
    """
    compute.host(model).train()
    model.first_stage.requires_grad_(False).eval()
    objective = denoiser_objective(model, train=train, compute=compute, seed=seed)
    scale = model.known_scale.cpu()
    held_out = still_batch(latents.test, latents.test_inputs, scale=scale, count=VALIDATED)

    def look(step: int) -> tuple[dict[str, float], list[Event]]:
        path = save_png(contact_sheet(preview()), folder / "samples.png")
        value = validation_loss(objective, held_out)
        write_json(folder / "report.json", {"step": step, "validation_loss": value})
        return {"validation_loss": value}, [Wrote(f"samples at step {step}", path)]

    session = Session(
        _Trained(model),
        model.denoising_parameters,
        spec=train,
        compute=compute,
        folder=folder,
        seed=seed,
        stage=STAGE,
        look=look,
    )
    stream = latent_batches(
        latents.train,
        latents.train_inputs,
        scale=scale,
        batch_size=train.batch,
        seed=seed,
        start=session.samples,
    )
    yield from session.run(stream, losses=objective, settle=settle)


@final
class _Trained(torch.nn.Module):
    """What the second stage trains, without the first stage, which its state need not repeat."""

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__()
        self.network = model.network
        self.conditioning = model.conditioning
        self.log_variance = model.log_variance

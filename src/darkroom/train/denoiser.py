"""The second stage of a run: train the denoiser on cached latents, draw samples, measure."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import final

import torch
from PIL import Image

from darkroom.conditioning.spatial import PlanesConditioner
from darkroom.core.compute import Compute
from darkroom.core.parallel import own_share
from darkroom.core.pictures import contact_sheet, save_png
from darkroom.core.record import write_json
from darkroom.data.inputs import Inputs
from darkroom.data.latents import AnyLatents
from darkroom.diffusion.model import LatentDiffusion
from darkroom.train.distill import FOLLOWED, Lesson, distillation, off_the_end
from darkroom.train.events import Event, Wrote
from darkroom.train.optim import TrainSpec
from darkroom.train.parted import shared_out
from darkroom.train.session import Session, Settle
from darkroom.train.stages import (
    LatentBatch,
    denoiser_objective,
    latent_batches,
    still_batches,
    validation_loss,
)

STAGE = "denoiser"
VALIDATED = 256
GUESSED_FROM = 512
LEAST_BEYOND = 0.01  # of the deviation that latents have
Preview = Callable[[], list[Image.Image]]


@final
class Latents:
    """What the denoiser trains on and is validated with: moments, and what steers each picture, row by row."""

    def __init__(
        self,
        *,
        train: AnyLatents,
        train_inputs: Mapping[str, Inputs],
        test: AnyLatents,
        test_inputs: Mapping[str, Inputs],
    ) -> None:
        self.train, self.train_inputs = train, dict(train_inputs)
        self.test, self.test_inputs = test, dict(test_inputs)


def fit_guesses(model: LatentDiffusion, latents: Latents, *, compute: Compute) -> None:
    """Measure what the model's conditioners guess of latents, over `GUESSED_FROM` training pictures, evenly chosen.

    Where the scale of latents is measured too, all of them are then brought to where what is beyond the guess has unit
    deviation, which is what noise is compared with: left as small as it is, most times of a schedule would drown it.
    """
    if not model.spec.guesses:
        return
    guesses = {
        field: conditioner
        for field, conditioner in model.conditioning.by_field.items()
        if isinstance(conditioner, PlanesConditioner) and conditioner.guess is not None
    }
    for field, conditioner in guesses.items():
        parts = _measured_on(model, latents, fields=[field])
        assert conditioner.guess is not None
        conditioner.guess.fit((conditioner(part.inputs[field]), part.latents) for part in parts)
    if model.spec.scale is not None:
        return
    beyond = _deviation_beyond(model, latents, compute=compute)
    model.scale = model.scale / beyond
    for conditioner in guesses.values():
        assert conditioner.guess is not None
        conditioner.guess.kernel /= beyond


def _measured_on(model: LatentDiffusion, latents: Latents, *, fields: Iterable[str]) -> Iterator[LatentBatch]:
    inputs = {field: latents.train_inputs[field] for field in fields}
    return still_batches(latents.train, inputs, scale=model.known_scale.cpu(), count=GUESSED_FROM, batch_size=16)


@torch.no_grad()
def _deviation_beyond(model: LatentDiffusion, latents: Latents, *, compute: Compute) -> float:
    """Of what is beyond the guess where it is not certain; a nearly exact guess does not make its rest shout."""
    total, cells = 0.0, 0.0
    for part in _measured_on(model, latents, fields=latents.train_inputs):
        with compute.autocast():
            given = {field: compute.place(values) for field, values in part.inputs.items()}
            conditions = model.condition(model.prepared(given))
        assert conditions.guess is not None
        beyond = (compute.place(part.latents) - conditions.guess).square().mean(dim=1, keepdim=True)
        open_ = torch.ones_like(beyond) if conditions.known is None else 1 - conditions.known
        total, cells = total + float((beyond * open_).sum()), cells + float(open_.sum())
    return max(LEAST_BEYOND, (total / max(cells, 1)) ** 0.5)


def train_denoiser(
    model: LatentDiffusion,
    latents: Latents,
    *,
    train: TrainSpec,
    compute: Compute,
    folder: Path,
    seed: int,
    preview: Preview,
    lesson: Lesson | None = None,
    settle: Settle | None = None,
    best: Callable[[], Event] | None = None,
    mark: Callable[[int], Event] | None = None,
    keep: int = 0,
) -> Iterator[Event]:
    """Train network and conditioners in `folder`; the model ends with averaged weights, in eval mode.

    Where ranks hold them in parts (`train.strategy`), only the first rank's model has them, at looks and at the end.

    `preview` draws pictures with the present weights; `settle` may then say how training goes on · lesson: the model
    has its teacher's weights and learns where the teacher's paths end; the validation loss is then how far off it is
    (`off_the_end`) · mark: called at each look with the step, averaged weights applied · best, keep: see `Session`.
    Writes log.jsonl, state.pt, samples.png and report.json.
    """
    compute.host(model).train()
    model.first_stage.requires_grad_(False).eval()
    parted = shared_out(model, train=train, compute=compute)
    trained = model if parted is None else parted.trained
    objective, learnt = denoiser_objective(trained, train=train, compute=compute, seed=seed), None
    if lesson is not None:
        learnt = distillation(model, lesson, train=train, compute=compute, done=lambda: session.done)
        objective = replace(objective, judge=learnt)

    def look(step: int) -> tuple[dict[str, float], list[Event]]:
        path = save_png(contact_sheet(preview()), folder / "samples.png")
        value = measure()
        write_json(folder / "report.json", {"step": step, "validation_loss": value})
        marked = [] if mark is None else [mark(step)]
        return {"validation_loss": value}, [Wrote(f"samples at step {step}", path), *marked]

    session = Session(
        _Trained(trained),
        trained.denoising_parameters,
        spec=train,
        compute=compute,
        folder=folder,
        seed=seed,
        stage=STAGE,
        look=look,
        best=best,
        beside=None if learnt is None else learnt.beside,
        keep=keep,
        parted=parted,
    )
    scale = model.known_scale.cpu()  # that of the state, where there is one
    seen = VALIDATED if learnt is None else FOLLOWED
    held_out = list(still_batches(latents.test, latents.test_inputs, scale=scale, count=seen, batch_size=seen))
    measure = (
        functools.partial(validation_loss, model, held_out, compute=compute)
        if learnt is None
        else off_the_end(learnt, held_out, compute=compute)
    )
    stream = latent_batches(
        latents.train,
        latents.train_inputs,
        scale=scale,
        batch_size=train.batch,
        seed=seed,
        start=session.samples,
        share=own_share(),
    )
    after = None if learnt is None else learnt.after
    yield from session.run(stream, losses=objective, after=after, settle=settle, pieces=objective.pieces)


@final
class _Trained(torch.nn.Module):
    """What the second stage trains, without the first stage, which its state need not repeat.

    Where a guess is measured, the scale of latents is too, by the machine's own rounding; so it is kept with the rest.
    """

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__()
        if model.spec.guesses:
            self.register_buffer("scale", model.scale)
        self.network = model.network
        self.conditioning = model.conditioning
        self.log_variance = model.log_variance

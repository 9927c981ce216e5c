"""The second stage of a run: train the denoiser on cached latents, draw samples, measure."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from PIL import Image
from torch import nn

from darkroom.core.compute import Compute
from darkroom.core.parallel import own_share
from darkroom.core.pictures import contact_sheet, save_png
from darkroom.core.record import write_json
from darkroom.data.inputs import Inputs
from darkroom.data.latents import AnyLatents
from darkroom.diffusion.model import LatentDiffusion
from darkroom.train.denoiser_objective import denoiser_objective, latent_batches, still_batches, validation_loss
from darkroom.train.distill import FOLLOWED, Lesson, begin_student, distillation, off_the_end
from darkroom.train.events import Event, Wrote
from darkroom.train.optim import TrainSpec
from darkroom.train.parted import shared_out
from darkroom.train.session import Looked, Session, Settle

STAGE = "denoiser"
VALIDATED = 256  # held-out pictures
Preview = Callable[[], list[Image.Image]]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Latents:
    """What the denoiser trains on and is validated with: cached latents, and by field what steers each of them."""

    train: AnyLatents
    train_inputs: Mapping[str, Inputs]
    test: AnyLatents
    test_inputs: Mapping[str, Inputs]


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

    preview: draws pictures with the present weights · lesson: the model, which has its teacher's weights, is distilled,
    and validated by how far off the end of the teacher's paths it is (`off_the_end`) · settle, best, keep: see
    `Session` · mark: called at each look with the step, averaged weights applied. Where ranks hold weights in parts
    (`train.strategy`), only the first rank's model has them whole, at looks and at the end.
    Writes log.jsonl, state.pt, samples.png and report.json.
    """
    compute.host(model).train()
    model.first_stage.requires_grad_(False).eval()
    parted = shared_out(model, train=train, compute=compute)
    trained = model if parted is None else parted.trained
    average = None if lesson is None else begin_student(trained)
    session = Session(
        _Trained(trained),
        trained.denoising_parameters,
        spec=train,
        compute=compute,
        folder=folder,
        seed=seed,
        stage=STAGE,
        beside=None if average is None else nn.ModuleDict({"follower": average}),
        keep=keep,
        parted=parted,
    )
    scale = model.known_scale.cpu()  # only now: a state that was found holds the scale, too
    count = VALIDATED if lesson is None else FOLLOWED
    held_out = list(still_batches(latents.test, latents.test_inputs, scale=scale, count=count, batch_size=count))
    objective, after = denoiser_objective(trained, train=train, compute=compute, seed=seed), None
    validate = functools.partial(validation_loss, model, held_out, compute=compute)
    if lesson is not None and average is not None:
        learnt = distillation(trained, lesson, average=average, train=train, compute=compute, done=lambda: session.done)
        objective, after = replace(objective, loss=learnt), learnt.after
        validate = off_the_end(learnt, held_out, compute=compute)
    stream = latent_batches(
        latents.train,
        latents.train_inputs,
        scale=scale,
        batch_size=train.batch,
        seed=seed,
        start=session.samples,
        share=own_share(),
    )
    look = _Look(folder, preview, validate, mark)
    yield from session.run(
        stream, losses=objective, pieces=objective.pieces, after=after, look=look, best=best, settle=settle
    )


@final
@dataclass(frozen=True)
class _Look:
    """Called at a step: samples.png and report.json are written; answers the validation loss and what was written."""

    folder: Path
    preview: Preview
    validate: Callable[[], float]
    mark: Callable[[int], Event] | None

    def __call__(self, step: int) -> Looked:
        path = save_png(contact_sheet(self.preview()), self.folder / "samples.png")
        value = self.validate()
        write_json(self.folder / "report.json", {"step": step, "validation_loss": value})
        marked = [] if self.mark is None else [self.mark(step)]
        return {"validation_loss": value}, [Wrote(f"samples at step {step}", path), *marked]


@final
class _Trained(nn.Module):
    """What is saved with a run's state: all that the second stage trains, without the first stage.

    Where latents are guessed, their scale is measured with rounding that may differ between machines, so it is saved.
    """

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__()
        if model.spec.guesses:
            self.register_buffer("scale", model.scale)
        self.network = model.network
        self.conditioning = model.conditioning
        self.log_variance = model.log_variance

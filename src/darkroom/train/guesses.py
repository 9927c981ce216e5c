"""Before a denoiser is trained: measure what its conditioners guess of latents, so that it learns only the rest."""

from collections.abc import Iterable, Iterator
from typing import Final

import torch

from darkroom.conditioning.spatial import PlanesConditioner
from darkroom.core.compute import Compute
from darkroom.diffusion.model import LatentDiffusion
from darkroom.train.denoiser import Latents
from darkroom.train.denoiser_objective import LatentBatch, still_batches

GUESSED_FROM: Final = 512  # training pictures
LEAST_BEYOND: Final = 0.01  # of the deviation that latents have


def fit_guesses(model: LatentDiffusion, latents: Latents, *, compute: Compute) -> None:
    """Fit the guesses of a model's conditioners to `GUESSED_FROM` training pictures, evenly chosen.

    Where the scale of latents is measured, it is then changed so that the rest, latents less their guess, has unit
    deviation. The rest is what the network learns and what noise is added to; left small, it would drown in the noise
    of most times.
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
    """The deviation of latents less their guess, where that is not certain; at least `LEAST_BEYOND`."""
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

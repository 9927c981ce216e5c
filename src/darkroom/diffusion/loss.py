"""The training loss of the denoiser, a value per sample."""

import torch
from jaxtyping import Float
from torch import Tensor

from darkroom.core.conditions import Conditions
from darkroom.core.errors import SpecError
from darkroom.core.shapes import Latent, PerSample, Time
from darkroom.diffusion.denoiser import Network, network_time
from darkroom.process.objective import ObjectiveSpec, error, variational_weight, weight
from darkroom.process.prediction import Prediction
from darkroom.process.schedule import DiscreteSchedule, Schedule, coefficients


def diffusion_loss(
    network: Network,
    latents: Latent,
    *,
    t: Time,
    noise: Latent,
    conditions: Conditions,
    schedule: Schedule,
    prediction: Prediction,
    objective: ObjectiveSpec,
    log_variance: Float[Tensor, " times"] | None = None,
) -> PerSample:
    """The loss of each sample; its reductions are float32 at least, also under autocast.

    e = mean over c, h, w of the l1 or l2 error of the prediction at x_t = alpha latents + sigma noise;
    loss = (w e / exp(s_t) + s_t) simple_weight + variational_weight lvlb_t e.

    log_variance: (T,), the learnt s_t; when absent s_t is the objective's `log_variance_init`.
    Source: the original's p_losses, where w = 1; other w in `process.objective.weight`.
    """
    alpha, sigma = coefficients(schedule, t, like=latents)
    target = prediction.target(latents, noise, alpha=alpha, sigma=sigma)
    x_t = alpha * latents + sigma * noise
    output = network(x_t, network_time(schedule, t, like=latents), conditions)
    plain = error(output, target, loss=objective.loss)
    factor = weight(objective.weighting, schedule=schedule, prediction=prediction, t=t, like=latents)
    spread = _log_variance(objective, t=t, log_variance=log_variance, like=plain)
    loss = (factor.to(plain) * plain / spread.exp() + spread) * objective.simple_weight
    if objective.variational_weight > 0:
        loss = loss + objective.variational_weight * _lvlb(schedule, prediction, t=t).to(plain) * plain
    return loss


def _log_variance(
    objective: ObjectiveSpec, *, t: Time, log_variance: Float[Tensor, " times"] | None, like: PerSample
) -> PerSample:
    if log_variance is None:
        return torch.full_like(like, objective.log_variance_init)
    return log_variance[t.to(log_variance.device).long()].to(like)


def _lvlb(schedule: Schedule, prediction: Prediction, *, t: Time) -> PerSample:
    if not isinstance(schedule, DiscreteSchedule):
        raise SpecError("variational_weight is defined for discrete schedules; set it to 0 with this one")
    return variational_weight(schedule, prediction, t=t)

"""Diffusing what a guess leaves over, while everything around the network goes on speaking of whole latents."""

import torch

from darkroom.core.conditions import Conditions
from darkroom.core.shapes import Latent, Time
from darkroom.diffusion.denoiser import Network
from darkroom.process.prediction import Prediction
from darkroom.process.schedule import Schedule, coefficients


def beyond_guess(network: Network, *, schedule: Schedule, prediction: Prediction) -> Network:
    """The network as one of whole latents z, where conditions guess b at them; without a guess it is as it was.

    It sees x_t - alpha b, which is the noisy z - b, and answers for that; since every target is linear in x0, the
    target of b alone is what is missing. So it learns z - b, and noise, losses, solvers, guidance and windows need not
    know. Where the guess is known to be all, x0 is the guess, whatever the network says. Source: Li et al. 2022
    (SRDiff), eq. 6 to 8, with a measured guess instead of enlarged pictures.
    """

    def answer(x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        if conditions.guess is None:
            return network(x_t, t, conditions)
        guess = conditions.guess.to(x_t)
        alpha, sigma = coefficients(schedule, t, like=x_t)
        output = network(x_t - alpha * guess, t, conditions)
        whole = output + prediction.target(guess, torch.zeros_like(guess), alpha=alpha, sigma=sigma)
        if conditions.known is None:
            return whole
        noise = (x_t - alpha * guess) / sigma  # at every time that a network is asked about there is some
        certain = prediction.target(guess, noise, alpha=alpha, sigma=sigma)
        return torch.where(conditions.known > 0.5, certain, whole)

    return answer


def with_known(latents: Latent, conditions: Conditions) -> Latent:
    """Latents to learn from: the guess where it is known to be all, so that nothing is asked of the network there."""
    if conditions.guess is None or conditions.known is None:
        return latents
    return torch.where(conditions.known > 0.5, conditions.guess.to(latents), latents)

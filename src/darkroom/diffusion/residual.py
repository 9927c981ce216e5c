"""Where latents are guessed, the network learns only the rest; to everything around it they stay whole."""

import torch

from darkroom.core.conditions import Conditions
from darkroom.core.shapes import Latent, Time
from darkroom.diffusion.denoiser import Network
from darkroom.process.prediction import Prediction
from darkroom.process.schedule import Schedule, coefficients


def beyond_guess(network: Network, *, schedule: Schedule, prediction: Prediction) -> Network:
    """A network that learns the rest z - b of latents z, b their guess, as one that answers for z.

    It is shown x_t - alpha b, the noisy rest. Targets are linear in x0, so its answer plus the target of b alone is the
    answer for z; noise, losses, solvers, guidance and windows need not know. Where the guess is known to be exact, x0
    is the guess, whatever the network says. Without a guess the network is asked as it is. Source: Li et al. 2022
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
        noise = (x_t - alpha * guess) / sigma  # sigma is above 0 at every time that a network is asked about
        certain = prediction.target(guess, noise, alpha=alpha, sigma=sigma)
        return torch.where(conditions.known > 0.5, certain, whole)

    return answer


def with_known(latents: Latent, conditions: Conditions) -> Latent:
    """Latents for training: where the guess is exact, the guess, so that there is nothing to learn."""
    if conditions.guess is None or conditions.known is None:
        return latents
    return torch.where(conditions.known > 0.5, conditions.guess.to(latents), latents)

"""The noise that leads to a picture: deterministic sampling run backwards."""

import itertools

import torch

from darkroom.core.conditions import Conditions
from darkroom.core.shapes import Latent, Time
from darkroom.diffusion.denoiser import AnyDiffusion, Denoiser
from darkroom.diffusion.windows import windowed
from darkroom.process.schedule import coefficients
from darkroom.process.times import Times


@torch.no_grad()
def inverted(
    model: AnyDiffusion,
    latents: Latent,
    *,
    times: Times,
    conditions: Conditions | None = None,
    window: tuple[int, int] | None = None,
) -> Latent:
    """x at the first (noisiest) of the times from clean latents (b, c, h, w), in the denoiser's units.

    x_{t'} = alpha' x0 + sigma' eps, with x0 and eps as the network sees them before each step up. The first step leads
    from clean data (alpha = 1, sigma = 0, where x tells no eps) to the cleanest time visited, at which the network is
    asked: eps = (x - alpha x0) / sigma there. Walking back by DDIM on the same times with the same conditions and no
    guidance comes close to the latents again, the closer the more steps. window: as in `walk`. Source: Song et al. 2021
    (DDIM), section 4.3.
    """
    denoise = windowed(Denoiser(model.network, model.schedule, model.prediction), window)
    given = conditions or Conditions()
    upwards = [time.expand(len(latents)) for time in times.visited.flip(0).split(1)]

    def seen(x: Latent, t: Time) -> tuple[Latent, Latent]:
        """x0 and eps of x, taken to lie at t."""
        x0 = denoise(x, t, given)
        alpha, sigma = coefficients(model.schedule, t, like=x)
        return x0, (x - alpha * x0) / sigma

    alpha, sigma = coefficients(model.schedule, upwards[0], like=latents)
    x = alpha * latents + sigma * seen(latents, upwards[0])[1]
    for t, after in itertools.pairwise(upwards):
        x0, eps = seen(x, t)
        alpha, sigma = coefficients(model.schedule, after, like=x)
        x = alpha * x0 + sigma * eps
    return x

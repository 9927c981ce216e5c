"""The noise that leads to a picture: deterministic sampling run backwards."""

import itertools

import torch

from darkroom.core.conditions import Conditions
from darkroom.core.shapes import Latent
from darkroom.diffusion.denoiser import AnyDiffusion, Denoiser
from darkroom.process.schedule import coefficients
from darkroom.process.times import Times


@torch.no_grad()
def inverted(model: AnyDiffusion, latents: Latent, *, times: Times, conditions: Conditions | None = None) -> Latent:
    """x at the first (noisiest) of the times from clean latents (b, c, h, w), in the denoiser's units.

    x_{t'} = alpha' x0 + sigma' eps, with x0 and eps as the network sees them before each step up; the first, from clean
    data, is seen at the cleanest time visited. Walking back by DDIM on the same times with the same conditions and no
    guidance comes close to the latents again, the closer the more steps. Source: Song et al. 2021 (DDIM), section 4.3.
    """
    denoise = Denoiser(model.network, model.schedule, model.prediction)
    given = conditions or Conditions()
    upwards = times.visited.flip(0)
    x = latents
    for now, following in itertools.pairwise([upwards[:1], *upwards.split(1)]):
        t, after = now.expand(len(x)), following.expand(len(x))
        x0 = denoise(x, t, given)
        alpha, sigma = coefficients(model.schedule, t, like=x)
        eps = (x - alpha * x0) / sigma
        to_alpha, to_sigma = coefficients(model.schedule, after, like=x)
        x = to_alpha * x0 + to_sigma * eps
    return x

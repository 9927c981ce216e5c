"""DDIM backwards: the noise found leads to the latents again, and lies where the noise lies."""

import torch
from oracle import Mixture, Perfect, gaussian

from darkroom.diffusion.inversion import inverted
from darkroom.diffusion.walk import sample_latents
from darkroom.process.prediction import build_prediction
from darkroom.process.schedule import CosineSpec, build_schedule, coefficients
from darkroom.process.times import trailing

MODEL = Perfect(gaussian(), build_schedule(CosineSpec()), build_prediction("v"))


def latents(count: int) -> torch.Tensor:
    known: Mixture = MODEL.mixture
    noise = torch.randn(count, 4, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return known.means + known.variances.sqrt() * noise


def test_there_and_back_the_closer_the_more_steps() -> None:
    wanted = latents(64)
    errors: list[float] = []
    for steps in (16, 64, 256):
        times = trailing(MODEL.schedule, steps)
        found = inverted(MODEL, wanted, times=times)
        back = sample_latents(MODEL, found, times=times)
        errors.append(float((back - wanted).abs().mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_the_noise_of_data_is_normal() -> None:
    found = inverted(MODEL, latents(4096), times=trailing(MODEL.schedule, 200))
    assert float(found.mean(0).abs().max()) < 0.08
    assert float((found.std(0) - 1).abs().max()) < 0.08


def test_the_first_step_leaves_clean_data() -> None:
    """alpha x + sigma eps, eps being what the network sees in x at that time; never x itself."""
    times, x = trailing(MODEL.schedule, 1), latents(3)
    t = times.visited.expand(3)
    alpha, sigma = coefficients(MODEL.schedule, t, like=x)
    x0 = MODEL.mixture.denoise(x, alpha, sigma)
    torch.testing.assert_close(inverted(MODEL, x, times=times), alpha * x + sigma * (x - alpha * x0) / sigma)

"""DDIM's times and coefficients against the numbers that the original code computed."""

import json

import pytest
import torch
from safetensors.torch import load_file

from darkroom.diffusion.solvers.ddim import noise_amplitude
from darkroom.diffusion.solvers.solver import Point
from darkroom.process.schedule import LinearSpec, build_schedule
from darkroom.process.times import choose_times

GRIDS = ["uniform10_eta0", "uniform10_eta1", "uniform50_eta0", "uniform200_eta1", "uniform7_eta0.5"]


@pytest.mark.parametrize("schedule_name", ["linear_ldm", "linear_sd"])
@pytest.mark.parametrize("grid", [*GRIDS, "quad20_eta0", "quad20_eta1"])
def test_times_and_coefficients_are_the_originals(parity, schedule_name, grid):
    folder, key = parity / "s_schedules", f"{schedule_name}.ddim_{grid}"
    meta = json.loads((folder / "meta.json").read_text())
    case, table = meta["ddim"][key], meta["schedules"][schedule_name]
    spec = LinearSpec(start=table["linear_start"], end=table["linear_end"])
    schedule = build_schedule(spec)
    name = {"uniform": "original", "quad": "original-quad"}[case["discretize"]]
    times = choose_times(schedule, name, steps=case["steps"])

    ascending = times.visited.flip(0)
    before = torch.cat([torch.tensor([times.end]), ascending[:-1]])

    def point(t):
        return Point(int(t), schedule.alpha(t).item(), schedule.sigma(t).item())

    amplitudes = [
        noise_amplitude(point(now), point(then), eta=case["eta"]) for now, then in zip(ascending, before, strict=True)
    ]
    stored = {k: v for k, v in load_file(folder / "io.safetensors").items() if k.startswith(f"{key}.")}
    assert len(stored) == 5
    assert torch.equal(stored[f"{key}.timesteps"], ascending)

    def close(ours, part, relative):
        torch.testing.assert_close(ours, stored[f"{key}.{part}"].double(), rtol=relative, atol=1e-9)

    close(schedule.alpha(ascending) ** 2, "ddim_alphas", 2e-6)
    close(schedule.alpha(before) ** 2, "ddim_alphas_prev", 2e-6)
    close(schedule.sigma(ascending), "ddim_sqrt_one_minus_alphas", 1e-4)
    close(torch.tensor(amplitudes, dtype=torch.float64), "ddim_sigmas", 1e-4)

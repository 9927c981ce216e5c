"""Steps of the original, replayed without a network: its recorded x0 in, its recorded x out."""

import json

import pytest
import torch
from safetensors.torch import load_file

from darkroom.diffusion.walk import walk
from darkroom.process.prediction import build_prediction
from darkroom.process.schedule import LinearSpec, add_noise, build_schedule
from darkroom.process.times import Times
from originals import posterior

SCHEDULE = build_schedule(LinearSpec())


def tolerance(folder, check, output):
    checks = {entry["id"]: entry for entry in json.loads((folder / "meta.json").read_text())["checks"]}
    return checks[check]["outputs"][output], checks[check]["params"]


class Recorded:
    """A model whose network answers the x0 that was recorded at each time."""

    schedule, prediction = SCHEDULE, build_prediction("x0")

    def __init__(self, timesteps, x0):
        self.answers = dict(zip(timesteps.tolist(), x0, strict=True))

    def network(self, x_t, t, conditions):
        return self.answers[t[0].item()]


@pytest.mark.parametrize("check", ["ddim10", "ddim10_cfg3", "ddim10_eta1_cfg3"])
def test_ddim_trajectories(parity, check):
    folder = parity / "d_class_cond"
    io = load_file(folder / "io.safetensors")
    limit, params = tolerance(folder, check, f"{check}.x_inter")
    model = Recorded(io[f"{check}.timesteps"], io[f"{check}.pred_x0"])
    steps = list(
        walk(
            model,
            io["x_T"],
            times="original",
            steps=params["steps"],
            eta=params["eta"],
            noises=io["noises"] if params["noises"] else None,
        )
    )
    assert [step.t for step in steps] == io[f"{check}.timesteps"].tolist()
    for step, x, most in zip(steps, io[f"{check}.x_inter"], limit["tol_max_abs"], strict=True):
        assert (step.x - x).abs().max() <= most


def test_single_ddpm_steps(parity):
    """p_mean_variance and p_sample at t = 999, 1, 0, per sample; no noise is added at t = 0."""
    folder = parity / "d_class_cond"
    io = load_file(folder / "io.safetensors")
    found = posterior(SCHEDULE, x0=io["p_step.x0"], x_t=io["x3"], t=io["t_step"])
    moves = (io["t_step"] > 0).float().reshape(-1, 1, 1, 1)
    sample = found["mean"] + moves * (found["logvar"] / 2).exp() * io["step_noise"]
    for name, ours in (("mean", found["mean"]), ("sample", sample)):
        limit, _ = tolerance(folder, "p_step", f"p_step.{name}")
        gaps = (ours - io[f"p_step.{name}"]).abs().amax(dim=(1, 2, 3))
        assert (gaps <= torch.tensor(limit["tol_max_abs"])).all()
    for name in ("var", "logvar"):
        theirs = io[f"p_var.{name}"]
        torch.testing.assert_close(found[name].reshape(-1), theirs.reshape(-1), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_solver_steps_as_the_original_does(parity, index):
    """One step of the walk to the time before; from t = 0 that is clean data."""
    folder = parity / "d_class_cond"
    io = load_file(folder / "io.safetensors")
    t, x0 = io["t_step"][index].item(), io["p_step.x0"][index : index + 1]
    step = next(
        walk(
            Recorded(torch.tensor([t]), x0[None]),
            io["x3"][index : index + 1],
            solver="ddpm",
            times=Times(torch.tensor([t]), end=t - 1),
            noises=io["step_noise"][None, index : index + 1],
        )
    )
    limit, _ = tolerance(folder, "p_step", "p_step.sample")
    assert (step.x - io["p_step.sample"][index]).abs().max() <= limit["tol_max_abs"][index]


def test_noise_is_added_as_the_original_does(parity):
    folder = parity / "d_class_cond"
    io = load_file(folder / "io.safetensors")
    limit, _ = tolerance(folder, "q_sample", "q_sample.x_noisy")
    found = add_noise(SCHEDULE, io["x0"], noise=io["noise"], t=io["t"])
    assert (found - io["q_sample.x_noisy"]).abs().max() <= limit["tol_max_abs"]

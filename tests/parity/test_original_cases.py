"""Every check of the public cases, computed by the original code: same weights, same inputs, numbers within tolerance.

One runner reads `meta.json`: a check is a name, inputs, parameters and outputs with tolerances. What a name means in
our terms stands in the functions below; nothing here knows a case.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from darkroom.autoencoder.bottleneck import Posterior
from darkroom.autoencoder.model import Autoencoder
from darkroom.checkpoint.compvis import convert_original
from darkroom.checkpoint.store import build
from darkroom.core.conditions import Conditions
from darkroom.core.shapes import Latent, Time
from darkroom.diffusion.denoiser import Denoiser
from darkroom.diffusion.model import LatentDiffusion
from darkroom.diffusion.walk import Constraint, walk
from darkroom.nn.embed import sinusoid
from darkroom.process.objective import error, variational_weight
from darkroom.process.schedule import add_noise
from darkroom.process.times import Times, choose_times
from originals import posterior

CASES = ["a_kl_f4", "b_vq_f4", "c_uncond", "c2_uncond_ema_T20", "d_class_cond", "e_text_cond"]
FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "parity" / "public"


def checks() -> list[Any]:
    """(case, check id) of all cases that are there; without the folder one entry, so that a skip is seen."""
    found = [
        (case, check["id"])
        for case in CASES
        if (FOLDER / case / "meta.json").exists()
        for check in json.loads((FOLDER / case / "meta.json").read_text())["checks"]
    ]
    return [pytest.param(*pair, id="-".join(pair)) for pair in found or [(CASES[0], "encode")]]


@dataclass(frozen=True)
class Bench:
    """A model, and the recorded tensors."""

    model: LatentDiffusion | Autoencoder
    io: Mapping[str, Tensor]
    params: Mapping[str, Any]

    @property
    def diffusion(self) -> LatentDiffusion:
        assert isinstance(self.model, LatentDiffusion)
        return self.model

    @property
    def first_stage(self) -> Autoencoder:
        first_stage = self.model.first_stage if isinstance(self.model, LatentDiffusion) else self.model
        assert isinstance(first_stage, Autoencoder)
        return first_stage

    def port(self, name: str | None) -> Conditions | None:
        return None if name is None or name not in self.io else Conditions(tokens=self.io[name])


@pytest.fixture(scope="module")
def benches(parity: Path) -> Callable[[str, bool], Bench]:
    """A case with raw or averaged weights, loaded once."""
    made: dict[tuple[str, bool], Bench] = {}

    def of(case: str, averaged: bool) -> Bench:
        if (case, averaged) not in made:
            folder = parity / case
            found = convert_original(folder / "model.ckpt", folder / "config.yaml", ema=averaged)
            assert found.ema == averaged
            assert found.strays == ()
            made[case, averaged] = Bench(build(found.stored), load_file(folder / "io.safetensors"), {})
        return made[case, averaged]

    return of


@pytest.mark.parametrize(("case", "check"), checks())
@torch.no_grad()
def test_the_originals_numbers(
    benches: Callable[[str, bool], Bench], parity: Path, case: str, check: str, record_property: Any
) -> None:
    meta = json.loads((parity / case / "meta.json").read_text())
    described = next(each for each in meta["checks"] if each["id"] == check)
    loaded = benches(case, described["weights"].startswith("ema"))
    bench = Bench(loaded.model, loaded.io, described["params"])
    run = sampled if "sampler" in described["params"] else MEANINGS[(check.removesuffix("_ns"))]
    answers = run(bench, check)
    worst = 0.0
    for name, tolerance in described["outputs"].items():
        ours, theirs = answers[name.removeprefix(f"{check}.")], bench.io[name]
        assert ours.shape == theirs.shape, name
        worst = max(worst, excess(ours, theirs, tolerance=tolerance))
        assert worst <= 1, f"{name}: {worst:.3g} times the tolerance"
    record_property("worst", worst)


def excess(ours: Tensor, theirs: Tensor, *, tolerance: Mapping[str, Any]) -> float:
    """The largest error as a share of what is allowed; 0 or infinite for exact outputs."""
    if tolerance.get("exact"):
        return 0.0 if torch.equal(ours, theirs) else float("inf")
    allowed = torch.tensor(tolerance["tol_max_abs"], dtype=torch.float64)
    if allowed.ndim:
        allowed = allowed.reshape(-1, *[1] * (theirs.ndim - 1))
    allowed = allowed + tolerance.get("tol_rel", 0.0) * theirs.double().abs()
    share = (ours.double() - theirs.double()).abs() / allowed
    return float("inf") if share.isnan().any() else share.max().item()


def sampled(bench: Bench, check: str) -> dict[str, Tensor]:
    """A walk, step by step."""
    params, model = bench.params, bench.diffusion
    ancestral = params["sampler"] == "ddpm"
    start = bench.io["x_T"]
    times = Times(torch.arange(params["timesteps"] - 1, -1, -1), end=-1) if ancestral else "original"
    noises = "noises" if ancestral else params["noises"]
    steps = [
        *walk(
            model,
            start,
            conditions=bench.port("c" if ancestral else params["conditioning"]),
            null=bench.port(params.get("unconditional_conditioning")),
            solver=params["sampler"],
            steps=params.get("steps", 50),
            eta=params.get("eta", 0.0),
            guidance=params.get("guidance_scale", 1.0),
            times=times,
            noises=None if noises is None else bench.io[noises],
            constraint=kept(bench) if "mask" in params else None,
            temperature=params.get("temperature", 1.0),
        )
    ]
    return {
        "x_inter": torch.stack([step.x for step in steps]),
        "pred_x0": torch.stack([step.x0 for step in steps]),
        "timesteps": torch.tensor([step.t for step in steps]),
    }


def kept(bench: Bench) -> Constraint:
    """The known region noised anew before every step; the recorded mask is 1 where it is kept, ours where we paint."""
    paint = 1 - bench.io[bench.params["mask"]]
    known, noises = bench.io[bench.params["x0"]], bench.io[bench.params["qnoise"]]

    def hold(x: Latent, t: Time, index: int) -> Latent:
        noised = add_noise(bench.diffusion.schedule, known, noise=noises[index], t=t)
        return paint * x + (1 - paint) * noised

    return hold


def encoded(bench: Bench, check: str) -> dict[str, Tensor]:
    first_stage = bench.first_stage
    images = bench.io["image_ns" if check.endswith("_ns") else "image"]
    mean, log_variance = first_stage.moments(images)
    answers = {"enc": first_stage.encoder(images), "recon": first_stage.decode(mean)}
    if log_variance is not None:
        return {**answers, "mean": mean, "logvar": log_variance}
    quantized, indices = first_stage.quantize(mean)
    reconstruction = first_stage.reconstruct(images)
    assert torch.equal(reconstruction.images, answers["recon"])
    loss = reconstruction.regularizer.mean(0, keepdim=True)
    return {**answers, "h": mean, "indices": indices.flatten(), "quant": quantized, "emb_loss": loss}


def decoded(bench: Bench, check: str) -> dict[str, Tensor]:
    first_stage, io = bench.first_stage, bench.io
    if first_stage.codebook is None:
        return {"image": first_stage.decode(io["z"]), "image_ns": first_stage.decode(io["z_ns"])}
    _, indices = first_stage.quantize(io["h"])
    entries = first_stage.codebook.look_up(io["codes"].reshape(indices.shape))
    return {
        "image": first_stage.decode(io["h"]),
        "image_noquant": first_stage.decode_raw(io["h"]),
        "indices": indices.flatten(),
        "entry": entries,
        "image_codes": first_stage.decode_raw(entries),
    }


def drawn(bench: Bench, check: str) -> dict[str, Tensor]:
    mean, log_variance = bench.first_stage.moments(bench.io["image"])
    assert log_variance is not None
    found = Posterior(mean, log_variance)
    return {"z": found.sample(bench.io["post_noise"]), "kl": found.kl()}


def clamped(bench: Bench, check: str) -> dict[str, Tensor]:
    found = Posterior.from_moments(bench.io["moments_big"])
    return {"mean": found.mean, "logvar": found.log_variance, "std": found.std}


def raw_output(bench: Bench, check: str) -> dict[str, Tensor]:
    suffix = "_ns" if check.endswith("_ns") else ""
    port = bench.port("uc" if check.endswith("_uncond") else "c")
    return {"eps": bench.diffusion.network(bench.io[f"x{suffix}"], bench.io[f"t{suffix}"], port)}


def time_embedding(bench: Bench, check: str) -> dict[str, Tensor]:
    network = bench.diffusion.network
    return {"sin": sinusoid(bench.io["t"], network.spec.channels), "emb": network.time(bench.io["t"])}


def conditioned(bench: Bench, check: str) -> dict[str, Tensor]:
    model, io = bench.diffusion, bench.io
    (field,) = model.spec.fields
    names = {"c": "class_label", "uc": "uncond_label"}
    if field == "caption":
        names = {"c": "tokens", "uc": "uncond_tokens", "c_short": "tokens_short"}
    answers = {name: model.condition({field: io[given]}).tokens for name, given in names.items()}
    if field == "label":  # the class that guidance compares with is the one found as null
        assert torch.equal(model.null(Conditions(tokens=answers["c"])).tokens, answers["uc"])
    return answers


def whole_first_stage(bench: Bench, check: str) -> dict[str, Tensor]:
    model, io = bench.diffusion, bench.io
    answers = {"dec": model.decode(io["z"]), "z": model.encode(io["image"], noise=io.get("post_noise"))}
    mean, log_variance = model.first_stage.moments(io["image"])
    return answers if log_variance is None else {**answers, "mean": mean, "logvar": log_variance}


def pipeline(bench: Bench, check: str) -> dict[str, Tensor]:
    *_, last = walk(bench.diffusion, bench.io["x_T"], steps=5, times="original")
    return {"image": bench.diffusion.decode(last.x)}


def one_step(bench: Bench, check: str) -> dict[str, Tensor]:
    model, io = bench.diffusion, bench.io
    x, t = io["x3"], io["t_step"]
    x0 = Denoiser(model.network, model.schedule, model.prediction)(x, t, Conditions(tokens=io["c3"]))
    found = posterior(model.schedule, x0=x0, x_t=x, t=t)
    noise = io["step_noise"] * (t > 0).float().reshape(-1, 1, 1, 1)
    return {"x0": x0, "sample": found["mean"] + (0.5 * found["logvar"]).exp() * noise, **found}


def noised(bench: Bench, check: str) -> dict[str, Tensor]:
    io = bench.io
    return {"x_noisy": add_noise(bench.diffusion.schedule, io["x0"], noise=io["noise"], t=io["t"])}


def losses(bench: Bench, check: str) -> dict[str, Tensor]:
    """The loss as trained, and its two parts, of which the original logs the means over the batch."""
    model, io = bench.diffusion, bench.io
    port = bench.port("c") or Conditions()
    total = model.loss(io["x0"], t=io["t"], noise=io["noise"], conditions=port)
    noisy = add_noise(model.schedule, io["x0"], noise=io["noise"], t=io["t"])
    output = model.network(noisy, io["t"], port)
    plain = error(output, io["noise"], loss=model.spec.objective.loss)
    variational = variational_weight(model.schedule, model.prediction, t=io["t"]) * plain
    parts = {"loss": total, "loss_simple": plain, "loss_vlb": variational}
    return {name: values.mean(0, keepdim=True) for name, values in parts.items()}


MEANINGS: dict[str, Callable[[Bench, str], dict[str, Tensor]]] = {
    "encode": encoded,
    "decode": decoded,
    "sample": drawn,
    "moments": clamped,
    "eps": raw_output,
    "eps_raw": raw_output,
    "eps_uncond": raw_output,
    "time": time_embedding,
    "cond": conditioned,
    "first_stage": whole_first_stage,
    "pipeline": pipeline,
    "p_step": one_step,
    "p_var": one_step,
    "q_sample": noised,
    "loss": losses,
}


def test_all_cases_and_checks_are_run(parity: Path) -> None:
    assert len(checks()) == sum(len(json.loads((parity / case / "meta.json").read_text())["checks"]) for case in CASES)


def test_the_grid_of_the_original_is_longer_than_asked() -> None:
    from darkroom.process.schedule import LinearSpec, build_schedule

    assert len(choose_times(build_schedule(LinearSpec()), "original", steps=7).visited) == 8

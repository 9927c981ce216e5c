"""Plans for machines that are not here: what is counted without memory is what a forward pass really keeps."""

import gc
import json
from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from darkroom.autoencoder.losses import first_stage_loss
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.cli.main import main
from darkroom.conditioning.conditioner import Conditioning
from darkroom.core.compute import Compute
from darkroom.core.errors import SpecError
from darkroom.network.unet import UNet
from darkroom.nn.features import perceptual
from darkroom.recipes.asked import Asked
from darkroom.recipes.cluster import GPUS, plan_for, told_for
from darkroom.recipes.counted import blank, first_stage_step, step_of
from darkroom.recipes.describe import describe, latent_shape
from darkroom.recipes.read import recipe
from darkroom.recipes.schema import Recipe

BATCH = 2


def kept(name: str, *, recompute: bool) -> tuple[float, int]:
    """Bytes a picture that a forward pass of real tensors left allocated, and as counted without memory."""
    found = recipe(name, overrides=[f"denoiser.network.recompute={str(recompute).lower()}"])
    return allocated(found, batch=BATCH) / BATCH, step_of(found).kept


def allocated(found: Recipe, *, batch: int, dtype: torch.dtype = torch.float32) -> int:
    """Bytes that a forward pass of real tensors left allocated."""
    model, latent = found.model_spec(), latent_shape(found)
    assert model is not None
    network, conditioning = UNet(model.network).train(), Conditioning(model.conditioners).train()
    fields = blank(model, latent=latent, batch=batch)
    x, t = torch.randn(batch, *latent), torch.zeros(batch, dtype=torch.long)
    gc.collect()
    with (
        Compute(torch.device("cpu"), dtype).autocast(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen,
    ):
        output = network(x, t, conditioning(fields))
        gc.collect()
    assert output.shape == x.shape
    return sum(each.self_cpu_memory_usage for each in seen.key_averages())


@pytest.mark.parametrize("name", ["tiny-class", "tiny-text", "tiny-uncond", "tiny-semantic", "tiny-layout"])
def test_activations_are_those_of_a_real_pass(name: str) -> None:
    measured, counted = kept(name, recompute=False)
    assert counted == pytest.approx(measured, rel=0.15)


def test_activations_that_are_worked_out_again_are_not_kept() -> None:
    measured, counted = kept("tiny-class", recompute=True)
    assert counted == pytest.approx(measured, rel=0.15)
    assert counted < 0.7 * kept("tiny-class", recompute=False)[1]


def test_in_two_bytes_weights_are_there_twice_and_activations_half_as_large() -> None:
    found = recipe("tiny-class")
    few, many = (allocated(found, batch=batch, dtype=torch.bfloat16) for batch in (2, 6))
    each = (many - few) / 4
    plan = plan_for(found, gpus=1, gpu="h100")
    assert few - 2 * each == pytest.approx(plan["memory"]["cast_weights"], rel=0.15)
    assert each == pytest.approx(step_of(found).kept / 2, rel=0.25)


def test_what_a_plan_is_asked_for_it_counts() -> None:
    changes = ["denoiser.train.batch=64", "denoiser.train.micro=5", "denoiser.train.averages={every: 9}"]
    found, plain = (recipe("tiny-class", overrides=each) for each in (changes, changes[:1]))
    plan, whole = (plan_for(each, gpus=4, gpu="h200") for each in (found, plain))
    assert (plan["at_a_time"], whole["at_a_time"]) == (16, 64)
    assert 4 * plan["memory"]["activations"] == whole["memory"]["activations"]
    assert plan["memory"]["averages"] == 3 * whole["memory"]["averages"] > 0
    assert plan["seconds_a_step"] == whole["seconds_a_step"]
    single = plan_for(
        recipe("tiny-class", overrides=[*changes[:1], "denoiser.train.precision=float32"]), gpus=4, gpu="h200"
    )
    assert single["memory"]["activations"] == pytest.approx(2 * whole["memory"]["activations"], rel=1e-6)
    assert single["memory"]["cast_weights"] == 0
    slower = single["seconds_a_step"]["working"] / whole["seconds_a_step"]["working"]
    assert slower == pytest.approx(GPUS["h200"].half / GPUS["h200"].single)


def test_gradients_go_over_the_slowest_link() -> None:
    found = recipe("tiny-class", overrides=["denoiser.train.batch=64"])

    def seconds(gpus: int, gpu: str) -> float:
        return plan_for(found, gpus=gpus, gpu=gpu)["seconds_a_step"]["averaging_gradients"]

    gradients = plan_for(found, gpus=1, gpu="h200")["memory"]["gradients"]
    assert seconds(8, "h200") == pytest.approx(2 * gradients * 7 / 8 / 300e9)
    assert seconds(16, "h200") == pytest.approx(2 * gradients * 15 / 16 / 50e9)
    assert seconds(16, "l40s") == pytest.approx(2 * gradients * 15 / 16 / 25e9)


def test_what_does_not_fit_is_told_with_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = recipe("tiny-class", overrides=["denoiser.train.batch=64"])
    roomy = plan_for(found, gpus=2, gpu="h200")
    held = sum(roomy["memory"].values()) - roomy["memory"]["activations"]
    for pictures, words in ((3.5, "does NOT fit; train.micro=3 does"), (0.5, "does NOT fit, with however few")):
        memory = (held + pictures * step_of(found).kept // 2) / 0.9
        monkeypatch.setitem(GPUS, "h200", replace(GPUS["h200"], memory=memory))
        assert words in told_for(plan_for(found, gpus=2, gpu="h200"))


def test_the_parts_of_a_plan() -> None:
    found = recipe("tiny-class")
    plan, known = plan_for(found, gpus=4, gpu="h100"), describe(found)
    trained = known["parameters"]["network"] + known["parameters"]["conditioner"]
    assert plan["parameters"] == known["parameters"]
    assert plan["flops"] == known["flops"]["network"]
    assert plan["memory"]["optimizer"] == 8 * trained
    held = sum(plan["memory"].values()) - plan["memory"]["activations"]
    each = step_of(found).kept // 2
    assert (
        held + plan["largest_batch"] // 4 * each
        <= 0.9 * GPUS["h100"].memory
        < held + (plan["largest_batch"] // 4 + 1) * each
    )
    assert plan["days"] * 86400 == pytest.approx(max(plan["seconds_a_step"].values()) * plan["steps"])
    alone = plan_for(found, gpus=1, gpu="h100")
    assert alone["seconds_a_step"]["averaging_gradients"] == 0


def test_weights_in_parts() -> None:
    """Shares of what each GPU would hold, a little that is whole, and half as much again to send."""
    whole, parts = (
        plan_for(recipe("tiny-text", overrides=[f"denoiser.train.strategy={each}"]), gpus=4, gpu="h100")
        for each in ("ddp", "fsdp")
    )
    for name in ("weights", "gradients", "optimizer", "averages"):
        assert parts["memory"][name] == whole["memory"][name] // 4
    assert 0 < parts["memory"]["whole_at_a_time"] < 3 * whole["memory"]["weights"]
    totals = {each["strategy"]: sum(each["memory"].values()) for each in (whole, parts)}
    assert whole["by_strategy"] == parts["by_strategy"] == totals
    sent = "averaging_gradients"
    assert parts["seconds_a_step"][sent] == pytest.approx(1.5 * whole["seconds_a_step"][sent])
    turned = plan_for(recipe("tiny-text", overrides=["denoiser.train.optimizer=muon"]), gpus=4, gpu="h100")
    assert turned["memory"]["optimizer"] < whole["memory"]["optimizer"]
    assert turned["by_strategy"]["fsdp"] == totals["fsdp"]
    assert "GB by FSDP, with optimizer=adamw" in told_for(turned)  # muon does not work on parts
    assert "adamw" not in told_for(whole)


@pytest.mark.parametrize("change", ["perceptual_weight=0.2", "perceptual_weight=0"])
def test_what_a_first_stage_keeps_is_what_a_real_pass_keeps(change: str) -> None:
    made = recipe("tiny-vq", overrides=[f"first_stage.loss.{change}", "first_stage.loss.adversary=null"])
    part, size = made.first_stage, made.data.size
    assert isinstance(part.model, AutoencoderSpec)
    model, distance = Autoencoder(part.model).train(), perceptual("small")
    images = torch.randn(BATCH, part.model.image_channels, size, size)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        found = first_stage_loss(
            images, model.reconstruct(images), spec=part.loss, model=part.model, distance=distance
        ).total
        gc.collect()
    assert len(found) == BATCH
    measured = sum(each.self_cpu_memory_usage for each in seen.key_averages()) / BATCH
    assert first_stage_step(made).kept == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize(
    ("name", "change"),
    [("kl-f8", "train.batch=8"), ("vq-f4", "train.micro=1"), ("tiny-decoder", "loss.perceptual_weight=0.2")],
)
def test_first_stages_are_planned_with_what_judges_them(name: str, change: str) -> None:
    """An adversary's weights, gradients and moments, and the network whose features are compared."""
    made = recipe(name, overrides=[f"first_stage.{change}"])
    plan, known = plan_for(made, gpus=4, gpu="h200"), describe(made)
    loss = made.first_stage.loss.model_copy(update={"adversary": None, "perceptual_weight": 0.0})
    alone = made.model_copy(update={"first_stage": made.first_stage.model_copy(update={"loss": loss})})
    plain = plan_for(alone, gpus=4, gpu="h200")
    assert plan["stage"] == "first_stage"
    assert plan["flops"] == known["flops"]["encode"] + known["flops"]["decode"]
    assert plain["memory"]["weights"] == 4 * known["parameters"]["first_stage"]
    held = ("weights", "gradients", "optimizer", "averages", "features")
    assert sum(plan["memory"][each] for each in held) == known["memory"]["train_first_stage"]
    for part in ("features", "activations"):
        assert plan["memory"][part] > plain["memory"][part]
    assert plan["seconds_a_step"]["working"] > plain["seconds_a_step"]["working"]
    judged = made.first_stage.loss.adversary is not None
    assert (plan["memory"]["optimizer"] > plain["memory"]["optimizer"]) == judged


def test_both_stages_are_planned() -> None:
    plan = plan_for(recipe("tiny-text"), gpus=4, gpu="h200")
    assert (plan["stage"], plan["first_stage"]["stage"]) == ("denoiser", "first_stage")
    given = recipe("tiny-text", overrides=["first_stage.train=null"])
    assert "first_stage" not in plan_for(given, gpus=4, gpu="h200")


def test_a_first_stage_that_these_gpus_cannot_share_leaves_the_denoiser_planned() -> None:
    made = recipe("tiny-class", overrides=["first_stage.train.batch=4"])
    plan = plan_for(made, gpus=8, gpu="h200")
    why = "first_stage.train.batch is 4, which gpus=8 cannot share evenly; first_stage.train.batch=8 fits"
    assert plan["first_stage"] == {"stage": "first_stage", "unplanned": why}
    assert {**plan, "first_stage": None} == {**plan_for(recipe("tiny-class"), gpus=8, gpu="h200"), "first_stage": None}
    assert told_for(plan).startswith(f"not planned: {why}\n\ntiny-class on 8 x h200")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tiny-class", "--plan", "gpus=8", "gpu=h200", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"] == 8
    assert main(["train", "tiny-class", "--plan", "gpus=8", "gpu=h200"]) == 0
    said = capsys.readouterr().out
    assert "by DDP, the first stage" in said
    assert "by DDP, the denoiser" in said
    assert "GB by FSDP" in said
    for words, complaint in ((["--plan", "minutes=5"], "fits a run to the machine it is on"), ([], "are for --plan")):
        assert main(["train", "tiny-class", "gpus=8", "gpu=h200", *words]) == 2
        assert complaint in capsys.readouterr().err


def test_what_cannot_be_planned() -> None:
    with pytest.raises(SpecError, match="did you mean 'h200'"):
        plan_for(recipe("tiny-class"), gpus=8, gpu="h20")
    with pytest.raises(SpecError, match=r"cannot share evenly; denoiser\.train\.batch=35 fits"):
        plan_for(recipe("tiny-class"), gpus=7, gpu="h200")
    with pytest.raises(SpecError, match=r"cannot share evenly; first_stage\.train\.batch=8 fits"):
        plan_for(recipe("kl-f8"), gpus=8, gpu="h200")
    with pytest.raises(SpecError, match="gpus=0 leaves nothing to plan for"):
        plan_for(recipe("tiny-class"), gpus=0, gpu="h200")
    with pytest.raises(SpecError, match="float64 is for checks"):
        plan_for(recipe("tiny-class", overrides=["denoiser.train.precision=float64"]), gpus=1, gpu="h200")
    with pytest.raises(SpecError, match="go together"):
        _ = Asked(source="tiny-class", changes=("gpus=8",)).machine

"""Original checkpoints: what is taken, what is reported, and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from darkroom.autoencoder.model import Autoencoder
from darkroom.checkpoint.compvis import convert_original, load_original
from darkroom.checkpoint.store import build, load_model, save_model
from darkroom.conditioning.text import TextSpec
from darkroom.core.conditions import Conditions
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.process.schedule import TableSpec
from originals import CONFIGS, KL, averages, both, checkpoint, config, described, state_of, written


@pytest.mark.parametrize("name", CONFIGS)
def test_every_way_of_steering_loads_and_runs(tmp_path: Path, name: str) -> None:
    model, kinds = CONFIGS[name]
    found = convert_original(*both(tmp_path, model))
    assert found.strays == ()
    assert found.stored.card.get("sample") == ({"guidance": 5.0} if "text" in kinds else None)
    spec = found.stored.spec
    assert isinstance(spec, ModelSpec)
    assert [each.kind for each in spec.conditioners] == kinds
    diffusion = build(found.stored)
    assert isinstance(diffusion, LatentDiffusion)
    inputs = {
        "label": torch.tensor([1, 2]),
        "caption": torch.zeros(2, 6, dtype=torch.long),
        "objects": torch.zeros(2, 6, dtype=torch.long),
        "embedding": torch.randn(2, 3, 24),
        "map": torch.rand(2, 7, 16, 16),
        "low_res": torch.randn(2, 3, 8, 8),
        "masked": torch.randn(2, 5, 8, 8),
    }
    conditions = diffusion.condition({field: inputs[field] for field in spec.fields}) if kinds else Conditions()
    output = diffusion.network(torch.randn(2, 4, 8, 8), torch.tensor([0, 49]), conditions)
    assert output.shape == (2, 4, 8, 8)
    assert output.isfinite().all()
    again = load_model(save_model(tmp_path / "ours.safetensors", found.stored))
    assert again.spec == spec


def test_options_of_the_network_and_of_the_mathematics(tmp_path: Path) -> None:
    unet = {
        "resblock_updown": True,
        "use_scale_shift_norm": True,
        "use_new_attention_order": True,
        "dropout": 0.1,
        "use_checkpoint": True,
    }
    values = {
        "beta_schedule": "cosine",
        "cosine_s": 0.01,
        "parameterization": "x0",
        "loss_type": "l1",
        "original_elbo_weight": 0.5,
        "l_simple_weight": 0.7,
        "learn_logvar": True,
        "logvar_init": 0.2,
        "scale_factor": 0.18215,
    }
    found = described(tmp_path, config(unet=unet, **values))
    spec = found.spec
    assert isinstance(spec, ModelSpec)
    network, objective = spec.network, spec.objective
    assert (network.resample, network.scale_shift, network.dropout, network.recompute) == ("residual", True, 0.1, True)
    assert (spec.schedule.kind, spec.prediction, spec.scale, spec.image_size) == ("cosine", "x0", 0.18215, 16)
    assert (objective.loss, objective.simple_weight, objective.variational_weight) == ("l1", 0.7, 0.5)
    assert (objective.learn_log_variance, objective.log_variance_init) == (True, 0.2)
    assert not found.fused_by_head
    loaded = build(load_original(*both(tmp_path, config(unet=unet, **values))))
    assert isinstance(loaded, LatentDiffusion)
    assert loaded.scale.item() == pytest.approx(0.18215)
    assert loaded.log_variance is not None
    for name, ours in (("linear", "linear"), ("sqrt_linear", "true-linear"), ("sqrt", "sqrt")):
        assert described(tmp_path, config(beta_schedule=name)).spec.schedule.kind == ours
    pooled = described(tmp_path, config(unet={"conv_resample": False, "context_dim": None})).spec
    assert pooled.network.resample == "pool"


def test_moving_averages_are_taken_when_they_are_complete(tmp_path: Path) -> None:
    found = described(tmp_path, config())
    assert isinstance(found.spec, ModelSpec)
    state = state_of(found)
    mean = averages(state, found.spec)
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(3)}
    path, file = checkpoint(tmp_path, state | mean | counters), tmp_path / "config.yaml"
    stem, name = "model.diffusion_model.input_blocks.0.0.weight", "network.stem.weight"
    averaged, raw = convert_original(path, file), convert_original(path, file, ema=False)
    assert (averaged.ema, raw.ema) == (True, False)
    assert averaged.strays == raw.strays == ()
    assert torch.equal(averaged.stored.state[name], state[stem] + 1)
    assert torch.equal(raw.stored.state[name], state[stem])
    assert averaged.stored.card["weights"] == "ema"
    assert any("although" in sentence for sentence in raw.odd)
    mean.pop("model_ema." + stem.removeprefix("model.").replace(".", ""))
    partial = convert_original(checkpoint(tmp_path, state | mean | counters), file)
    assert not partial.ema
    assert any("incomplete" in sentence for sentence in partial.odd)
    merged = convert_original(checkpoint(tmp_path, state | counters), file)
    assert not merged.ema
    assert any("no moving averages" in sentence for sentence in merged.odd)


def test_strays_are_reported_and_missing_keys_refused(tmp_path: Path) -> None:
    extra = {
        "ddim_sigmas": torch.zeros(2),
        "logvar": torch.zeros(50),
        "first_stage_model.loss.logvar": torch.zeros(()),
        "surplus": torch.zeros(1),
    }
    path, file = both(tmp_path, config(), **extra)
    found = convert_original(path, file)
    assert found.strays == ("ddim_sigmas", "logvar", "surplus")
    assert any("'ddim_sigmas'" in sentence for sentence in found.stored.odd)
    assert found.stored.card["steps"] == 5
    state = state_of(described(tmp_path, config()))
    stem = "model.diffusion_model.input_blocks.0.0.weight"
    with pytest.raises(ModelFileError, match=rf"model\.ckpt: .*{stem}.* shape \(4, 4\)"):
        load_original(checkpoint(tmp_path, {**state, stem: torch.zeros(4, 4)}), file)
    del state[stem]
    with pytest.raises(ModelFileError, match=rf"model\.ckpt: '{stem}' is missing"):
        load_original(checkpoint(tmp_path, state), file)


def test_scale_by_std_needs_its_buffer(tmp_path: Path) -> None:
    path, file = both(tmp_path, config(scale_by_std=True), scale_factor=torch.tensor(0.83))
    model = build(load_original(path, file))
    assert isinstance(model, LatentDiffusion)
    assert model.scale.item() == pytest.approx(0.83)
    state = state_of(described(tmp_path, config()))
    written(tmp_path, config(scale_by_std=True))
    with pytest.raises(ModelFileError, match="'scale_factor' is missing"):
        load_original(checkpoint(tmp_path, state), file)


def test_half_precision_safetensors_and_lean_text_encoders(tmp_path: Path) -> None:
    state = state_of(described(tmp_path, CONFIGS["text"][0]))
    lean = {name: tensor.half() for name, tensor in state.items() if "to_logits" not in name}
    path = tmp_path / "model.safetensors"
    save_file(lean, path)
    stored = load_original(path, tmp_path / "config.yaml")
    assert isinstance(stored.spec, ModelSpec)
    assert isinstance(stored.spec.schedule, TableSpec)
    assert any("noise levels" in sentence for sentence in stored.odd)
    (conditioner,) = stored.spec.conditioners
    assert isinstance(conditioner, TextSpec)
    assert not conditioner.encoder.spare_logits
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in stored.state.values())
    empty = stored.state["conditioning.by_field.caption.empty_ids"]
    assert empty.tolist() == [101, 102, 0, 0, 0, 0]
    model = build(stored)
    assert isinstance(model, LatentDiffusion)
    expected = lean["alphas_cumprod"].float()
    assert torch.allclose(model.schedule.alpha(torch.arange(50)) ** 2, expected.double(), atol=1e-12)


def test_noise_levels_that_cannot_be_are_refused(tmp_path: Path) -> None:
    state = state_of(described(tmp_path, config()))
    file = tmp_path / "config.yaml"
    with pytest.raises(ModelFileError, match="noise levels"):
        load_original(checkpoint(tmp_path, {**state, "alphas_cumprod": torch.ones(3)}), file)
    rising = state["alphas_cumprod"].flip(0)
    with pytest.raises(ModelFileError, match="must fall"):
        load_original(checkpoint(tmp_path, {**state, "alphas_cumprod": rising}), file)
    with pytest.raises(ModelFileError, match="alphas_cumprod"):
        load_original(checkpoint(tmp_path, {**state, "alphas_cumprod": rising * float("nan")}), file)


def test_noise_levels_that_were_rounded_to_none(tmp_path: Path) -> None:
    """In bfloat16 the first of them are 1: the original divides by their noise, so those of the YAML are taken."""
    model = config(linear_start=0.00085, linear_end=0.012)
    state = state_of(described(tmp_path, model))
    rounded = state["alphas_cumprod"].bfloat16()
    assert rounded[0] == 1
    stored = load_original(checkpoint(tmp_path, {**state, "alphas_cumprod": rounded}), tmp_path / "config.yaml")
    assert isinstance(stored.spec, ModelSpec)
    assert stored.spec.schedule == described(tmp_path, model).spec.schedule
    assert (
        "its noise levels were rounded until the first had no noise; those of its configuration are taken" in stored.odd
    )
    with pytest.raises(ModelFileError, match="noise levels without any noise"):
        load_original(checkpoint(tmp_path, {**state, "alphas_cumprod": torch.ones(50)}), tmp_path / "config.yaml")


def test_a_first_stage_alone_and_out_of_a_whole_model(tmp_path: Path) -> None:
    whole = state_of(described(tmp_path, config()))
    alone = {name.removeprefix("first_stage_model."): each for name, each in whole.items() if "first_stage" in name}
    loss = {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4)}
    file = written(tmp_path, KL)
    first = convert_original(checkpoint(tmp_path, alone | loss), file)
    second = convert_original(checkpoint(tmp_path, whole), file)
    assert first.stored.kind == second.stored.kind == "first-stage"
    assert first.strays == second.strays == ()
    a, b = build(first.stored), build(second.stored)
    assert isinstance(a, Autoencoder)
    assert isinstance(b, Autoencoder)
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(a.moments(images)[0], b.moments(images)[0])

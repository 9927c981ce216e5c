"""A whole model as tensors: what fits together, the latent scale, losses, counts."""

import time
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from darkroom.autoencoder.model import AutoencoderSpec, PixelsSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.spatial import LowResSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec
from darkroom.core.conditions import Conditions
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import LatentDiffusion, ModelSpec, count_parameters
from darkroom.network.unet import UNetSpec
from darkroom.process.objective import NoisiestTimeSpec, ObjectiveSpec
from darkroom.process.prediction import PredictionName
from darkroom.process.schedule import CosineSpec, FlowSpec, LinearSpec, coefficients

FIRST = AutoencoderSpec(
    channels=8, multipliers=(1, 1), blocks=1, latent_channels=3, norm_groups=4, middle_attention=False
)
ENCODER = SequenceEncoderSpec(vocabulary=12, length=5, width=8, depth=1, heads=2, head_width=4)
TEXT = TextSpec(encoder=ENCODER)
LABEL = ClassSpec(classes=3, width=32, null=3, port="vector")
LOW = LowResSpec(channels=2)


def network(**options: Any) -> UNetSpec:
    values = {"in_channels": 3, "out_channels": 3, "channels": 8, "multipliers": (1, 2), "blocks": 1, "norm_groups": 4}
    return UNetSpec(**{**values, **options})


def spec(**options: Any) -> ModelSpec:
    return ModelSpec(**{"image_size": 16, "first_stage": FIRST, "network": network(), **options})


def steered(**options: Any) -> ModelSpec:
    ports = network(in_channels=5, transformer_depth=1, context_width=8)
    return spec(network=ports, conditioners=(TEXT, LABEL, LOW), **options)


def made(given: ModelSpec, *, scale: float | None = 0.5) -> LatentDiffusion:
    torch.manual_seed(0)
    model = LatentDiffusion(given)
    if scale is not None:
        model.scale.fill_(scale)
    for parameter in model.network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def inputs() -> dict[str, torch.Tensor]:
    return {
        "caption": torch.tensor([[2, 5, 3, 0, 0], [2, 7, 8, 3, 0]]),
        "label": torch.tensor([0, 2]),
        "low_res": torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(5)),
    }


def test_a_consistent_spec_knows_its_fields() -> None:
    found = steered()
    assert found.fields == ("caption", "label", "low_res")
    assert (found.size_multiple, found.guided) == (4, True)
    assert not spec().guided


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "greater than 0"),
        ({"scale": float("inf")}, "finite number"),
        ({"network": network(out_channels=4)}, "network.out_channels is 4, latents have 3"),
        ({"network": network(in_channels=4)}, "network.in_channels is 4, 3 latent and 0 plane channels enter it"),
        ({"conditioners": (LOW,)}, "network.in_channels is 3, 3 latent and 2 plane channels enter it"),
        ({"conditioners": (TEXT,)}, "caption conditioner gives tokens of width 8, network.context_width is None"),
        (
            {"network": network(transformer_depth=1, context_width=6), "conditioners": (TEXT,)},
            "tokens of width 8, network.context_width is 6",
        ),
        (
            {"conditioners": (LABEL.model_copy(update={"width": 8}),)},
            "label conditioner gives a vector of width 8, the time embedding has 32",
        ),
        ({"conditioners": (LABEL, LABEL)}, "two conditioners read the same field"),
        ({"image_size": 18}, "image_size 18 does not fit: sides must be multiples of 4"),
        ({"image_size": 0}, "greater than 0"),
        ({"schedule": CosineSpec(zero_terminal_snr=True)}, "eps"),
        ({"schedule": LinearSpec(zero_terminal_snr=True)}, "eps"),
        ({"schedule": FlowSpec(), "prediction": "v", "objective": ObjectiveSpec(learn_log_variance=True)}, "discrete"),
        ({"prediction": "v", "objective": ObjectiveSpec(variational_weight=0.1)}, "variational_weight"),
        ({"prediction": "noise"}, "'eps'"),
    ],
)
def test_what_does_not_fit_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**options)


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_zero_terminal_snr_goes_with_other_predictions(prediction: str) -> None:
    assert spec(schedule=CosineSpec(zero_terminal_snr=True), prediction=prediction).prediction == prediction


@torch.no_grad()
def test_an_unknown_scale_is_refused() -> None:
    model = made(spec(), scale=None)
    with pytest.raises(ModelFileError, match="scale of latents is not known"):
        model.encode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ModelFileError, match="scale of latents is not known"):
        model.decode(torch.zeros(1, 3, 4, 4))
    assert float(LatentDiffusion(spec(scale=0.25)).scale) == 0.25


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.18215, 7.0])
def test_encode_applies_the_scale_and_decode_takes_it_off(scale: float) -> None:
    model = made(spec(), scale=scale)
    images = torch.rand(2, 3, 16, 8) * 2 - 1
    mean, log_variance = model.first_stage.moments(images)
    torch.testing.assert_close(model.encode(images), mean * scale)
    torch.testing.assert_close(model.decode(model.encode(images)), model.first_stage.decode(mean))
    noise = torch.randn_like(mean)
    torch.testing.assert_close(model.encode(images, noise=noise), (mean + (log_variance / 2).exp() * noise) * scale)
    assert model.latent_shape((16, 8)) == tuple(mean.shape[1:])


@torch.no_grad()
def test_the_scale_may_be_one_per_channel() -> None:
    model = made(spec())
    plain = model.encode(images := torch.rand(1, 3, 8, 8)) / 0.5
    model.scale = torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(model.encode(images), plain * torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(model.decode(model.encode(images)), model.first_stage.decode(plain))


@torch.no_grad()
def test_the_loss_is_the_mean_square_of_the_prediction() -> None:
    model = made(spec())
    draw = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, 3, 4, 4, generator=draw) for _ in range(2))
    t = torch.tensor([10, 900])
    alpha, sigma = coefficients(model.schedule, t, like=latents)
    output = model.network(alpha * latents + sigma * noise, t, Conditions())
    expected = (output - noise).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(model.loss(latents, t=t, noise=noise, conditions=Conditions()), expected)


@torch.no_grad()
def test_fields_are_dropped_before_conditioning() -> None:
    model = made(steered())
    model.conditioning["caption"].set_empty([2, 3, 0, 0, 0])
    draw = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, 3, 8, 8, generator=draw) for _ in range(2))
    t, given = torch.tensor([10, 900]), inputs()
    dropped = {"caption": torch.tensor([True, False]), "label": torch.tensor([False, True])}
    kept = model.conditioning.drop(model.prepared(given), dropped)
    found = model.loss(latents, t=t, noise=noise, conditions=model.condition(kept))
    cut = {
        **given,
        "caption": torch.stack([torch.tensor([2, 3, 0, 0, 0]), given["caption"][1]]),
        "label": torch.tensor([0, 3]),
    }
    torch.testing.assert_close(found, model.loss(latents, t=t, noise=noise, conditions=model.condition(cut)))
    whole = model.loss(latents, t=t, noise=noise, conditions=model.condition(given))
    assert not torch.allclose(found, whole, atol=1e-6)
    none = model.conditioning.drop(model.prepared(given), {})
    torch.testing.assert_close(model.loss(latents, t=t, noise=noise, conditions=model.condition(none)), whole)


def test_the_learnt_log_variance_is_trained() -> None:
    model = made(spec(objective=ObjectiveSpec(learn_log_variance=True, log_variance_init=0.3)))
    assert model.log_variance is not None
    assert any(each is model.log_variance for each in model.denoising_parameters)
    draw = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, 3, 4, 4, generator=draw) for _ in range(2))
    t = torch.tensor([10, 900])
    model.loss(latents, t=t, noise=noise, conditions=Conditions()).sum().backward()
    assert model.log_variance.grad is not None
    assert model.log_variance.grad.nonzero().flatten().tolist() == [10, 900]
    plain = made(spec()).loss(latents, t=t, noise=noise, conditions=Conditions()).detach()
    expected = 1 - plain / torch.tensor(0.3).exp()  # d/ds of e / exp(s) + s
    torch.testing.assert_close(model.log_variance.grad[[10, 900]], expected, rtol=1e-4, atol=1e-5)
    assert LatentDiffusion(spec()).log_variance is None


def test_the_second_stage_trains_network_and_conditioners_alone() -> None:
    model = LatentDiffusion(steered())
    trained = {id(each) for each in model.denoising_parameters}
    assert trained == {id(each) for each in (*model.network.parameters(), *model.conditioning.parameters())}
    assert not trained & {id(each) for each in model.first_stage.parameters()}


@pytest.mark.parametrize("given", [steered(), spec(), spec(first_stage=PixelsSpec(), scale=1.0)])
def test_counting_equals_building(given: ModelSpec) -> None:
    model = LatentDiffusion(given)
    parts = {"first_stage": model.first_stage, "network": model.network, "conditioner": model.conditioning}
    assert count_parameters(given) == {
        name: sum(each.numel() for each in part.parameters()) for name, part in parts.items()
    }


def test_counting_allocates_nothing() -> None:
    """A network of more than 400 GB is counted in moments."""
    started = time.monotonic()
    found = count_parameters(spec(network=network(channels=16_384, norm_groups=32)))
    assert found["network"] * 4 > 4e11
    assert time.monotonic() - started < 20


@torch.no_grad()
def test_null_says_nothing_about_what_training_dropped() -> None:
    model = made(steered())
    conditions = model.condition(inputs())
    null = model.null(conditions)
    assert torch.equal(null.planes, conditions.planes)
    assert not torch.equal(null.tokens, conditions.tokens)
    assert torch.equal(model.null(conditions, drop=["label"]).tokens, conditions.tokens)


@pytest.mark.parametrize("name", ["v", "x0", "eps"])
def test_a_regression_is_shown_no_noise(name: PredictionName) -> None:
    """x_t is zero whatever the noise, and the error is that of x0 (times what the prediction makes of it)."""
    given = spec(prediction=name, objective=ObjectiveSpec(times=NoisiestTimeSpec()))
    model, seen = LatentDiffusion(given), list[torch.Tensor]()

    def network(x: torch.Tensor, t: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    torch.manual_seed(0)
    latents, t = torch.randn(2, *model.latent_shape((16, 16))), torch.tensor([999, 999])
    losses = [
        model.loss(latents, t=t, noise=torch.randn_like(latents), conditions=Conditions(), network=network)
        for _ in range(2)
    ]
    assert max(float(each.abs().max()) for each in seen) < 1e-6
    assert torch.equal(*losses)
    alpha, sigma = (float(each(t)[0]) for each in (model.schedule.alpha, model.schedule.sigma))
    by = {"v": 1 / sigma, "x0": 1.0, "eps": alpha / sigma}[name]
    torch.testing.assert_close(losses[0], (by * latents).square().mean(dim=(1, 2, 3)), rtol=1e-4, atol=1e-6)

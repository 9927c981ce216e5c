"""First-stage losses: each weight in the unit its spec names, gradients where they belong."""

import pytest
import torch

from darkroom.autoencoder.bottleneck import KLSpec, PlainSpec, VQSpec
from darkroom.autoencoder.losses import FirstStageLossSpec, first_stage_loss
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, Reconstruction
from darkroom.nn.features import perceptual

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
MADE = Reconstruction(IMAGES.flip(0), torch.tensor([40.0, 5.0]))


def spec(bottleneck: KLSpec | VQSpec | PlainSpec) -> AutoencoderSpec:
    return AutoencoderSpec(
        channels=8, multipliers=(1, 1), blocks=1, norm_groups=4, latent_channels=2, bottleneck=bottleneck
    )


@pytest.mark.parametrize("pixel", ["l1", "l2"])
def test_the_kl_weight_belongs_to_sums_per_picture(pixel: str) -> None:
    """total x number of values = sum of pixel errors + weight x KL summed, as the original writes it."""
    weights = FirstStageLossSpec(pixel=pixel, kl_weight=0.02)
    found = first_stage_loss(IMAGES, MADE, spec=weights, model=spec(KLSpec()))
    difference = (MADE.images - IMAGES).abs()
    summed = (difference if pixel == "l1" else difference.square()).sum(dim=(1, 2, 3))
    torch.testing.assert_close(found.total * IMAGES[0].numel(), summed + 0.02 * MADE.regularizer)
    torch.testing.assert_close(found.pixel, summed / IMAGES[0].numel())
    assert torch.equal(found.regularizer, MADE.regularizer)


def test_the_codebook_weight_belongs_to_means() -> None:
    weights = FirstStageLossSpec(codebook_weight=0.3, kl_weight=9.0)
    found = first_stage_loss(IMAGES, MADE, spec=weights, model=spec(VQSpec(codes=4)))
    torch.testing.assert_close(found.total, found.pixel + 0.3 * MADE.regularizer)


def test_nothing_weighs_where_there_is_no_bottleneck() -> None:
    found = first_stage_loss(IMAGES, MADE, spec=FirstStageLossSpec(), model=spec(PlainSpec()))
    assert torch.equal(found.total, found.pixel)


def test_reduced_precision_is_widened_first() -> None:
    made = Reconstruction(MADE.images.bfloat16(), MADE.regularizer.bfloat16())
    found = first_stage_loss(IMAGES, made, spec=FirstStageLossSpec(), model=spec(KLSpec()))
    assert found.total.dtype == torch.float32


@pytest.mark.parametrize("bottleneck", [KLSpec(), VQSpec(codes=4), PlainSpec()])
def test_gradients_reach_every_parameter(bottleneck: KLSpec | VQSpec | PlainSpec) -> None:
    torch.manual_seed(0)
    model = Autoencoder(spec(bottleneck))
    noise = torch.randn(2, 2, 4, 4)
    made = model.reconstruct(IMAGES, noise=noise if isinstance(bottleneck, KLSpec) else None)
    first_stage_loss(IMAGES, made, spec=FirstStageLossSpec(), model=model.spec).total.mean().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if (parameter.grad is None or not parameter.grad.any()) and not name.endswith("key.bias")
    ]
    assert without == []  # a bias of the keys moves no softmax


def test_the_perceptual_term_adds_and_carries_gradient() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = images.flip(0).clone().requires_grad_()
    weights, distance = FirstStageLossSpec(perceptual_weight=0.5, kl_weight=0.0), perceptual("small")
    found = first_stage_loss(
        images, Reconstruction(made, torch.zeros(2)), spec=weights, model=spec(KLSpec()), distance=distance
    )
    assert found.perceptual is not None
    torch.testing.assert_close(found.reconstruction, found.pixel + 0.5 * found.perceptual)
    torch.testing.assert_close(found.total, found.reconstruction)
    found.perceptual.sum().backward()
    assert made.grad is not None
    assert made.grad.any()
    assert all(parameter.grad is None for parameter in distance.parameters())

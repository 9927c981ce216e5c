"""First-stage losses: each weight in the unit its spec names, gradients where they belong."""

import pytest
import torch

from darkroom.autoencoder.bottleneck import KLSpec, PlainSpec, VQSpec
from darkroom.autoencoder.losses import AdversarySpec, FirstStageLossSpec, check_available, first_stage_loss
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, Reconstruction
from darkroom.core.errors import NotYetError

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


@pytest.mark.parametrize("options", [{"perceptual_weight": 1.0}, {"adversary": AdversarySpec()}])
def test_terms_that_are_not_there_yet_are_refused(options: dict[str, object]) -> None:
    weights = FirstStageLossSpec(**options)
    with pytest.raises(NotYetError, match="perceptual and adversarial"):
        check_available(weights)
    with pytest.raises(NotYetError, match="perceptual_weight=0"):
        first_stage_loss(IMAGES, MADE, spec=weights, model=spec(KLSpec()))
    check_available(FirstStageLossSpec())

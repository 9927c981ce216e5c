"""The patch adversary: its gradients stay on their side, its weight is what the formula says, it begins when told."""

import pytest
import torch
from torch import Tensor, nn

from darkroom.autoencoder.adversary import (
    Adversary,
    AdversarySpec,
    PatchDiscriminator,
    PlateauSpec,
    adaptive_weight,
    carry,
    check_adversary,
)
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.core.errors import SpecError
from darkroom.core.spec import parse

SMALL = AdversarySpec(start=0, layers=2, channels=8)


def pictures(seed: int = 0, size: int = 16) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def adversary(spec: AdversarySpec = SMALL) -> Adversary:
    torch.manual_seed(1)
    return Adversary(spec, image_channels=3, steps=0)


def first_stage() -> Autoencoder:
    torch.manual_seed(2)
    return Autoencoder(
        AutoencoderSpec(channels=8, multipliers=(1, 1), blocks=1, norm_groups=4, latent_channels=2, stem="patch2")
    )


def touched(module: nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("layers", "size", "patches"), [(3, 256, 30), (2, 256, 62), (3, 64, 6), (3, 24, 1), (1, 6, 1)])
def test_it_answers_a_score_per_patch(layers: int, size: int, patches: int) -> None:
    spec = AdversarySpec(layers=layers, channels=8)
    scores = PatchDiscriminator(spec, image_channels=3)(pictures(size=size))
    assert scores.shape == (2, 1, patches, patches)


def test_the_original_size_is_that_of_the_original() -> None:
    """2.77 M parameters as in the original's three-layer patch discriminator of width 64 (norms have equally many)."""
    count = sum(each.numel() for each in PatchDiscriminator(AdversarySpec(), image_channels=3).parameters())
    assert count == 2_765_633


def test_pictures_too_small_are_refused_before_anything_begins() -> None:
    spec = AdversarySpec(layers=3)
    check_adversary(spec, size=24)
    check_adversary(None, size=1)
    with pytest.raises(SpecError, match=r"16 px are too small .* at least 24"):
        check_adversary(spec, size=16)


def test_one_picture_does_not_change_anothers_score() -> None:
    """No statistic crosses pictures (nor ranks), as batch norm's would."""
    judge = adversary().discriminator.train()
    both = judge(pictures())
    torch.testing.assert_close(both[:1], judge(pictures()[:1]))


def test_both_losses_are_hinges() -> None:
    judge = adversary()
    real, made = pictures(0), pictures(5)
    with torch.no_grad():
        nn.init.constant_(judge.discriminator.head.weight, 0.02)
        a, b = judge.discriminator(real).double(), judge.discriminator(made).double()
    fooled, judged = judge.scores(real, made)
    expected = ((1 - a).clamp(min=0).mean() + (1 + b).clamp(min=0).mean()) / 2
    assert float(judged.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float(fooled.detach()) == pytest.approx(float(-b.mean()), rel=1e-5)


def test_the_adaptive_weight_is_the_ratio_of_gradients_at_the_last_kernel() -> None:
    model = first_stage()
    made = model.reconstruct(pictures()).images
    reconstruction, adversarial = (made - pictures()).abs().mean(), made.square().mean()
    norms = [
        torch.autograd.grad(loss, model.last_layer, retain_graph=True)[0].norm()
        for loss in (reconstruction, adversarial)
    ]
    pull, push = (torch.autograd.grad(loss, made, retain_graph=True)[0] for loss in (reconstruction, adversarial))
    weight = adaptive_weight(pull, push, made=made, last_layer=model.last_layer)
    torch.testing.assert_close(weight, norms[0] / (norms[1] + 1e-4))
    assert not weight.requires_grad
    assert touched(model) == []
    assert float(adaptive_weight(pull * 1e9, push, made=made, last_layer=model.last_layer)) == 1e4


def test_a_carried_gradient_is_the_gradient() -> None:
    """The value stays, and what reaches the weights is what backward() through the loss itself would bring."""
    model = first_stage()
    made = model.reconstruct(pictures()).images
    loss = (made - pictures()).abs().mean()
    wanted = torch.autograd.grad(loss, model.last_layer, retain_graph=True)[0]
    (at_pictures,) = torch.autograd.grad(loss, made, retain_graph=True)
    carried = carry(loss, made, gradient=at_pictures)
    assert float(carried.detach()) == float(loss.detach())
    torch.testing.assert_close(torch.autograd.grad(carried, model.last_layer)[0], wanted)


def test_it_begins_at_a_step() -> None:
    judge = adversary(SMALL.model_copy(update={"start": 3}))
    assert [judge.watch(torch.tensor(1.0)) for _ in range(5)] == [False, False, False, True, True]


@pytest.mark.parametrize(("start", "begins"), [(0.5, 5), (0.04, 0), (3, 3), (1, 1)])
def test_a_start_below_one_is_a_share_of_the_steps(start: float, begins: int) -> None:
    spec = parse(AdversarySpec, {"start": start, "layers": 2, "channels": 8}, where="here")
    judge = Adversary(spec, image_channels=3, steps=10)
    assert [judge.watch(torch.tensor(1.0)) for _ in range(10)].index(True) == begins


@pytest.mark.parametrize("start", [-1, 1.5, 1.0, 0.0, True, "soon"])
def test_a_start_that_says_nothing_is_refused(start: object) -> None:
    with pytest.raises(SpecError, match="start"):
        parse(AdversarySpec, {"start": start}, where="here")


def test_it_begins_when_reconstruction_has_settled() -> None:
    spec = SMALL.model_copy(update={"start": PlateauSpec(window=4, gain=0.05)})
    falling = [1.0] * 4 + [0.8] * 4 + [0.5] * 4
    judge = adversary(spec)
    assert not any(judge.watch(torch.tensor(loss)) for loss in falling)
    assert not any(judge.watch(torch.tensor(0.49)) for _ in range(3))
    assert judge.watch(torch.tensor(0.49))
    assert judge.watch(torch.tensor(0.1))  # once begun it stays


def test_the_memory_of_the_plateau_is_part_of_the_state() -> None:
    spec = SMALL.model_copy(update={"start": PlateauSpec(window=4, gain=0.05)})
    losses = [1.0, 0.9, 0.8, 0.9, 0.88, 0.89, 0.87, 0.9]
    whole, first, second = adversary(spec), adversary(spec), adversary(spec)
    expected = [whole.watch(torch.tensor(loss)) for loss in losses]
    found = [first.watch(torch.tensor(loss)) for loss in losses[:3]]
    second.load_state_dict(first.state_dict())
    found += [second.watch(torch.tensor(loss)) for loss in losses[3:]]
    assert found == expected
    assert expected[-1]


def test_losses_that_are_not_finite_are_no_plateau() -> None:
    judge = adversary(SMALL.model_copy(update={"start": PlateauSpec(window=2)}))
    assert not any(judge.watch(torch.tensor(value)) for value in [float("nan"), float("inf")] * 4)
    assert bool(judge.window_sum.isfinite())


def test_a_loss_that_is_not_finite_at_a_windows_end_begins_nothing() -> None:
    judge = adversary(SMALL.model_copy(update={"start": PlateauSpec(window=4, gain=0.05)}))
    falling = [1.0] * 4 + [0.8] * 3 + [float("nan")] + [0.6] * 4 + [0.4] * 4 + [0.3] * 4
    assert not any(judge.watch(torch.tensor(loss)) for loss in falling)


@pytest.mark.parametrize("channels", [4, 12, 36, 44, 100])
def test_any_width_that_is_a_multiple_of_four_works(channels: int) -> None:
    scores = PatchDiscriminator(AdversarySpec(layers=2, channels=channels), image_channels=1)(torch.zeros(1, 1, 16, 16))
    assert scores.shape == (1, 1, 2, 2)

"""The straight way past encoder and decoder: a first stage that begins as resizing."""

import pytest
import torch
from torch import Tensor

from darkroom.autoencoder.bottleneck import VQSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, same_latents
from darkroom.autoencoder.shortcut import ShortcutIn
from darkroom.autoencoder.tiny import TinyDecoderSpec
from darkroom.core.errors import SpecError
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.core.spec import parse
from darkroom.data.sources import ShapesSource
from darkroom.metrics.pairs import bicubic_round_trip, psnr
from darkroom.train.first_stage import only_decoder


def made(**changes: object) -> Autoencoder:
    torch.manual_seed(0)
    plain = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "stem": "patch2", "norm_groups": 8}
    plain |= {"middle_attention": False, "latent_channels": 4, "shortcut": "linear", **changes}
    return Autoencoder(parse(AutoencoderSpec, plain, where="test")).eval()


@pytest.fixture(scope="module")
def scenes() -> Tensor:
    source = ShapesSource(seed=3, count=8)
    return from_bytes(torch.stack([to_bytes(source.example(row).picture, 3) for row in range(8)]))


@pytest.mark.parametrize(
    ("stem", "multipliers", "factor"), [("patch2", [1, 2], 4), ("conv", [1, 1], 2), ("patch4", [1, 1], 8)]
)
@torch.no_grad()
def test_before_a_step_it_resizes(scenes: Tensor, stem: str, multipliers: list[int], factor: int) -> None:
    model = made(stem=stem, multipliers=multipliers)
    assert model.spec.factor == factor
    found = model.reconstruct(scenes, noise=torch.randn(8, *model.latent_shape((64, 64))))
    plain = bicubic_round_trip(scenes, factor)
    assert float(psnr(scenes, found.images).mean()) > float(psnr(scenes, plain).mean()) - 2.5


@torch.no_grad()
def test_even_colours_come_through_as_they_are() -> None:
    colours = torch.tensor([-1.0, 0.25, 0.7]).reshape(1, 3, 1, 1).expand(2, 3, 32, 32)
    torch.testing.assert_close(made().reconstruct(colours).images, colours)
    mean, log_variance = made().moments(colours)
    torch.testing.assert_close(mean[0, :3, 0, 0], torch.tensor([-1.0, 0.25, 0.7]))
    assert log_variance is not None
    assert float(log_variance.max()) < -5


def test_channels_beyond_the_colours_see_what_is_finer() -> None:
    kernel = ShortcutIn(image_channels=3, latent_channels=6, factor=4).kernel.detach()
    flat = kernel.reshape(6, -1)
    overlap = torch.nn.functional.cosine_similarity(flat[:, None], flat[None], dim=-1) - torch.eye(6)
    assert float(kernel[3:].sum(dim=(1, 2, 3)).abs().max()) < 1e-5  # blind to even colours
    assert float(overlap.abs().max()) < 0.7  # no two see the same
    assert kernel.abs().sum(dim=(1, 2, 3)).tolist() == pytest.approx([1.0] * 6)


def test_every_part_of_it_learns(scenes: Tensor) -> None:
    model = made().train()
    found = model.reconstruct(scenes, noise=torch.randn(8, 4, 16, 16))
    ((found.images - scenes).abs().mean() + 1e-6 * found.regularizer.mean()).backward()
    for name in ("shortcut_in.kernel", "shortcut_out.mix.weight", "to_latent.weight", "decoder.head.weight"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert float(gradient.abs().max()) > 0, name


@torch.no_grad()
def test_a_codebook_quantises_what_comes_along_the_way(scenes: Tensor) -> None:
    model = made(bottleneck={"kind": "vq", "codes": 32})
    assert isinstance(model.spec.bottleneck, VQSpec)
    found = model.reconstruct(scenes)
    assert found.indices is not None
    assert found.images.shape == scenes.shape
    torch.testing.assert_close(model.decode(found.latents), found.images)


def test_it_belongs_to_the_latents_and_to_the_pictures() -> None:
    model, other = made(), made()
    assert same_latents(model, other)
    with torch.no_grad():
        other.shortcut_out.mix.weight.add_(1)  # another way back, the same latents
    assert same_latents(model, other)
    with torch.no_grad():
        other.shortcut_in.kernel.add_(1)
    assert not same_latents(model, other)
    trained = {name for name, _ in only_decoder(made(tiny=TinyDecoderSpec(channels=(8,), blocks=1))).named_parameters()}
    assert "shortcut_out.mix.weight" in trained
    assert not any("shortcut_in" in name for name in trained)


def test_specs_without_it_are_written_as_before() -> None:
    assert "shortcut" not in AutoencoderSpec().plain()
    assert made().spec.plain()["shortcut"] == "linear"
    assert parse(AutoencoderSpec, made().spec.plain(), where="test") == made().spec


@pytest.mark.parametrize("changes", [{"latent_channels": 2}, {"stem": "conv", "multipliers": [1]}])
def test_what_does_not_fit_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="a shortcut needs a factor of 2 or more"):
        made(**changes)

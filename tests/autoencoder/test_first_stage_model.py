"""First stages: factors, stems, channels, what goes through them and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from darkroom.autoencoder.bottleneck import KLSpec, PlainSpec, VQSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, Pixels, PixelsSpec, build_first_stage
from darkroom.core.errors import InputError

SMALL = {"channels": 8, "blocks": 1, "norm_groups": 4, "latent_channels": 3}
KINDS = {"kl": KLSpec(), "vq": VQSpec(codes=11), "plain": PlainSpec()}


def made(**options) -> Autoencoder:
    torch.manual_seed(0)
    spec = AutoencoderSpec(**{**SMALL, "multipliers": (1, 1), "middle_attention": False, **options})
    return Autoencoder(spec).eval()


def pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


@torch.no_grad()
@pytest.mark.parametrize(
    ("stem", "levels", "factor"),
    [
        *[("conv", levels, 2 ** (levels - 1)) for levels in range(1, 7)],
        *[("patch2", levels, 2**levels) for levels in range(1, 6)],
        *[("patch4", levels, 2 ** (levels + 1)) for levels in range(1, 5)],
    ],
)
def test_every_stem_and_factor(stem: str, levels: int, factor: int) -> None:
    model = made(stem=stem, multipliers=(1,) * levels)
    assert model.spec.factor == factor
    height, width = 32, 64
    mean, log_variance = model.moments(pictures(1, 3, height, width))
    assert mean.shape == log_variance.shape == (1, 3, height // factor, width // factor)
    assert model.latent_shape((height, width)) == tuple(mean.shape[1:])
    assert model.decode(mean).shape == (1, 3, height, width)


@torch.no_grad()
@pytest.mark.parametrize(("stem", "patch"), [("patch2", 2), ("patch4", 4)])
def test_the_decoder_undoes_the_rearranging_of_the_encoder(stem: str, patch: int) -> None:
    """What enters the encoder's first convolution, put out by the decoder's last, is the picture again."""
    model, images = made(stem=stem, multipliers=(1,)), pictures(2, 3, 8, 16)
    seen: list[Tensor] = []
    model.encoder.stem.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.decoder.head.register_forward_hook(lambda *_: seen[0])
    mean, _ = model.moments(images)
    assert torch.equal(seen[0], F.pixel_unshuffle(images, patch))
    assert torch.equal(model.decode(mean), images)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_colour_and_alpha(channels: int) -> None:
    model = made(image_channels=channels)
    mean, _ = model.moments(pictures(2, channels, 8, 8))
    assert mean.shape == (2, 3, 4, 4)
    assert model.decode(mean).shape == (2, channels, 8, 8)
    with pytest.raises(InputError, match=f"pictures with 2 channels came, this first stage takes {channels}"):
        model.moments(pictures(1, 2, 8, 8))


@pytest.mark.parametrize(
    ("size", "nearest"), [((30, 32), "32x32"), ((33, 50), "32x48"), ((3, 4), "16x16"), ((57, 1), "64x16")]
)
def test_a_size_that_does_not_fit_is_refused_with_the_nearest(size: tuple[int, int], nearest: str) -> None:
    model = made(multipliers=(1, 1, 1), stem="patch4")
    with pytest.raises(InputError, match=f"pictures of {size[0]}x{size[1]} do not fit: .* 16, .* fits is {nearest}"):
        model.moments(pictures(1, 3, *size))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_what_each_bottleneck_answers(kind: str) -> None:
    model = made(bottleneck=KINDS[kind])
    images = pictures(2, 3, 8, 8)
    mean, log_variance = model.moments(images)
    assert (log_variance is None) == (kind != "kl")
    again = model.reconstruct(images)
    assert again.regularizer.shape == (2,)
    assert (again.indices is None) == (kind != "vq")
    torch.testing.assert_close(again.images, model.decode(mean))
    if kind == "plain":
        assert not again.regularizer.any()
    if kind == "kl":
        noise = torch.ones_like(mean)
        drawn = model.reconstruct(images, noise=noise).images
        torch.testing.assert_close(drawn, model.decode(mean + (log_variance / 2).exp()))
        assert not torch.allclose(drawn, again.images, atol=1e-3)
    else:
        torch.testing.assert_close(model.reconstruct(images, noise=torch.ones_like(mean)).images, again.images)


@torch.no_grad()
def test_decode_quantises_and_decode_raw_does_not() -> None:
    model = made(bottleneck=VQSpec(codes=11))
    torch.nn.init.normal_(model.codebook.codes.weight)
    latents = torch.randn(2, 3, 4, 4)
    quantized, indices = model.quantize(latents)
    assert indices.shape == (2, 4, 4)
    torch.testing.assert_close(model.decode(latents), model.decode_raw(quantized))
    assert not torch.allclose(model.decode(latents), model.decode_raw(latents), atol=1e-3)
    again, same = model.quantize(quantized)
    torch.testing.assert_close(again, quantized)
    assert torch.equal(indices, same)


@torch.no_grad()
def test_without_a_codebook_nothing_is_quantised() -> None:
    model = made()
    latents = torch.randn(1, 3, 2, 2)
    assert torch.equal(model.decode(latents), model.decode_raw(latents))
    with pytest.raises(InputError, match="no codebook"):
        model.quantize(latents)


@torch.no_grad()
def test_a_picture_alone_is_as_in_company() -> None:
    model, images = made(middle_attention=True), pictures(3, 3, 8, 8)
    together, alone = model.moments(images)[0], model.moments(images[1:2])[0]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_attention_stands_at_the_factors_named() -> None:
    model = made(attention=(4,), multipliers=(1, 1, 1), stem="patch2", middle_attention=True)
    assert [len(level.attentions) for level in model.encoder.levels] == [0, 1, 0]
    assert [len(level.attentions) for level in model.decoder.levels] == [0, 2, 0]
    assert model.encoder.middle.attention is not None
    assert made().encoder.middle.attention is None


def test_the_decoder_has_one_block_more_and_codes_their_own_width() -> None:
    model = made(blocks=2, code_channels=5)
    assert {len(level.blocks) for level in model.encoder.levels} == {2}
    assert {len(level.blocks) for level in model.decoder.levels} == {3}
    assert (model.to_latent.in_channels, model.to_latent.out_channels) == (10, 6)
    assert (model.from_latent.in_channels, model.from_latent.out_channels) == (3, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm_groups": 3}, "norm_groups 3 does not divide the width 8"),
        ({"multipliers": ()}, "at least 1 item"),
        ({"multipliers": (1, 0)}, "greater than 0"),
        ({"multipliers": (1, -2)}, "greater than 0"),
        ({"stem": "patch3"}, "'patch2'"),
        ({"code_channels": 0}, "greater than 0"),
        ({"kanals": 3}, "Extra inputs"),
    ],
)
def test_specs_that_cannot_be_built_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AutoencoderSpec(**{**SMALL, **options})


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_their_own_latents(channels: int) -> None:
    model = build_first_stage(PixelsSpec(image_channels=channels))
    images = pictures(2, channels, 5, 7)
    assert isinstance(model, Pixels)
    assert torch.equal(model.moments(images)[0], images)
    assert model.moments(images)[1] is None
    assert torch.equal(model.decode(images), images)
    assert model.latent_shape((5, 7)) == (channels, 5, 7)
    assert (model.spec.factor, model.spec.latent_channels) == (1, channels)
    assert not list(model.parameters())
    with pytest.raises(InputError, match="2 channels came"):
        model.moments(pictures(1, 2, 4, 4))


def test_squares_of_pixels_are_channels() -> None:
    model = build_first_stage(PixelsSpec(patch=4))
    images = pictures(2, 3, 8, 12)
    latents, spread = model.moments(images)
    assert spread is None
    assert latents.shape == (2, *model.latent_shape((8, 12))) == (2, 48, 2, 3)
    assert (model.spec.factor, model.spec.latent_channels) == (4, 48)
    assert torch.equal(latents[0, :, 0, 0].reshape(3, 4, 4), images[0, :, :4, :4])
    assert torch.equal(model.decode(latents), images)
    with pytest.raises(InputError, match="sides must be multiples of 4, the nearest that fits is 8x12"):
        model.moments(pictures(1, 3, 9, 12))

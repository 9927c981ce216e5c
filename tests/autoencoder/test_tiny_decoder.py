"""Tiny decoders: every factor and stem, what they are given, what stays as it was without them."""

import math

import pytest
import torch
from pydantic import ValidationError

from darkroom.autoencoder.bottleneck import KLSpec, PlainSpec, VQSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, same_latents, without_decoder
from darkroom.autoencoder.statistics import LatentStatistics, LatentSums
from darkroom.autoencoder.tiny import PlainBlock, TinyDecoderSpec, standardise
from darkroom.core.errors import SpecError
from darkroom.core.spec import parse

SMALL = {"channels": 8, "blocks": 1, "norm_groups": 4, "latent_channels": 3, "middle_attention": False}


def spec_of(*, shuffle: int = 1, **options) -> AutoencoderSpec:
    tiny = TinyDecoderSpec(channels=(6,), blocks=1, shuffle=shuffle)
    return AutoencoderSpec(**{**SMALL, "multipliers": (1, 1), "tiny": tiny, **options})


def made(**options) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(spec_of(**options)).eval()


@torch.no_grad()
@pytest.mark.parametrize("shuffle", [0, 1, 2, 4])
@pytest.mark.parametrize(
    ("stem", "levels"),
    [("conv", 1), ("conv", 2), ("conv", 6), ("patch2", 1), ("patch2", 5), ("patch4", 1), ("patch4", 4)],
)
def test_every_stem_and_factor(stem: str, levels: int, shuffle: int) -> None:
    model = made(stem=stem, multipliers=(1,) * levels, shuffle=shuffle)
    factor, latents = model.spec.factor, torch.randn(2, 3, 2, 1)
    assert model.decode(latents).shape == (2, 3, 2 * factor, factor)
    assert model.latent_shape((2 * factor, factor)) == (3, 2, 1)
    doublings = int(math.log2(factor))
    assert len(model.decoder.levels) == 1 + max(0, doublings - shuffle)
    assert model.decoder.patch == 2 ** min(shuffle, doublings)


def test_levels_may_differ() -> None:
    spec = parse(TinyDecoderSpec, {"channels": [8, 6], "blocks": 1, "shuffle": 0}, where="tiny")
    assert spec.levels(1) == [(6, 1)]
    assert spec.levels(4) == [(8, 1), (8, 1), (8, 1), (6, 1)]
    even = parse(TinyDecoderSpec, {"channels": 5, "blocks": [4, 2, 1]}, where="tiny")
    assert even.levels(2) == [(5, 2), (5, 1)]
    assert even.levels(4) == [(5, 4), (5, 4), (5, 2), (5, 1)]
    assert (even.plain()["channels"], spec.plain()["channels"]) == (5, [8, 6])
    with pytest.raises(SpecError, match=r"'channels\.1': input should be greater than 0"):
        parse(TinyDecoderSpec, {"channels": [8, 0]}, where="tiny")
    torch.manual_seed(0)
    model = Autoencoder(spec_of(multipliers=(1, 1, 1)).model_copy(update={"tiny": spec}))
    assert [level[-1].conv1.out_channels for level in model.decoder.levels] == [8, 8, 6]
    assert model.decode(torch.randn(1, 3, 2, 3)).shape == (1, 3, 8, 12)
    assert parse(TinyDecoderSpec, spec.plain(), where="again") == spec


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bottleneck", [KLSpec(), VQSpec(codes=11), PlainSpec()])
def test_grey_colour_alpha_and_every_bottleneck(channels: int, bottleneck: KLSpec | VQSpec | PlainSpec) -> None:
    model = made(image_channels=channels, bottleneck=bottleneck, code_channels=5)
    images = torch.rand(2, channels, 8, 8) * 2 - 1
    again = model.reconstruct(images)
    assert again.images.shape == images.shape
    torch.testing.assert_close(again.images, model.decode(model.moments(images)[0]))
    if model.codebook is not None:
        torch.nn.init.normal_(model.codebook.codes.weight)
        latents = torch.randn(2, 3, 4, 4)
        torch.testing.assert_close(model.decode(latents), model.decode_raw(model.quantize(latents)[0]))
        assert not torch.allclose(model.decode(latents), model.decode_raw(latents), atol=1e-3)


def test_all_of_it_learns_and_the_last_layer_is_its_head() -> None:
    model = made()
    model.decode(torch.randn(2, 3, 4, 4)).mean().backward()
    decoding = [*model.decoder.parameters(), *model.from_latent.parameters()]
    assert all(each.grad is not None for each in decoding)
    assert model.last_layer is model.decoder.head.weight


def test_no_unit_can_die_and_blocks_begin_silent() -> None:
    """A rectifier that is shut for every latent would never open again; ours leaks."""
    block, x = PlainBlock(6), torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(block(x), x)
    torch.nn.init.normal_(block.conv2.weight)
    torch.nn.init.constant_(block.conv1.bias, -100.0)
    block(x).pow(2).sum().backward()
    assert bool((block.conv1.weight.grad.flatten(1).abs().amax(1) > 0).all())


@torch.no_grad()
def test_latents_far_out_stay_near() -> None:
    """A thousand standard deviations answer as a hundred do."""
    model, latents = made(), torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(model.decode(1e3 * latents), model.decode(1e5 * latents), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_it_begins_with_standardised_latents() -> None:
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(50, 3, 8, 8, generator=draw) * torch.tensor([5.0, 0.1, 1.0]).view(3, 1, 1) + 7
    sums = LatentSums()
    sums.add(latents, None)
    model = made()
    standardise(model.from_latent, sums.statistics())
    found = model.from_latent(latents)
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    still = LatentStatistics(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 0.0), whole=0.8, pictures=1)
    standardise(model.from_latent, still)
    assert bool(model.from_latent.weight.isfinite().all())


def test_a_spec_without_one_is_written_as_before() -> None:
    plain, tiny = spec_of(tiny=None), spec_of()
    assert "tiny" not in plain.plain()
    assert tiny.plain()["tiny"] == {"channels": 6, "blocks": 1, "shuffle": 1}
    for spec in (plain, tiny):
        assert parse(AutoencoderSpec, spec.plain(), where="here") == spec


def test_equal_encoders_are_told_from_others() -> None:
    full, other = Autoencoder(spec_of(tiny=None)), made()
    assert not same_latents(full, other)
    other.load_state_dict(without_decoder(full.state_dict()), strict=False)
    assert same_latents(full, other)
    for dtype in (torch.bfloat16, torch.float16):
        assert same_latents(full, made().to(dtype)) is False
        rounded = made()
        rounded.load_state_dict({**rounded.state_dict(), **without_decoder(full.to(dtype).state_dict())})
        assert same_latents(other, rounded)
        full.load_state_dict({**full.state_dict(), **without_decoder(other.state_dict())})
        full.float()
    with torch.no_grad():
        other.to_latent.bias[0] += 0.05
    assert not same_latents(full, other)
    assert not same_latents(full, made(multipliers=(1, 1, 1)))


@torch.no_grad()
def test_another_codebook_is_another_first_stage() -> None:
    one, other = made(bottleneck=VQSpec(codes=11)), made(bottleneck=VQSpec(codes=11))
    assert same_latents(one, other)
    torch.nn.init.normal_(other.codebook.codes.weight)
    assert not same_latents(one, other)


@pytest.mark.parametrize("options", [{"channels": 0}, {"blocks": 0}, {"shuffle": -1}, {"width": 3}])
def test_specs_that_cannot_be_built_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        TinyDecoderSpec(**options)

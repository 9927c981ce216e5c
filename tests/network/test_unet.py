"""The U-Net: every option, the three ports, and what it refuses."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError
from darkroom.network.unet import UNet, UNetSpec
from darkroom.nn.attention import SelfAttention2d
from darkroom.nn.resample import Downsample
from darkroom.nn.residual import ResidualBlock
from darkroom.nn.transformer import SpatialTransformer

BASE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "channels": 16,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": (1,),
    "norm_groups": 4,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no-attention": {"attention": ()},
    "one-level": {"multipliers": (1,)},
    "three-levels": {"multipliers": (1, 3, 2), "attention": (2, 4)},
    "first-multiplier": {"multipliers": (2, 1)},
    "two-blocks": {"blocks": 2},
    "heads": {"heads": 4},
    "head-channels": {"head_channels": 8},
    "pool": {"resample": "pool"},
    "residual": {"resample": "residual"},
    "scale-shift": {"scale_shift": True},
    "everything-residual": {"resample": "residual", "scale_shift": True, "head_channels": 4, "blocks": 2},
    "transformer": {"transformer_depth": 1, "heads": 2},
    "deep-transformer": {"transformer_depth": 2, "heads": 2, "context_width": 5},
    "context": {"transformer_depth": 1, "context_width": 5, "head_channels": 8},
    "planes": {"in_channels": 5},
    "vector": {},
    "all-ports": {"in_channels": 5, "transformer_depth": 1, "context_width": 5, "resample": "pool"},
    "more-out": {"out_channels": 6},
    "continuous": {"time_scale": 1000.0},
}


def made(*, fresh: bool = False, **options: Any) -> UNet:
    """A small network; unless fresh, what starts at zero is drawn, so that everything has an effect."""
    torch.manual_seed(0)
    network = UNet(UNetSpec(**{**BASE, **options}))
    if not fresh:
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.2)
    return network


def given(network: UNet, *, vector: bool = False, size: tuple[int, int] = (4, 8)) -> tuple[Tensor, Tensor, Conditions]:
    """Inputs for three samples with the ports that the spec asks for."""
    spec = network.spec
    draw = torch.Generator().manual_seed(1)
    tokens = None if spec.context_width is None else torch.randn(3, 4, spec.context_width, generator=draw)
    planes = torch.randn(3, 2, *size, generator=draw) if spec.in_channels == 5 else None
    embedded = torch.randn(3, spec.embedding_width, generator=draw) if vector else None
    x = torch.randn(3, 3, *size, generator=draw)
    t = torch.tensor([0.0, 0.3, 1.0]) if spec.time_scale != 1 else torch.tensor([0, 20, 999])
    return x, t, Conditions(tokens, embedded, planes)


@pytest.mark.parametrize("name", OPTIONS)
def test_shapes_and_a_gradient_for_every_parameter(name: str) -> None:
    network = made(**OPTIONS[name])
    size = (4, 8)
    x, t, conditions = given(network, vector=name in ("vector", "all-ports"), size=size)
    x.requires_grad_()
    ports = [p.requires_grad_() for p in (conditions.tokens, conditions.vector, conditions.planes) if p is not None]
    output = network(x, t, conditions)
    assert output.shape == (3, network.spec.out_channels, *size)
    (output * torch.randn(output.shape)).sum().backward()
    without = [
        key
        for key, parameter in network.named_parameters()
        if (parameter.grad is None or not parameter.grad.any()) and not key.endswith("key.bias")
    ]
    assert without == []  # a bias of the keys moves no softmax
    assert all(each.grad is not None and each.grad.any() for each in (x, *ports))


@torch.no_grad()
@pytest.mark.parametrize("name", OPTIONS)
def test_it_starts_at_zero(name: str) -> None:
    network = made(fresh=True, **OPTIONS[name])
    output = network(*given(network))
    assert output.shape[1] == network.spec.out_channels
    assert not output.any()


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain", "transformer", "context"])
def test_attention_and_residual_blocks_start_as_their_skips(name: str) -> None:
    network = made(fresh=True, **OPTIONS[name])
    attentions = [each for each in network.modules() if isinstance(each, (SelfAttention2d, SpatialTransformer))]
    assert len(attentions) == 4  # down, middle, two on the way up
    tokens = given(network)[2].tokens
    for each in attentions:
        x = torch.randn(3, each.norm.num_channels, 2, 4)
        assert torch.equal(each(x) if isinstance(each, SelfAttention2d) else each(x, tokens), x)
    blocks = [each for each in network.modules() if isinstance(each, ResidualBlock)]
    assert all(not block.conv2.weight.any() and not block.conv2.bias.any() for block in blocks)


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain", "everything-residual", "all-ports", "deep-transformer"])
def test_a_batch_is_its_samples(name: str) -> None:
    network = made(**OPTIONS[name])
    x, t, conditions = given(network, vector=name == "all-ports")
    together = network(x, t, conditions)
    assert together.std() > 0.01
    for place in range(3):
        one = slice(place, place + 1)
        alone = network(x[one], t[one], conditions.map(lambda port, one=one: port[one]))
        torch.testing.assert_close(alone, together[one], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_each_port_and_the_time_have_an_effect() -> None:
    network = made(**OPTIONS["all-ports"])
    x, t, conditions = given(network, vector=True)
    output = network(x, t, conditions)
    ports = {"tokens": conditions.tokens, "vector": conditions.vector, "planes": conditions.planes}
    for name, port in ports.items():
        changed = network(x, t, Conditions(**{**ports, name: port.flip(0)}))
        assert not torch.allclose(changed, output, atol=1e-3), name
    assert not torch.allclose(network(x, t.flip(0), conditions), output, atol=1e-3)
    without = network(x, t, Conditions(tokens=conditions.tokens, planes=conditions.planes))
    zeros = Conditions(conditions.tokens, torch.zeros_like(conditions.vector), conditions.planes)
    assert torch.equal(network(x, t, zeros), without)


@torch.no_grad()
def test_a_continuous_time_is_scaled() -> None:
    discrete, continuous = made(), made(time_scale=1000.0)
    continuous.load_state_dict(discrete.state_dict())
    x = given(discrete)[0]
    torch.testing.assert_close(
        continuous(x, torch.tensor([0.5, 0.25, 0.125])), discrete(x, torch.tensor([500, 250, 125]))
    )


@pytest.mark.parametrize("name", ["plain", "all-ports", "everything-residual"])
def test_recomputing_changes_no_number(name: str) -> None:
    plain, again = made(**OPTIONS[name]), made(recompute=True, **OPTIONS[name])
    again.load_state_dict(plain.state_dict())
    x, t, conditions = given(plain)
    losses = [network(x, t, conditions).square().sum() for network in (plain, again)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("size", [(4, 12), (8, 4), (16, 8)])
def test_sizes_need_not_be_square(size: tuple[int, int]) -> None:
    network = made(**OPTIONS["three-levels"])
    assert network(*given(network, size=size)).shape == (3, 3, *size)


@pytest.mark.parametrize(("size", "nearest"), [((6, 8), "8x8"), ((4, 9), "4x8"), ((1, 3), "4x4"), ((11, 5), "12x4")])
def test_a_size_that_does_not_fit_is_refused_with_the_nearest(size: tuple[int, int], nearest: str) -> None:
    network = made(**OPTIONS["three-levels"])
    assert network.spec.size_multiple == 4
    with pytest.raises(InputError, match=f"latent size {size[0]}x{size[1]} .* multiples of 4, .* fits is {nearest}"):
        network(torch.zeros(1, 3, *size), torch.tensor([0]))


@pytest.mark.parametrize(
    ("name", "conditions", "message"),
    [
        ("plain", Conditions(tokens=torch.zeros(1, 2, 5)), "tokens of width None, width 5 came"),
        ("transformer", Conditions(tokens=torch.zeros(1, 2, 5)), "tokens of width None, width 5 came"),
        ("context", Conditions(), "tokens of width 5, width None came"),
        ("context", Conditions(tokens=torch.zeros(1, 2, 6)), "tokens of width 5, width 6 came"),
        ("plain", Conditions(planes=torch.zeros(1, 2, 4, 4)), "takes 3 channels, 3 latent and 2 plane channels"),
        ("planes", Conditions(), "takes 5 channels, 3 latent and 0 plane channels"),
        ("planes", Conditions(planes=torch.zeros(1, 3, 4, 4)), "3 latent and 3 plane channels"),
        ("planes", Conditions(planes=torch.zeros(1, 2, 8, 8)), "planes must have the latent's size 4 x 4, 8 x 8 came"),
        ("plain", Conditions(vector=torch.zeros(1, 16)), "a vector of width 64, width 16 came"),
        ("plain", Conditions(vector=torch.zeros(1, 1)), "a vector of width 64, width 1 came"),
        ("plain", Conditions(vector=torch.zeros(2, 64)), "vector of 2 samples came beside latents of 1"),
        ("context", Conditions(tokens=torch.zeros(3, 2, 5)), "tokens of 3 samples came beside latents of 1"),
        ("planes", Conditions(planes=torch.zeros(2, 2, 4, 4)), "planes of 2 samples came beside latents of 1"),
    ],
)
def test_ports_that_do_not_fit_are_refused(name: str, conditions: Conditions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(**OPTIONS[name])(torch.zeros(1, 3, 4, 4), torch.tensor([0]), conditions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 2, "head_channels": 8}, "exclude each other"),
        ({"context_width": 5}, "context_width needs transformer_depth"),
        ({"norm_groups": 5}, "norm_groups 5 does not divide the width 16"),
        ({"heads": 3}, "heads do not divide the width 16"),
        ({"heads": 0}, "greater than 0"),
        ({"head_channels": 12}, "heads do not divide the width 16"),
        ({"head_channels": 64}, "heads do not divide the width 16"),
        ({"head_channels": 0}, "greater than 0"),
        ({"multipliers": ()}, "at least 1 item"),
        ({"multipliers": (1, 0)}, "greater than 0"),
        ({"multipliers": (-1, 2)}, "greater than 0"),
        ({"resample": "bicubic"}, "'conv', 'pool' or 'residual'"),
        ({"dropout": 1.0}, "less than 1"),
        ({"width": 3}, "Extra inputs"),
        ({"places": "waves"}, "places needs transformer_depth"),
        ({"places": "wave"}, "'none' or 'waves'"),
    ],
)
def test_specs_that_cannot_be_built_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UNetSpec(**{**BASE, **options})


@pytest.mark.parametrize(
    ("options", "expected"), [({}, (1, 1)), ({"heads": 4}, (4, 4)), ({"head_channels": 8}, (2, 4))]
)
def test_the_rule_of_heads(options: dict[str, int], expected: tuple[int, int]) -> None:
    spec = UNetSpec(**BASE, **options)
    assert (spec.heads_at(16), spec.heads_at(32)) == expected
    levels = made(attention=(1, 2), **options).down
    assert tuple(level.blocks[0].attention.attention.heads for level in levels) == expected


def test_attention_stands_at_the_factors_named_and_in_the_middle() -> None:
    network = made(multipliers=(1, 1, 1), attention=(2,), blocks=2)
    assert [[b.attention is not None for b in level.blocks] for level in network.down] == [
        [False] * 2,
        [True] * 2,
        [False] * 2,
    ]
    assert [[b.attention is not None for b in level.blocks] for level in network.up] == [
        [False] * 3,
        [True] * 3,
        [False] * 3,
    ]
    assert network.middle.first.attention is not None


def test_pooling_has_no_weights() -> None:
    assert [type(level.resample) for level in made(resample="pool").down] == [nn.AvgPool2d, type(None)]
    assert isinstance(made().down[0].resample, Downsample)
    assert isinstance(made(resample="residual").up[0].resample, ResidualBlock)

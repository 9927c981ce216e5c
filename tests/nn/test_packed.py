"""Packed layers: the answers of the layers they were, the same parameters, the same gradients."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from darkroom.core.compute import Compute
from darkroom.core.conditions import Conditions
from darkroom.network.unet import UNet, UNetSpec
from darkroom.nn.attention import Attention
from darkroom.nn.packed import (
    PackedAttention,
    PackedConv2d,
    PackedFeedForward,
    PackedLinear,
    PackedUpsample,
    _product,
    pack,
)
from darkroom.nn.resample import Upsample
from darkroom.nn.transformer import GatedFeedForward

CPU = torch.device("cpu")
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.bfloat16: {"rtol": 2**-6, "atol": 4e-3}}
LAYERS = {
    "conv": lambda: nn.Conv2d(6, 10, 3, padding=1),
    "stride": lambda: nn.Conv2d(6, 10, 3, stride=2),
    "pointwise": lambda: nn.Conv2d(6, 10, 1, bias=False),
    "groups": lambda: nn.Conv2d(6, 12, 3, padding=2, dilation=2, groups=3),
}


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def images(*shape: int) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))
    return made.to(memory_format=torch.channels_last) if len(shape) == 4 else made


def pair(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The layer in a module, as it is and packed."""
    holder = nn.Sequential(layer).requires_grad_()
    return holder, pack(copy.deepcopy(holder))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
@torch.no_grad()
def test_convolutions_answer_the_same(kind: str, dtype: torch.dtype) -> None:
    plain, packed = pair(LAYERS[kind]())
    assert type(packed[0]) is PackedConv2d
    for size in ((2, 6, 16, 16), (1, 6, 9, 5)):
        x = images(*size)
        with Compute(CPU, dtype).autocast():
            torch.testing.assert_close(packed(x), plain(x), rtol=1e-5, atol=1e-5)
            assert packed(x).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_linear_layers_answer_the_same(bias: bool, dtype: torch.dtype) -> None:
    plain, packed = pair(nn.Linear(7, 5, bias=bias))
    assert type(packed[0]) is PackedLinear
    for shape in ((7,), (3, 7), (2, 3, 7), (1, 2, 3, 7)):
        x = images(*shape)
        with Compute(CPU, dtype).autocast():
            torch.testing.assert_close(packed(x), plain(x), **CLOSE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("context_width", [None, 5])
@torch.no_grad()
def test_attention_answers_the_same(context_width: int | None, dtype: torch.dtype) -> None:
    plain, packed = pair(Attention(8, heads=2, head_width=4, context_width=context_width))
    assert type(packed[0]) is PackedAttention
    x, context = images(2, 6, 8), None if context_width is None else images(2, 3, 5)
    compute = Compute(CPU, dtype)

    def same() -> None:
        with compute.autocast():
            torch.testing.assert_close(packed[0](x, context), plain[0](x, context), **CLOSE[dtype])

    same()
    same()
    if context is not None:
        context.mul_(-1)  # the same tensor, with other values
        same()
        context = context + 1
        same()
    for module in (plain, packed):
        module[0].value.weight.mul_(2)
    same()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_gated_feed_forwards_answer_the_same(dtype: torch.dtype) -> None:
    plain, packed = pair(GatedFeedForward(6))
    assert type(packed[0]) is PackedFeedForward
    x = images(2, 5, 6)

    def same() -> None:
        with Compute(CPU, dtype).autocast():
            torch.testing.assert_close(packed(x), plain(x), rtol=CLOSE[dtype]["rtol"], atol=4 * CLOSE[dtype]["atol"])
            assert packed(x).dtype == dtype

    same()
    for module in (plain, packed):
        module[0].expand.weight.mul_(-2)
    same()
    packed = copy.deepcopy(packed)
    same()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_doubling_and_its_convolution_answer_the_same(dtype: torch.dtype) -> None:
    plain, packed = pair(Upsample(6, out=10))
    assert type(packed[0]) is PackedUpsample
    for size in ((2, 6, 8, 8), (1, 6, 5, 3), (1, 6, 1, 1)):
        x = images(*size)
        with Compute(CPU, dtype).autocast():
            torch.testing.assert_close(packed(x), plain(x), **CLOSE[dtype])
            assert packed(x).dtype == dtype


def test_gradients_of_doubling_are_those_of_the_layer() -> None:
    plain, packed = pair(Upsample(6))
    for module in (plain, packed):
        module(images(2, 6, 4, 4)).square().sum().backward()
    assert torch.equal(plain[0].conv.weight.grad, packed[0].conv.weight.grad)


@torch.no_grad()
def test_what_is_attended_to_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, packed = pair(Attention(8, heads=2, head_width=4, context_width=5))
    asked: list[int] = []
    monkeypatch.setattr(
        "darkroom.nn.packed._product",
        lambda holder, layers, x: (asked.append(len(layers)), _product(holder, layers, x))[1],
    )
    context = images(2, 3, 5)
    for _ in range(3):
        packed[0](images(2, 6, 8), context)
    assert asked.count(2) == 1


def test_gradients_of_attention_are_those_of_the_layer() -> None:
    plain, packed = pair(Attention(8, heads=2, head_width=4))
    for module in (plain, packed):
        module(images(2, 6, 8)).square().sum().backward()
    for name, each in plain.named_parameters():
        assert torch.equal(each.grad, packed.get_parameter(name).grad)


def test_gradients_are_those_of_the_layer() -> None:
    plain, packed = pair(nn.Conv2d(6, 10, 3, padding=1))
    with torch.no_grad():
        packed(images(2, 6, 8, 8))
    for module in (plain, packed):
        module(images(2, 6, 8, 8)).square().sum().backward()
    assert torch.equal(plain[0].weight.grad, packed[0].weight.grad)


@torch.no_grad()
def test_weights_that_change_are_followed() -> None:
    plain, packed = pair(nn.Conv2d(6, 10, 3, padding=1))
    x = images(2, 6, 8, 8)
    packed(x)
    for module in (plain, packed):
        module[0].weight.mul_(2)
    torch.testing.assert_close(packed(x), plain(x))
    moved = {name: value + 1 for name, value in plain.state_dict().items()}
    for module in (plain, packed):
        module.load_state_dict(moved)
    torch.testing.assert_close(packed(x), plain(x))
    for module in (plain, packed):
        module[0].weight = nn.Parameter(torch.ones_like(plain[0].weight))
    torch.testing.assert_close(packed(x), plain(x))


@torch.no_grad()
def test_copies_and_pickles_carry_the_parameters_alone() -> None:
    plain, packed = pair(nn.Linear(7, 5))
    x = images(3, 7)
    packed(x)
    assert packed.state_dict().keys() == plain.state_dict().keys()
    for again in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert "_kept" not in again[0].__dict__
        torch.testing.assert_close(again(x), plain(x))


@torch.no_grad()
def test_types_without_kernels_are_left_to_torch() -> None:
    _, packed = pair(nn.Conv2d(6, 10, 3, padding=1))
    packed.double()
    assert packed(images(2, 6, 8, 8).double()).dtype == torch.float64
    assert "_kept" not in packed[0].__dict__


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_a_whole_network_answers_the_same(dtype: torch.dtype) -> None:
    spec = UNetSpec(
        in_channels=4,
        out_channels=4,
        channels=32,
        multipliers=(1, 2),
        blocks=1,
        attention=(1, 2),
        heads=2,
        transformer_depth=1,
        context_width=12,
        norm_groups=8,
    )
    plain = UNet(spec).eval().to(memory_format=torch.channels_last)
    for each in plain.parameters():
        each.add_(0.05 * torch.randn(each.shape, generator=torch.Generator().manual_seed(each.numel())))
    packed = pack(copy.deepcopy(plain))
    x, t, conditions = images(2, 4, 8, 8), torch.tensor([3, 700]), Conditions(tokens=images(2, 5, 12))
    exact = plain(x, t, conditions)
    with Compute(CPU, dtype).autocast():
        there, here = (network(x, t, conditions).float() - exact for network in (plain, packed))
    assert here.norm() <= 1e-5 * exact.norm() + 1.1 * there.norm()
    assert here.norm() <= 0.02 * exact.norm()


def test_weights_made_for_inference_are_packed_too() -> None:
    with torch.inference_mode():
        plain, packed = pair(nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 4, 1)))
        x = images(2, 6, 8, 8)
        torch.testing.assert_close(packed(x), plain(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_numbers_do_not_depend_on_what_was_asked_first() -> None:
    """Else a server would draw other pictures after other requests."""

    def drawn(*sizes: tuple[int, ...]) -> Tensor:
        torch.manual_seed(0)
        network = pack(nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), Upsample(64), nn.Conv2d(64, 32, 1)))
        return [network(images(*size)) for size in sizes][-1]

    alone = drawn((2, 32, 16, 16))
    for before in ((1, 32, 8, 8), (8, 32, 16, 16), (1, 32, 64, 64)):
        assert torch.equal(drawn(before, (2, 32, 16, 16)), alone)

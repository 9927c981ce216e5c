"""Several conditions at once: order, dropping before fusing, nulls of some of them."""

import itertools

import pytest
import torch
from torch import Tensor

from darkroom.conditioning.conditioner import ConditionerSpec, Conditioning, extent
from darkroom.conditioning.embedding import EmbeddingSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec, LayoutTokensSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec
from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError

ENCODER = SequenceEncoderSpec(vocabulary=12, length=5, width=8, depth=1, heads=2, head_width=4)
SPECS: dict[str, ConditionerSpec] = {
    "caption": TextSpec(encoder=ENCODER),
    "label": ClassSpec(classes=3, width=8, null=3),
    "vector": ClassSpec(classes=3, width=16, null=3, port="vector"),
    "objects": LayoutSpec(encoder=ENCODER, empty=11, drop=0.1),
    "embedding": EmbeddingSpec(width=8, length=2),
    "map": MapSpec(classes=4, channels=2, halvings=1, drop=0.1),
    "low_res": LowResSpec(channels=3),
    "masked": MaskedSpec(channels=5),
}
INPUTS: dict[str, Tensor] = {
    "caption": torch.tensor([[2, 5, 3, 0, 0], [2, 7, 8, 3, 0]]),
    "label": torch.tensor([0, 2]),
    "vector": torch.tensor([0, 2]),
    "objects": torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 11]]),
    "embedding": torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(0)),
    "map": torch.rand(2, 4, 6, 8, generator=torch.Generator().manual_seed(0)),
    "low_res": torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(0)),
    "masked": torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)),
}
TOKENS = ("caption", "label", "objects", "embedding")
PLANES = ("map", "low_res", "masked")


def made(*names: str) -> Conditioning:
    torch.manual_seed(0)
    conditioning = Conditioning([SPECS[name] for name in names]).eval()
    if "caption" in names:
        conditioning["caption"].set_empty([2, 3, 0, 0, 0])
    return conditioning


def given(*names: str) -> dict[str, Tensor]:
    """The inputs by field (the vector port reads labels, too)."""
    return {SPECS[name].field: INPUTS[name] for name in names}


@torch.no_grad()
@pytest.mark.parametrize("pair", list(itertools.permutations(TOKENS, 2)))
def test_tokens_are_joined_in_the_order_of_the_specs(pair: tuple[str, str]) -> None:
    conditioning = made(*pair)
    conditions = conditioning(given(*reversed(pair)))  # the order of the inputs does not matter
    parts = [conditioning[name](INPUTS[name]) for name in pair]
    assert torch.equal(conditions.tokens, torch.cat(parts, dim=1))
    assert conditioning.fields == pair
    assert [part.shape[1] for part in parts] == [extent(SPECS[name]) for name in pair]


@torch.no_grad()
@pytest.mark.parametrize("pair", list(itertools.permutations(PLANES, 2)))
def test_planes_are_joined_along_channels(pair: tuple[str, str]) -> None:
    conditioning = made(*pair)
    conditions = conditioning(given(*pair))
    assert torch.equal(conditions.planes, torch.cat([conditioning[name](INPUTS[name]) for name in pair], dim=1))
    assert conditions.planes.shape[1] == sum(extent(SPECS[name]) for name in pair)
    assert conditions.tokens is None


@torch.no_grad()
@pytest.mark.parametrize(("kept", "gone"), [*itertools.permutations(TOKENS, 2), *itertools.permutations(PLANES, 2)])
def test_a_null_of_one_keeps_the_other_bit_for_bit(kept: str, gone: str) -> None:
    for names in ((kept, gone), (gone, kept)):
        conditioning = made(*names)
        conditions = conditioning(given(*names))
        null = conditioning.null(conditions, drop=[gone])
        port, name = (conditions.tokens, "tokens") if kept in TOKENS else (conditions.planes, "planes")
        found, size = getattr(null, name), extent(SPECS[names[0]])
        mine, other = (slice(0, size), slice(size, None)) if names[0] == kept else (slice(size, None), slice(0, size))
        assert torch.equal(found[:, mine], port[:, mine])
        assert not torch.equal(found[:, other], port[:, other])
        assert torch.equal(found[:, other], conditioning[gone].null(port[:, other]))


@torch.no_grad()
@pytest.mark.parametrize("names", [("caption", "label"), ("label", "caption"), ("objects", "caption")])
def test_a_shorter_caption_is_found_again(names: tuple[str, str]) -> None:
    """Captions may be shorter than their longest; what was joined is still told apart."""
    conditioning = made(*names)
    inputs = {**given(*names), "caption": INPUTS["caption"][:, :3]}
    conditions = conditioning(inputs)
    other = next(name for name in names if name != "caption")
    null = conditioning.null(conditions, drop=["caption"])
    again = conditioning({**inputs, "caption": torch.tensor([[2, 3, 0]] * 2)})
    torch.testing.assert_close(null.tokens, again.tokens)
    size = extent(SPECS[other])
    part = slice(0, size) if names[0] == other else slice(-size, None)
    assert torch.equal(null.tokens[:, part], conditions.tokens[:, part])


@torch.no_grad()
def test_all_ports_together_and_the_null_of_what_training_dropped() -> None:
    names = ("caption", "vector", "map", "low_res")
    conditioning = made(*names)
    conditions = conditioning(given(*names))
    assert conditions.tokens.shape == (2, 5, 8)
    assert conditions.vector.shape == (2, 16)
    assert conditions.planes.shape == (2, 5, 3, 4)
    null = conditioning.null(conditions)
    assert torch.equal(null.planes[:, 2:], conditions.planes[:, 2:])  # low_res was never dropped
    assert not null.planes[:, :2].any()
    assert torch.equal(null.vector, conditioning["label"](torch.tensor([3, 3])))
    torch.testing.assert_close(null.tokens[:1], conditioning["caption"](torch.tensor([[2, 3, 0, 0, 0]])))
    unchanged = conditioning.null(conditions, drop=[])
    assert torch.equal(unchanged.planes, conditions.planes)


@torch.no_grad()
def test_each_field_and_each_sample_is_dropped_on_its_own_before_fusing() -> None:
    names = ("caption", "label")
    conditioning = made(*names)
    inputs = given(*names)
    dropped = conditioning.drop(inputs, {"caption": torch.tensor([True, False]), "label": torch.tensor([False, True])})
    assert dropped["caption"].tolist() == [[2, 3, 0, 0, 0], INPUTS["caption"][1].tolist()]
    assert dropped["label"].tolist() == [0, 3]
    whole, cut = conditioning(inputs), conditioning(dropped)
    torch.testing.assert_close(cut.tokens[1, :5], whole.tokens[1, :5])
    torch.testing.assert_close(cut.tokens[0, 5:], whole.tokens[0, 5:])
    null = conditioning.null(whole)
    torch.testing.assert_close(cut.tokens[0, :5], null.tokens[0, :5])
    torch.testing.assert_close(cut.tokens[1, 5:], null.tokens[1, 5:])
    untouched = conditioning.drop(inputs, {})
    assert all(torch.equal(untouched[name], inputs[name]) for name in names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("caption",), "this model is steered by caption, label; caption came"),
        ((), "steered by caption, label; nothing came"),
        (("caption", "label", "map"), "steered by caption, label; caption, label, map came"),
    ],
)
def test_exactly_the_fields_of_the_model_are_taken(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made("caption", "label")(given(*names))


@pytest.mark.parametrize("names", [("caption", "low_res"), ("vector", "map"), ("caption", "label")])
def test_fields_are_given_for_as_many_samples(names: tuple[str, str]) -> None:
    """In different ports nothing else would notice, and one sample's condition would steer all."""
    inputs = given(*names)
    first = SPECS[names[0]].field
    with pytest.raises(InputError, match=f"as many samples; .*{first} for 1"):
        made(*names)({**inputs, first: inputs[first][:1]})


@torch.no_grad()
def test_a_layout_takes_as_many_tokens_as_its_scheme_makes() -> None:
    """Fewer than its encoder could take: else the caption beside it would be taken for shorter than it is."""
    scheme = LayoutTokensSpec(categories=3, slots=1, grid=3, crop=False)
    specs = [SPECS["caption"], LayoutSpec(encoder=ENCODER, scheme=scheme, drop=0.1)]
    torch.manual_seed(0)
    conditioning = Conditioning(specs).eval()
    conditioning["caption"].set_empty([2, 3, 0, 0, 0])
    inputs = {"caption": INPUTS["caption"], "objects": torch.tensor([[0, 1, 8], [2, 0, 4]])}
    conditions = conditioning(inputs)
    null = conditioning.null(conditions, drop=["caption"])
    assert torch.equal(null.tokens[:, 5:], conditions.tokens[:, 5:])
    empty = conditioning["caption"](torch.tensor([[2, 3, 0, 0, 0]] * 2))
    torch.testing.assert_close(null.tokens[:, :5], empty)
    without = conditioning({"caption": inputs["caption"]}, size=(3, 4))
    assert without.tokens.shape == conditions.tokens.shape


@pytest.mark.parametrize(("name", "cut"), [("embedding", 1), ("objects", 3)])
def test_tokens_that_could_not_be_told_apart_again_are_refused(name: str, cut: int) -> None:
    inputs = given("caption", name)
    inputs[name] = inputs[name][:, :cut]
    with pytest.raises(InputError, match=f"{name} gives {cut} tokens; .* it must be {extent(SPECS[name])}"):
        made("caption", name)(inputs)
    assert made(name)({name: inputs[name]}).tokens.shape[1] == cut  # alone it may be of any length


def test_an_unconditional_model_takes_nothing() -> None:
    assert made()({}) == Conditions()
    with pytest.raises(InputError, match="steered by nothing; label came"):
        made()(given("label"))


def test_nulls_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="no field 'label'; it has caption"):
        made("caption").null(Conditions(tokens=torch.zeros(1, 5, 8)), drop=["label"])
    with pytest.raises(InputError, match="training dropped no condition"):
        made("low_res").null(Conditions(planes=torch.zeros(1, 3, 2, 2)))

"""`Model`: fields in a person's words, tensors out; shapes, units, errors."""

from collections.abc import Callable

import pytest
import torch

from darkroom.core.compute import Compute
from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError
from darkroom.diffusion.walk import sample_latents
from darkroom.tasks.model import Model

Small = Callable[[str], Model]
PAIR = torch.Generator().manual_seed(0)
LATENTS = torch.randn(2, 3, 8, 8, generator=PAIR)
NOISE = torch.randn(2, 3, 8, 8, generator=PAIR)
TIMES = torch.tensor([10, 700])


@pytest.mark.parametrize(
    ("name", "fields", "port", "shape"),
    [
        ("text", {"caption": ["a red circle", "a star"]}, "tokens", (2, 10, 8)),
        ("text", {"caption": "a red circle"}, "tokens", (1, 10, 8)),
        ("text", {"caption_ids": torch.tensor([[2, 3, 0]])}, "tokens", (1, 3, 8)),
        ("class", {"label": ["star", 0]}, "tokens", (2, 1, 8)),
        ("class", {"label": 2}, "tokens", (1, 1, 8)),
        ("class", {"label": torch.tensor([2, 3])}, "tokens", (2, 1, 8)),
        ("vector", {"label": "circle"}, "vector", (1, 32)),
        ("both", {"caption": ["a"], "label": [1]}, "tokens", (1, 11, 8)),
        ("map", {"map": torch.tensor([[[0, 1], [2, 3]]] * 2)}, "planes", (2, 2, 1, 1)),
        ("map", {"map": torch.zeros(1, 4, 16, 16)}, "planes", (1, 2, 8, 8)),
        ("low-res", {"low_res": torch.zeros(1, 3, 8, 8)}, "planes", (1, 3, 8, 8)),
    ],
)
def test_fields_become_ports(
    small: Small, *, name: str, fields: dict[str, object], port: str, shape: tuple[int, ...]
) -> None:
    conditions = small(name).condition(**fields)
    filled = {each for each in ("tokens", "vector", "planes") if getattr(conditions, each) is not None}
    assert filled == {port}
    assert getattr(conditions, port).shape == shape
    assert getattr(conditions, port).dtype == torch.float32


def test_names_ids_and_one_hot_mean_the_same(small: Small) -> None:
    text, classes, maps = small("text"), small("class"), small("map")
    ids = text.words.caption_ids("a red circle")
    assert torch.equal(text.condition(caption="a red circle").tokens, text.condition(caption_ids=ids).tokens)
    assert torch.equal(classes.condition(label="star").tokens, classes.condition(label=[2]).tokens)
    numbers = torch.randint(4, (2, 16, 16))
    one_hot = torch.nn.functional.one_hot(numbers, 4).permute(0, 3, 1, 2).float()
    assert torch.equal(maps.condition(map=numbers).planes, maps.condition(map=one_hot).planes)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("plain", {"caption": "a"}, "plain takes no prompt; it is unconditional"),
        ("text", {"label": 1}, "text takes no label"),
        ("text", {"caption": "a", "caption_ids": torch.zeros(1, 2).long()}, "caption and caption_ids say the same"),
        ("text", {"map": torch.zeros(1, 4, 4).long()}, "text takes no semantic map"),
        ("text", {}, "steered by caption; nothing came"),
        ("both", {"caption": "a"}, "steered by caption, label; caption came"),
        ("class", {"label": "cirle"}, "did you mean 'circle'"),
        ("class", {"label": torch.tensor([4])}, r"labels must lie in 0\.\.3"),
        ("map", {"label": 1}, "map takes no label; it is steered by a semantic map"),
    ],
)
def test_other_fields_are_refused(small: Small, name: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(name).condition(**fields)


def test_captions_need_a_tokenizer(small: Small) -> None:
    there = small("text")
    model = Model(there.diffusion, compute=there.compute, name="mute")
    with pytest.raises(InputError, match=r"mute came without a tokenizer: put its vocab.txt .* or give caption_ids"):
        model.condition(caption="a red circle")
    assert model.condition(caption_ids=torch.tensor([[2, 3]])).tokens.shape == (1, 2, 8)


def test_null_keeps_shapes_and_what_is_not_dropped(small: Small) -> None:
    model = small("both")
    conditions = model.condition(caption=["a red circle", "a"], label=[0, 1])
    null = model.null(conditions)
    assert null.tokens.shape == conditions.tokens.shape
    torch.testing.assert_close(null.tokens[0], null.tokens[1])
    kept = model.null(conditions, drop=["label"])
    assert torch.equal(kept.tokens[:, :10], conditions.tokens[:, :10])
    assert torch.equal(kept.tokens[:, 10:], null.tokens[:, 10:])
    empty = small("text").condition(caption=["", ""])
    given = small("text").condition(caption=["a", "b"])
    torch.testing.assert_close(small("text").null(given).tokens, empty.tokens)
    with pytest.raises(InputError, match="training dropped no condition"):
        small("unguided").null(small("unguided").condition(label=1))


def test_the_raw_output_and_the_loss(small: Small) -> None:
    model = small("plain")
    output = model.network(LATENTS, TIMES, Conditions())
    assert output.shape == LATENTS.shape
    assert not output.requires_grad
    assert output.std() > 1e-3
    losses = model.loss(LATENTS, t=TIMES, noise=NOISE, conditions=Conditions())
    alpha, sigma = (getattr(model.schedule, name)(TIMES).float().view(2, 1, 1, 1) for name in ("alpha", "sigma"))
    again = model.network(alpha * LATENTS + sigma * NOISE, TIMES, Conditions())
    torch.testing.assert_close(losses, (again - NOISE).square().mean(dim=(1, 2, 3)))
    with pytest.raises(InputError, match="tokens of width None, width 8 came"):
        model.network(LATENTS, TIMES, Conditions(tokens=torch.zeros(2, 1, 8)))


def test_encoding_draws_only_with_a_generator(small: Small) -> None:
    model = small("plain")
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    mean, log_variance = model.first_stage.moments(images)
    found = model.encode(images)
    assert found.shape == (2, 3, 8, 12)
    torch.testing.assert_close(found, 0.5 * mean.detach(), rtol=1e-4, atol=1e-5)
    one, same, other = (model.encode(images, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-3)
    noise = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    drawn = 0.5 * (mean + (log_variance / 2).exp() * noise)
    torch.testing.assert_close(one, drawn.detach(), rtol=1e-4, atol=1e-4)
    decoded = model.decode(found)
    assert decoded.shape == images.shape
    torch.testing.assert_close(decoded, model.first_stage.decode(mean).detach(), rtol=1e-3, atol=1e-4)


def test_sizes_and_channels_are_checked(small: Small) -> None:
    with pytest.raises(InputError, match=r"multiples of 2, the nearest that fits is 16x16"):
        small("plain").encode(torch.zeros(1, 3, 15, 16))
    with pytest.raises(InputError, match="pictures with 1 channels came"):
        small("plain").encode(torch.zeros(1, 1, 16, 16))


def test_a_model_can_be_handed_to_the_solvers(small: Small) -> None:
    model = small("class")
    conditions = model.condition(label=[0, 2])
    options = {"conditions": conditions, "null": model.null(conditions), "guidance": 3.0, "steps": 3}
    found = sample_latents(model, LATENTS, **options)
    assert found.shape == LATENTS.shape
    assert torch.isfinite(found).all()
    assert torch.equal(found, sample_latents(model, LATENTS, **options))


def test_bfloat16_is_close_and_answers_in_float32(small: Small) -> None:
    exact = small("text")
    model = Model(
        exact.diffusion, compute=Compute(torch.device("cpu"), torch.bfloat16), tokenizer=exact.tokenizer, name="b"
    )
    conditions = model.condition(caption=["a red circle"] * 2)
    assert conditions.tokens.dtype == torch.float32
    output, wanted = (each.network(LATENTS, TIMES, conditions) for each in (model, exact))
    assert output.dtype == torch.float32
    assert 0 < (output - wanted).abs().max() < 0.1 * wanted.abs().max()
    images = torch.rand(1, 3, 16, 16)
    latents = model.encode(images)
    assert latents.dtype == model.decode(latents).dtype == torch.float32
    torch.testing.assert_close(latents, exact.encode(images), rtol=0.1, atol=0.05)
    assert model.null(conditions).tokens.dtype == torch.float32
    assert len(model.sample("a red circle", steps=2)) == 1


def test_what_is_known_about_a_model(small: Small) -> None:
    model = small("both")
    assert (model.name, model.fields, model.classes) == ("both", ("caption", "label"), ("circle", "square", "star"))
    assert model.default("steps", 50) == 3
    assert model.default("prompts", []) == []
    assert model.odd == ()
    assert model.words.takes() == "it is steered by a prompt and a label"
    assert repr(model) == "<Model both: 16 x 16 pixels, steered by a prompt and a label>"
    assert small("low-res").words.takes() == "it is steered by a low-resolution picture"
    assert model.spec.network.context_width == 8
    assert model.prediction.name == "eps"

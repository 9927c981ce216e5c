"""A model that copies is seen to copy, and one that does not is not; its neighbours are training pictures."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.autoencoder.model import PixelsSpec
from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec, Tokenizer
from darkroom.core.compute import sampling_compute
from darkroom.core.errors import InputError
from darkroom.core.names import Names
from darkroom.core.pictures import from_bytes, to_bytes, to_pictures
from darkroom.data.examples import Source
from darkroom.data.sources import Splits, open_data
from darkroom.data.transforms import TransformSpec, still
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.metrics.neighbours import thumbprints
from darkroom.network.unet import UNetSpec
from darkroom.process.schedule import CosineSpec
from darkroom.recipes.report import look_back as room
from darkroom.recipes.report.look_back import look_back
from darkroom.tasks.generate import Sampled
from darkroom.tasks.model import Model

CUT = TransformSpec(size=16)


def model(*conditioners: ConditionerSpec, classes: tuple[str, ...] = (), tokenizer: Tokenizer | None = None) -> Model:
    network = UNetSpec(
        in_channels=3, out_channels=3, channels=8, multipliers=(1,), blocks=1, attention=(), norm_groups=4
    )
    if conditioners:
        network = network.model_copy(update={"attention": (1,), "transformer_depth": 1, "context_width": 8})
    spec = ModelSpec(
        image_size=16,
        first_stage=PixelsSpec(),
        network=network,
        conditioners=conditioners,
        schedule=CosineSpec(steps=20),
        prediction="v",
        scale=1.0,
    )
    card = {"sample": {"solver": "ddim", "steps": 2}}
    return Model(
        LatentDiffusion(spec), compute=sampling_compute("cpu"), card=card, names=Names(classes), tokenizer=tokenizer
    )


@pytest.fixture(scope="module")
def splits() -> Splits:
    return open_data("shapes:single", limit=120)


def cut(source: Source, row: int) -> Image.Image:
    (picture,) = to_pictures(from_bytes(still(source.example(row).picture, CUT)[None]))
    return picture


def drawing(pictures: list[Image.Image]) -> Callable[..., list[Sampled]]:
    """What stands in for a model that draws these."""
    return lambda *_, **__: [Sampled(picture, place, {}) for place, picture in enumerate(pictures)]


def test_samples_stand_beside_training_pictures(splits: Splits) -> None:
    said: list[tuple[str, int, int]] = []
    seen = look_back(model(), splits, transform=CUT, count=3, tell=lambda *each: said.append(each))
    assert len(seen.samples) == 3
    assert (seen.compared, seen.training, seen.drawn) == (120, 120, "ddim, 2 steps, seed 0")
    for sample in seen.samples:
        assert (sample.picture.size, sample.asked) == ((16, 16), "")
        distances = [each.distance for each in sample.neighbours]
        assert distances == sorted(distances)
        assert [each.picture.size for each in sample.neighbours] == [(16, 16)] * 3
        assert all(each.name.startswith("shapes:single") and each.caption for each in sample.neighbours)
    assert {what for what, _, _ in said} == {"samples", "training pictures compared"}
    assert said[-1][1:] == (120, 120)


def test_the_distance_is_that_of_the_pictures_shown(splits: Splits) -> None:
    (sample,) = look_back(model(), splits, transform=CUT, count=1).samples
    pixels = from_bytes(torch.stack([to_bytes(each) for each in (sample.picture, sample.neighbours[0].picture)]))
    prints = thumbprints(pixels)
    assert sample.neighbours[0].distance == pytest.approx(float((prints[0] - prints[1]).norm()), abs=1e-5)


def test_planted_copies_are_found_and_unseen_pictures_are_not(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = [cut(splits.train, row) for row in (3, 50, 110)]
    new = [cut(splits.test, row) for row in range(4)]
    monkeypatch.setattr(room, "generate", drawing([*copies, *new]))
    seen = look_back(model(), splits, transform=CUT)
    assert [each.copied for each in seen.samples] == [True] * 3 + [False] * 4
    assert [each.neighbours[0].name for each in seen.samples[:3]] == [
        splits.train.example(row).name for row in (3, 50, 110)
    ]
    memory = seen.memorisation
    assert memory.evident
    assert memory.found == memory.known == 60  # pixels are their own reconstruction


def test_a_mirrored_copy_is_one_where_training_mirrors(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in range(40) if not np.allclose(*_sides(cut(splits.train, row)), atol=40)][:2]
    mirrored = [cut(splits.train, row).transpose(Image.Transpose.FLIP_LEFT_RIGHT) for row in rows]
    monkeypatch.setattr(room, "generate", drawing(mirrored))
    flipped = look_back(model(), splits, transform=CUT.model_copy(update={"flip": True}))
    assert [each.neighbours[0].distance for each in flipped.samples] == [0, 0]
    assert all(each.copied for each in flipped.samples)
    straight = look_back(model(), splits, transform=CUT)
    assert all(each.neighbours[0].distance > 0.01 for each in straight.samples)


def _sides(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(picture).astype(float)
    return pixels, pixels[:, ::-1]


def test_labels_are_dealt_over_all_classes(splits: Splits) -> None:
    labelled = model(ClassSpec(classes=8, width=8, null=8), classes=splits.train.classes)
    seen = look_back(labelled, splits, transform=CUT, count=4)
    assert [each.asked for each in seen.samples] == [splits.train.classes[place] for place in (0, 2, 4, 6)]
    assert seen.drawn == "ddim, 2 steps, guidance 1, seed 0"


def test_prompts_are_those_of_its_card_or_captions_of_test_pictures(splits: Splits) -> None:
    known = [splits.test.caption(row) or "" for row in range(120)]
    tokenizer = Tokenizer.train(known, vocabulary=60, length=10)
    encoder = SequenceEncoderSpec(
        vocabulary=tokenizer.vocabulary, length=tokenizer.length, width=8, depth=1, heads=2, head_width=4
    )
    texts = model(TextSpec(encoder=encoder), tokenizer=tokenizer)
    unseen = look_back(texts, splits, transform=CUT, count=4)
    assert [each.asked for each in unseen.samples] == [known[row] for row in (0, 30, 60, 90)]
    assert unseen.drawn.endswith("captions of test pictures as prompts")
    texts.card["sample"] = {**texts.card["sample"], "prompts": ["a star", "a ring"]}
    chosen = look_back(texts, splits, transform=CUT, count=3)
    assert [each.prompt for each in chosen.samples] == ["a star", "a ring", "a star"]
    assert chosen.drawn.endswith("prompts that were chosen for it")


def test_of_a_large_set_some_rows_are_compared(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "COMPARED", 50)
    seen = look_back(model(), splits, transform=CUT, count=1)
    assert (seen.compared, seen.training) == (40, 120)
    numbers = {int(each.name.rsplit("-", 1)[1]) for each in seen.samples[0].neighbours}
    assert all(number % 3 == 0 for number in numbers)


def test_a_model_steered_by_something_else_is_refused(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> list[Sampled]:
        raise InputError("is steered by map")

    monkeypatch.setattr(room, "generate", refuse)
    with pytest.raises(InputError, match="steered by map"):
        look_back(model(), splits, transform=CUT)

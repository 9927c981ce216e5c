"""Captions asked of a model, read back from what it draws: true scenes obey, others do not."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.store import StoredModel, save_model
from darkroom.cli.main import main
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec, Tokenizer
from darkroom.core.errors import InputError
from darkroom.data.sources import ShapesSource
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.evaluate import drawing, obedience
from darkroom.evaluate.obedience import captions_trained_on, evaluate_obedience
from darkroom.evaluate.report import Obedience, ObedienceReport
from darkroom.evaluate.report_cards import card_of
from darkroom.network.unet import UNetSpec
from darkroom.scenes.draw import draw
from darkroom.tasks.generate import Sampled
from darkroom.tasks.load import load
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request

ASKED = ShapesSource(obedience.SEED, count=400)
WORDS = 16


def text_model(path: Path, *, text: bool = True, side: int = 64) -> Path:
    tokenizer = Tokenizer.train([ASKED.caption(row) or "" for row in range(60)], vocabulary=80, length=24)
    spec = ModelSpec(
        image_size=side,
        scale=1.0,
        first_stage=AutoencoderSpec(
            channels=8, multipliers=(1, 1, 1), blocks=1, latent_channels=3, norm_groups=4, middle_attention=False
        ),
        network=UNetSpec(
            in_channels=3,
            out_channels=3,
            channels=8,
            multipliers=(1, 2),
            blocks=1,
            norm_groups=4,
            transformer_depth=1,
            context_width=WORDS if text else None,
        ),
        conditioners=(
            (
                TextSpec(
                    encoder=SequenceEncoderSpec(
                        vocabulary=tokenizer.vocabulary, length=24, width=WORDS, depth=1, heads=2, head_width=8
                    )
                ),
            )
            if text
            else ()
        ),
    )
    torch.manual_seed(5)
    card = {"name": "small", "sample": {"solver": "ddim", "steps": 3, "guidance": 2.0 if text else 1.0}}
    state = LatentDiffusion(spec).state_dict()
    return save_model(path, StoredModel("model", spec, state, card, tokenizer=tokenizer.to_json() if text else None))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("models") / "small.safetensors")


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    return load(path, device="cpu")


def drawn_by(monkeypatch: pytest.MonkeyPatch, picture_of: Any) -> None:
    """Let a function of the caption's scene take the sampler's place."""
    scenes = {ASKED.caption(row): ASKED.scene(row) for row in range(len(ASKED))}

    def generate(model: Model, request: Request, *, batch: int, places: range) -> Iterator[Sampled]:
        for index, prompt in enumerate(request.prompts):
            yield Sampled(Image.fromarray(picture_of(scenes[prompt].image)), index, {})

    monkeypatch.setattr(drawing, "generate", generate)


def test_true_scenes_obey_and_neighbours_captions_do_not_hold(model: Model, monkeypatch: pytest.MonkeyPatch):
    drawn_by(monkeypatch, lambda image: image)
    report = evaluate_obedience(model, count=20)
    assert [each.things for each in report.by_things] == [1, 2, 3]
    assert all(each.obeyed == each.shown == 1 and each.prompts == 20 for each in report.by_things)
    assert all(each.shuffled <= 0.1 for each in report.by_things)


def test_mirrored_scenes_show_what_is_named_in_the_wrong_place(model: Model, monkeypatch: pytest.MonkeyPatch):
    drawn_by(monkeypatch, lambda image: np.ascontiguousarray(image[:, ::-1]))
    one, two, three = evaluate_obedience(model, count=24).by_things
    assert one.obeyed >= 0.9
    assert min(two.shown, three.shown) >= 0.9
    assert two.obeyed <= 0.75
    assert three.obeyed <= two.obeyed


def test_blanks_obey_nothing(model: Model, monkeypatch: pytest.MonkeyPatch):
    drawn_by(monkeypatch, np.zeros_like)
    report = evaluate_obedience(model, count=8)
    assert all(each.obeyed == each.shown == each.shuffled == 0 for each in report.by_things)


def test_a_card_has_the_shares_of_its_report(model: Model):
    """Of other captions there are fewer than of pictures, so that their share is no whole number of pictures."""
    few = Obedience(things=2, prompts=7, obeyed=3 / 7, shown=5 / 7, shuffled=2 / 5)
    protocol = {"model": {"name": "m"}, "captions": {}, "sample": {}, "darkroom": "0"}
    card = card_of(ObedienceReport((few,), protocol), compute=model.compute, begun=time.monotonic() - 5)
    figures = {each.measure: each for each in card.figures}
    assert figures["shuffled, 2 things"].value == 2 / 5
    assert figures["obeyed, 2 things"].value == 3 / 7
    assert (figures["obeyed, 2 things"].low or 1) < 3 / 7 < (figures["obeyed, 2 things"].high or 0)
    assert card.time["seconds"] >= 5


def test_captions_that_were_trained_on_are_not_asked(model: Model, monkeypatch: pytest.MonkeyPatch):
    drawn_by(monkeypatch, np.zeros_like)
    asked: list[str] = []
    monkeypatch.setattr(obedience, "read_scene", lambda _: [])
    monkeypatch.setattr(obedience, "obeys", lambda _, caption: bool(asked.append(caption)))
    known = frozenset(ASKED.caption(row) or "" for row in range(10))
    evaluate_obedience(model, count=12, trained_on=known)
    several = {caption for caption in asked if " a " in caption}
    assert several
    assert not several & known


def test_the_card_tells_what_was_trained_on():
    told = captions_trained_on({"data": {"source": "shapes", "pictures": 5, "size": 64, "seed": 9}})
    assert told == {draw(9, index).caption for index in range(5)}
    for card in ({}, {"data": None}, {"data": {"source": "cats", "pictures": 5, "size": 64, "seed": 9}}):
        assert captions_trained_on(card) is None
    tuned = {"start": {"name": "other"}, "data": {"source": "shapes", "pictures": 5, "size": 64, "seed": 9}}
    assert captions_trained_on(tuned) is None


def test_small_canvases_are_asked_for_one_thing(tmp_path: Path):
    small = load(text_model(tmp_path / "small.safetensors", side=32), device="cpu")
    assert [each.things for each in evaluate_obedience(small, count=2, steps=1).by_things] == [1]


def test_models_without_captions_are_refused(tmp_path: Path):
    plain = load(text_model(tmp_path / "plain.safetensors", text=False), device="cpu")
    with pytest.raises(
        InputError, match="takes no prompt, it is unconditional: whether it draws what it is told is no question"
    ):
        evaluate_obedience(plain, count=2)


def test_the_command_answers_table_and_file(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "obedience.json"
    words = ["evaluate", str(path), "shapes", "--count", "3", "--steps", "2", "--guidance", "1.5", "--out", str(out)]
    assert main([*words, "--device", "cpu"]) == 0
    table, stored = capsys.readouterr().out, json.loads(out.read_text())
    assert [each["prompts"] for each in stored["by_things"]] == [3, 3, 3]
    assert stored["protocol"]["sample"] == {"seed": 0, "solver": "ddim", "steps": 2, "eta": 0.0, "guidance": 1.5}
    assert stored["protocol"]["model"]["weights_hash"] in table
    assert "guidance 1.5" in table


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["shapes", "--split", "all"], "--split does not fit"),
        (["shapes", "--first-stage", "--steps", "3"], "--steps does not fit"),
        (["shapes", "--masks", "holes"], "--masks does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(path), *words]) == 2
    assert sentence in capsys.readouterr().err

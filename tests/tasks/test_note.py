"""What a picture says about how it was made: kept when saved, enough to draw it again."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from darkroom.core.errors import InputError
from darkroom.tasks.generate import generate
from darkroom.tasks.model import Model
from darkroom.tasks.note import Note, again, read_note
from darkroom.tasks.parts import load_autoencoder
from darkroom.tasks.request import Request

Small = Callable[[str], Model]
LEAST = {"model": "text", "prompt": "a", "seed": 3, "size": [16, 16], "solver": "ddim", "steps": 3}


def same(one: Image.Image, other: Image.Image) -> bool:
    return (np.asarray(one) == np.asarray(other)).all()


def noted(path: Path, note: object) -> Path:
    info = PngInfo()
    info.add_itxt("darkroom", note if isinstance(note, str) else json.dumps(note))
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}),
    "eta": ("plain", {"eta": 0.7, "steps": 4}),
    "noise in every step": ("plain", {"solver": "ddpm"}),
    "size and times": ("plain", {"size": (16, 24), "times": "original", "steps": 4}),
    "negatives": ("text", {"prompt": ["a star", "a"], "negative": ["a circle", "a é"]}),
    "an empty prompt": ("text", {"prompt": ""}),
    "guidance": ("text", {"prompt": "a", "guidance": 4, "guidance_interval": (0.2, 5), "guidance_rescale": 0.5}),
    "guidance without an upper bound": ("text", {"prompt": "a", "guidance_interval": (0.2, math.inf)}),
    "no guidance": ("text", {"prompt": "a", "guidance": 1}),
    "label": ("class", {"label": "star"}),
    "number": ("class", {"label": 0}),
    "both": ("both", {"prompt": ["a", "b"], "label": [1, "star"]}),
    "a way of seeds": ("plain", {"to_seed": 0, "eta": 1.0}),
    "a way of all": ("both", {"prompt": "a", "label": 1, "to": "a star", "to_label": 2, "to_seed": 4}),
    "a place on a way": ("text", {"prompt": "a", "to": "a star", "at": 0.3}),
}


@pytest.mark.parametrize("case", KINDS)
def test_a_picture_is_drawn_again_from_the_png_that_save_writes(small: Small, tmp_path: Path, case: str) -> None:
    name, options = KINDS[case]
    model = small(name)
    pictures = model.sample(count=3, seed=5, first=4, batch=1, **options)
    for place, picture in enumerate(pictures):
        path = tmp_path / f"{place}.png"
        picture.save(path)
        with Image.open(path) as opened:
            assert opened.info["darkroom"] == picture.info["darkroom"]
        (repeated,) = model.sample(like=path)
        assert same(repeated, picture)
        assert repeated.info == picture.info
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_the_note_of_a_wish_is_that_wish_again(small: Small) -> None:
    """Nothing that makes a picture is missing in its note."""
    request = Request(
        prompts=("a", "b"),
        labels=(1, "star"),
        to_prompts=("c",),
        to_labels=(2, 0),
        to_seed=8,
        count=2,
        seed=7,
        first=3,
        solver="ddim",
        eta=0.5,
        guidance=3.0,
        guidance_interval=(0.1, None),
        guidance_rescale=0.2,
        times="original",
        steps=4,
    )
    for wish, sampled in zip(request.wishes(), generate(small("both"), request), strict=True):
        found = again(Note(**sampled.recipe), {})
        assert found.wishes() == [wish]
        shared = set(Request.model_fields) & set(Note.model_fields) - {"at", "size"}
        assert {key: getattr(found, key) for key in shared} == {key: getattr(request, key) for key in shared}


def test_pictures_in_memory_can_be_repeated_and_changed(small: Small) -> None:
    model = small("text")
    (picture,) = model.sample("a star", seed=2, first=3, negative="a circle", guidance=3.0)
    (repeated,) = model.sample(like=picture)
    assert same(repeated, picture)
    for changes in ({"seed": 0}, {"prompt": "a"}, {"first": 0}, {"negative": ""}, {"guidance": 1}, {"solver": "unipc"}):
        (other,) = model.sample(like=picture, **changes)
        assert not same(other, picture), changes
        told = json.loads(other.info["darkroom"])
        assert told["steps"] == 3
        assert changes.get("seed", 2) == told["seed"]
    further = model.sample(like=picture, count=2)
    assert [json.loads(each.info["darkroom"])["index"] for each in further] == [3, 4]
    leading = model.sample(like=picture, to="a blue square", count=3, batch=1)
    assert same(leading[0], picture)
    (last,) = model.sample(like=picture, prompt="a blue square")
    assert same(leading[-1], last)


def test_copies_and_other_formats_go_without_a_note(small: Small, tmp_path: Path) -> None:
    (picture,) = small("plain").sample()
    frames = small("plain").sample(to_seed=1, count=3)
    picture.save(tmp_path / "a.jpg")
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 3
    for name in ("a.jpg", "a.gif"):
        with pytest.raises(InputError, match=f"{name}: this picture does not say how it was made"):
            small("plain").sample(like=tmp_path / name)
    for name in ("first.png", "second.png"):  # saving uses nothing up
        picture.save(tmp_path / name)
        assert read_note(tmp_path / name).model == "plain"


def test_another_decoder_and_precision_are_told(small: Small, model_files: dict[str, Path]) -> None:
    model = small("plain").with_decoder(load_autoencoder(model_files["plain"]))
    (picture,) = model.sample()
    told = read_note(picture)
    assert told.decoder is not None
    assert told.decoder.name == "decoder"
    assert same(model.sample(like=picture)[0], picture)
    with pytest.raises(InputError, match=r"the picture given: decoded by 'decoder' \(spec \w+\); say where that is"):
        small("plain").sample(like=picture)
    with pytest.raises(InputError, match="made by 'plain', another model than text; give the one that made it"):
        small("text").sample(like=picture)
    assert told.precision is None


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("nonsense", "does not say how it was made"),
        ("[" * 100_000, "does not say how it was made"),
        ([1], "does not say how it was made"),
        ({"model": "text", "reconstruction_of": "a.png"}, "does not say how it was made"),
        (LEAST | {"stepz": 3}, r"odd\.png: unknown key 'stepz' \(did you mean 'steps'\?\)"),
        (LEAST | {"steps": "many"}, r"odd\.png: 'steps': .*'many' came"),
        (LEAST | {"model": {}}, r"odd\.png: 'model': "),
        (LEAST | {"seed": -1}, "request: 'seed': "),
        (LEAST | {"spec_hash": "0"}, "another model than text"),
        (LEAST | {"label": 1}, "text takes no label"),
    ],
)
def test_odd_notes_are_refused_in_a_sentence(small: Small, tmp_path: Path, note: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        small("text").sample(like=noted(tmp_path / "odd.png", note))
    assert "\n" not in str(caught.value)


def test_a_setting_goes_with_the_one_it_belonged_to() -> None:
    note = Note(
        **LEAST
        | {"eta": 0.5, "guidance": 3.0, "negative": "b", "guidance_rescale": 0.4, "guidance_interval": (0.1, 1)}
        | {"to_seed": 4, "at": 0.25}
    )
    assert again(note, {}).eta == again(note, {"solver": "ddim"}).eta == 0.5
    assert again(note, {"solver": "euler"}).eta is again(note, {"inverted": True}).eta is None
    assert again(note, {"solver": "euler", "eta": 0.1}).eta == 0.1
    plain = again(note, {"guidance": 1})
    assert (plain.negatives, plain.guidance_interval, plain.guidance_rescale) == ((), None, 0)
    assert again(note, {"guidance": 2}).negatives == ("b",)
    assert again(note, {"seed": 9}).at == 0.25
    assert again(note, {"to_seed": 9}).at is None


def test_of_another_picture_that_is_given_the_size_and_the_way_are_new(small: Small) -> None:
    given = [Image.new("RGB", (side, side), (90, 40, 200)) for side in (8, 12, 16)]
    (enlarged,) = small("low-res").sample(low_res=given[0], steps=1)
    assert small("low-res").sample(low_res=given[1], like=enlarged)[0].size == (24, 24)
    (varied,) = small("plain").sample(image=given[2], strength=0.3, steps=3)
    (painted,) = small("plain").sample(image=given[2], mask=Image.new("L", (16, 16), 255), like=varied)
    assert (read_note(painted).strength, read_note(painted).steps) == (None, 3)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({}, "drawn by text; prompt 'a', picture 0 of seed 3; ddim, 3 steps, guidance 1"),
        ({"label": 1, "prompt": None, "index": 2}, "drawn by text; label 1, picture 2 of seed 3; ddim, "),
        (
            {"to_prompt": "b", "to_seed": 5, "at": 3 / 7},
            "drawn by text; prompt 'a' to 'b', picture 0 of seed 3 to 5; 42.9 % of the way; ddim, ",
        ),
    ],
)
def test_a_note_in_words(more: dict[str, Any], sentence: str) -> None:
    assert Note(**LEAST | more).words().startswith(sentence)

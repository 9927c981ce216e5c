"""Every field a request may bring: what it becomes, what it changes, and how it is refused."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.core.errors import InputError, SpecError
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.diffusion.walk import walk
from darkroom.tasks.guide import by_score
from darkroom.tasks.input_picture import input_picture
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request
from darkroom.tasks.settle import offered, settle

Small = Callable[[str], Model]
STAR = [{"category": "star", "box": [0.1, 0.1, 0.4, 0.5]}]
CIRCLE = [{"category": "circle", "box": [0.5, 0.5, 0.4, 0.4]}]


def photo(seed: int = 0, size: tuple[int, int] = (16, 16)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    return Image.fromarray(values.astype(np.uint8))


def ids(value: int = 1, size: tuple[int, int] = (16, 16)) -> Image.Image:
    drawn = np.zeros(size, np.uint8)
    drawn[4:12, 4:12] = value
    return Image.fromarray(drawn)


def hole(size: tuple[int, int] = (16, 16)) -> Image.Image:
    drawn = np.zeros(size, np.uint8)
    drawn[3:9, 5:12] = 255
    return Image.fromarray(drawn)


def numbers(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(each) for each in pictures])


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("layout", {"layout": STAR}, {"layout": CIRCLE}),
        ("map", {"map": ids(1)}, {"map": ids(3)}),
        ("low-res", {"low_res": photo(0, (8, 8))}, {"low_res": photo(1, (8, 8))}),
        ("inpaint", {"image": photo(0), "mask": hole()}, {"image": photo(1), "mask": hole()}),
        ("plain", {"image": photo(0), "strength": 0.7}, {"image": photo(1), "strength": 0.7}),
        ("plain", {"guide": photo(0, (4, 4))}, {"guide": photo(1, (4, 4))}),
        ("text-map", {"prompt": "a red circle", "map": ids(1)}, {"prompt": "a red circle", "map": ids(2)}),
    ],
)
def test_what_is_given_is_followed_and_repeats(
    small: Small, name: str, one: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    model = small(name)
    drawn = model.sample(**one, count=2, seed=3)
    assert np.array_equal(numbers(drawn), numbers(model.sample(**one, count=2, seed=3)))
    assert not np.array_equal(numbers(drawn), numbers(model.sample(**other, count=2, seed=3)))
    alone = model.sample(**one, count=1, seed=3, first=1)
    assert np.abs(numbers(drawn[1:]).astype(int) - numbers(alone)).max() <= 2


def test_several_of_each_and_files(small: Small, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        ids(number + 1).save(path)
    model = small("map")
    together = model.sample(map=paths, seed=0)
    assert len(together) == 2
    first = model.sample(map=str(paths[0]), seed=0)
    assert np.abs(numbers(together[:1]).astype(int) - numbers(first)).max() <= 2
    layouts = small("layout").sample(layout=[STAR, CIRCLE, []], count=2)
    assert len(layouts) == 6


def test_all_of_it_open_is_no_variation(small: Small) -> None:
    """Strength 1 begins at nearly pure noise; a small strength stays near the picture that decoding makes of it."""
    model, photograph = small("plain"), photo(2)
    (near,) = model.sample(image=photograph, strength=0.05, steps=20)
    (far,) = model.sample(image=photograph, strength=1.0, steps=20)
    through = model.decode(model.encode(from_bytes(to_bytes(photograph)[None])))
    kept = ((through[0].clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(near) - kept).mean() < np.abs(np.asarray(far) - kept).mean()


def test_inversion_draws_no_noise(small: Small) -> None:
    """An inverted picture leads to one variation whatever the seed; a noised one to many."""
    model, photograph = small("plain"), photo(2)
    inverted = model.sample(image=photograph, inverted=True, count=2, steps=8, solver="ddim")
    (other,) = model.sample(image=photograph, inverted=True, seed=9, steps=8, solver="ddim")
    assert np.array_equal(*numbers(inverted))
    assert np.abs(np.asarray(inverted[0]).astype(int) - np.asarray(other)).max() <= 2
    noised = model.sample(image=photograph, strength=1.0, count=2, steps=8, solver="ddim")
    assert not np.array_equal(*numbers(noised))


def test_inversion_in_windows_sees_windows_alone(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = small("plain"), set[tuple[int, int]]()
    network = model.diffusion.network.forward

    def watched(x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        seen.add((x.shape[-2], x.shape[-1]))
        return network(x, *rest, **more)

    monkeypatch.setattr(model.diffusion.network, "forward", watched)
    model.sample(image=photo(2, (32, 48)), inverted=True, steps=3, solver="ddim", window=16)
    assert seen == {(8, 8)}


def test_a_guide_pulls(small: Small) -> None:
    """Made small, a guided picture is nearer to its guide than an unguided one, and nearer with more weight."""
    model, guide = small("plain"), photo(3, (4, 4))
    wanted = np.asarray(guide).astype(float)

    def error(**options: Any) -> float:
        drawn = model.sample(count=4, steps=12, **options)
        small_ones = [np.asarray(each.resize((4, 4), Image.Resampling.BOX)).astype(float) for each in drawn]
        return float(np.mean([np.abs(each - wanted).mean() for each in small_ones]))

    assert error(guide=guide) < error()
    model = small("pixels")
    free, half, whole = error(), error(guide=guide, guide_weight=0.3), error(guide=guide)
    assert whole < half < free
    assert whole < 0.5 * free


def test_a_score_of_the_drawn_picture_pulls(small: Small) -> None:
    """Any score works, and it looks at what is drawn: by the decoder that the model draws with."""
    model = small("plain")
    looks: list[torch.Tensor] = []

    def brightness(images: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
        looks.append(images.detach())
        return images.mean(dim=(1, 2, 3))

    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def drawn(weight: float) -> float:
        *_, last = walk(model, noise, solver="ddim", steps=8, wrap=by_score(model, brightness, weight=weight))
        return float(model.decode(last.x).mean())

    assert drawn(3000.0) > drawn(0.0) + 0.02
    drawn(0.0)
    torch.testing.assert_close(looks[-1], model.decode(last_x0(model, noise)), atol=1e-4, rtol=1e-4)


def last_x0(model: Model, noise: torch.Tensor) -> torch.Tensor:
    *_, last = walk(model, noise, solver="ddim", steps=8)
    return last.x0


def test_what_a_card_offers_does_not_speak_of_given_pictures(small: Small) -> None:
    model = small("text")
    card = {**model.card, "sample": {**model.card["sample"], "prompts": ["a red circle", "a blue square"]}}
    model = Model(
        model.diffusion, compute=model.compute, name="text", card=card, names=model.names, tokenizer=model.tokenizer
    )
    three = offered(model, Request(count=3))
    assert (three.prompts, three.count) == (("a red circle", "a blue square", "a red circle"), 1)
    for field in ("images", "guides"):
        request = offered(model, Request(count=3, **{field: (input_picture(photo(0)), input_picture(photo(1)))}))
        assert (request.prompts, request.count, settle(model, request).total) == (("",), 3, 6)
    assert offered(model, Request(prompts=("a star",))).prompts == ("a star",)


def test_a_guide_is_not_followed_in_what_is_too_large_to_be_decoded_whole(small: Small) -> None:
    with pytest.raises(InputError, match="a guide does not fit: 1024x2048 is too large"):
        small("plain").sample(guide=photo(3, (4, 4)), size=(1024, 2048), window=16)


def test_low_resolution_decides_the_size(small: Small) -> None:
    (drawn,) = small("low-res").sample(low_res=photo(0, (8, 12)))
    assert drawn.size == (24, 16)


def test_a_size_that_is_asked_for_is_cut_from_the_picture(small: Small) -> None:
    (drawn,) = small("plain").sample(image=photo(0, (30, 50)), size=16)
    assert drawn.size == (16, 16)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("plain", {"size": (16, 40)}),
        ("map", {"map": ids(1, (32, 24))}),
        ("low-res", {"low_res": photo(0, (16, 12))}),
        ("layout", {"layout": [*STAR, *CIRCLE], "size": (16, 40), "guidance": 2.0}),
        ("inpaint", {"image": photo(0, (32, 24)), "mask": hole((32, 24))}),
    ],
)
def test_larger_than_training_in_windows(small: Small, name: str, fields: Mapping[str, Any]) -> None:
    model = small(name)
    (drawn,) = model.sample(**fields, window=16)
    (whole,) = model.sample(**fields)
    assert drawn.size == whole.size
    assert '"window": 16' in drawn.info["darkroom"]
    assert not np.array_equal(np.asarray(drawn), np.asarray(whole))
    given_again = {key: value for key, value in fields.items() if key not in ("size", "layout", "guidance")}
    (again,) = model.sample(**given_again, like=drawn)
    assert np.array_equal(np.asarray(drawn), np.asarray(again))


def test_a_window_that_does_not_fit(small: Small) -> None:
    with pytest.raises(InputError, match="window 15 does not fit this model: it must be a multiple of 4"):
        small("plain").sample(size=32, window=15)


def test_of_two_conditions_one_may_be_left_out(small: Small) -> None:
    model = small("text-map")
    only_map = model.sample(map=ids(1), seed=0)
    empty = model.sample("", map=ids(1), seed=0)
    assert np.abs(numbers(only_map).astype(int) - numbers(empty)).max() <= 2
    assert len(model.sample("a red circle", seed=0)) == 1


def test_a_scale_for_each_condition(small: Small) -> None:
    model = small("text-map")
    fields: dict[str, Any] = {"prompt": "a red circle", "map": ids(1), "seed": 0}
    each = model.sample(**fields, guidance={"caption": 1.0, "map": 1.0})
    assert np.abs(numbers(each).astype(int) - numbers(model.sample(**fields, guidance=1.0))).max() <= 2
    equal = model.sample(**fields, guidance={"caption": 3.0, "map": 3.0})
    assert np.abs(numbers(equal).astype(int) - numbers(model.sample(**fields, guidance=3.0))).max() <= 2
    other = model.sample(**fields, guidance={"caption": 3.0})
    assert not np.array_equal(numbers(other), numbers(equal))


def test_conditions_as_tensors_and_in_words_are_the_same(small: Small) -> None:
    model = small("layout")
    tokens = model.condition(objects=[STAR]).tokens
    # star is category 2; corners on an 8 x 8 grid: (0.1, 0.1) to (0.5, 0.6), times 7
    known = torch.tensor([[2, 1 * 8 + 1, 4 * 8 + 4, 64, 64, 64]])
    assert tokens is not None
    torch.testing.assert_close(tokens, model.condition(layout_ids=known).tokens)


def test_a_masked_picture_is_encoded_with_its_hole_black(small: Small) -> None:
    model = small("inpaint")
    image, mask = from_bytes(to_bytes(photo(0))[None]), torch.zeros(1, 1, 16, 16)
    mask[..., 2:5, 2:3] = 1
    planes = model.condition(image=image, mask=mask).planes
    assert planes is not None
    torch.testing.assert_close(planes[:, :3], model.encode(torch.where(mask > 0, -1.0, image)))
    cells = torch.full((8, 8), -1.0)
    cells[1:3, 1] = 1  # any pixel of a cell opens it
    torch.testing.assert_close(planes[0, 3], cells)


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("layout", {"layout": [{"category": "sun", "box": [0, 0, 1, 1]}]}, "unknown category 'sun'"),
        ("layout", {"layout": [{"category": 9, "box": [0, 0, 1, 1]}]}, r"category 9 is out of range; .* 0\.\.2"),
        ("layout", {"layout": [{"category": "--5", "box": [0, 0, 1, 1]}]}, "unknown category '--5'"),
        ("layout", {"layout": [{"category": "9" * 5000, "box": [0, 0, 1, 1]}]}, "unknown category '9"),
        ("layout", {"layout": [{"category": 1, "box": [0.5, 0, 0.6, 1]}]}, "lies outside the picture"),
        ("layout", {"layout": [{"category": 1, "box": [0.5, 0, 0.0, 1]}]}, "lies outside the picture"),
        ("layout", {"layout": [{"category": 1}]}, "box"),
        ("layout", {"layout": STAR * 3}, "3 objects came; layout takes at most 2"),
        ("layout", {}, r"layout needs a layout; give one \(--layout\)"),
        ("map", {"map": ids(4)}, r"the map has the id 4; this model has 4 map classes, 0\.\.3"),
        ("map", {"map": photo()}, "a picture of mode RGB came"),
        ("map", {"map": ids(1, (15, 16))}, "size 15x16 does not fit"),
        ("map", {"map": [ids(1), ids(1, (16, 32))]}, "maps of different sizes"),
        (
            "low-res",
            {"low_res": photo(0, (7, 9))},
            "of 7x9 does not fit: its sides must be multiples of 2; cut it to 6x8",
        ),
        ("plain", {"image": photo(0, (15, 16))}, r"the nearest that fits is 16x16 \(--size scales and cuts"),
        ("low-res", {"low_res": photo(0, (8, 8)), "size": 32}, "asks for a size of 16x16 and 32x32 is drawn"),
        ("inpaint", {"image": photo()}, "inpaint paints where a mask says so"),
        ("inpaint", {"mask": hole()}, "give the picture as well"),
        ("inpaint", {"image": photo(), "mask": hole((8, 16))}, "the mask is 8x16 and the picture 16x16"),
        (
            "inpaint",
            {"image": [photo(), photo()], "mask": [hole(), hole((8, 16))], "size": 16},
            "the mask is 8x16 and the picture 16x16",
        ),
        ("inpaint", {"image": photo(), "mask": hole((8, 16)), "size": 16}, "the mask is 8x16 and the picture 16x16"),
        ("plain", {"image": photo(0, (1600, 1600))}, "1600x1600 is too large for a model of 16x16 to draw as a whole"),
        ("plain", {"map": ids()}, "plain takes no semantic map; it is unconditional"),
        ("plain", {"layout": STAR}, "plain takes no layout"),
        ("plain", {"low_res": photo()}, "plain takes no low-resolution picture"),
        ("plain", {"strength": 0.5}, "strength is about a picture to begin with"),
        ("plain", {"image": photo(), "mask": hole(), "strength": 0.5}, "does not go with a mask"),
        ("plain", {"image": photo(), "strength": 1.5}, "strength"),
        ("plain", {"image": "no-such.png"}, "no-such.png: no such picture"),
        ("text-map", {}, "needs a prompt; it is steered by a prompt and a semantic map; give one"),
        ("text-map", {"image": photo(), "mask": hole()}, "text-map needs a prompt"),
        ("plain", {"guide": Image.new("RGB", (0, 0))}, "a picture of 0x0 pixels came"),
        ("plain", {"size": (4096, 4096), "window": 4}, "would be drawn in some 4190209 of them, and at most 65536 are"),
        ("text-map", {"map": ids(), "guidance": {"label": 2.0}}, "guidance of 'label' does not fit"),
        ("text-map", {"prompt": ["a", "b", "c"], "map": [ids(), ids()]}, "3 prompts, 2 maps came"),
        ("class", {"label": 1, "guide": "no-such.png"}, "no such picture"),
        ("plain", {"size": (2**13, 2**14), "window": 16}, "pictures have at most 67 million pixels"),
    ],
)
def test_what_does_not_fit_is_one_sentence(small: Small, name: str, fields: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        small(name).sample(**fields)


def test_a_picture_made_from_pictures_says_so_and_repeats(small: Small) -> None:
    model = small("map")
    (drawn,) = model.sample(map=ids(2), seed=4, steps=5)
    assert '"pictures": {"map": "' in drawn.info["darkroom"]
    with pytest.raises(InputError, match="made with a picture as map"):
        model.sample(like=drawn)
    (again,) = model.sample(like=drawn, map=ids(2))
    assert np.array_equal(np.asarray(again), np.asarray(drawn))
    (boxes,) = small("layout").sample(layout=STAR, seed=4)
    (twice,) = small("layout").sample(like=boxes)
    assert np.array_equal(np.asarray(boxes), np.asarray(twice))


def test_a_missing_key_of_an_object_is_named(small: Small) -> None:
    with pytest.raises(SpecError, match="'category' is missing"):
        small("layout").condition(objects=[[{"categry": 1, "box": [0, 0, 1, 1]}]])


def test_pictures_are_read_as_those_trained_on(tmp_path: Path) -> None:
    """Transparent parts are white, 16 bits are scaled to 8, and garbled EXIF turns nothing."""
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert input_picture(clear).pixels(3).unique().tolist() == [1.0]
    deep = Image.fromarray(np.full((16, 16), 32768, np.uint16))
    assert abs(float(input_picture(deep).pixels(1).mean())) < 0.01
    photo().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00not a header at all")
    assert input_picture(tmp_path / "a.jpg").size == (16, 16)


def test_palettes_tell_pictures_apart() -> None:
    one, other = (ids(1).convert("P") for _ in range(2))
    other.putpalette([255 - value for value in other.getpalette() or []])
    assert input_picture(one) == input_picture(one.copy())
    assert input_picture(one) != input_picture(other)


def test_a_program_is_never_started_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n")
    with pytest.raises(InputError, match="not a readable picture"):
        input_picture(tmp_path / "a.png")


def test_guides_of_any_size(small: Small) -> None:
    drawn = small("plain").sample(guide=[photo(0, (4, 4)), photo(1, (9, 20))], steps=3)
    assert len(drawn) == 2


def test_how_much_was_left_open_is_noted(small: Small) -> None:
    (drawn,) = small("plain").sample(image=photo(), steps=3)
    assert '"strength": 0.6' in drawn.info["darkroom"]

"""Pictures of every kind become upright RGB; broken ones are found before or named when met."""

from pathlib import Path

import numpy as np
import pytest
from picture_folders import fill, picture
from PIL import Image

from darkroom.core.errors import DataError
from darkroom.data.decode import check, decode, decode_map
from darkroom.data.sources import open_data
from darkroom.tasks.input_picture import input_picture


def saved(path: Path, image: Image.Image, *, exif: Image.Exif | None = None) -> Path:
    image.save(path, **({} if exif is None else {"exif": exif}))
    return path


def levels(path: Path) -> np.ndarray:
    decoded = decode(path)
    assert decoded.mode == "RGB"
    return np.array(decoded)


def test_orientation_is_applied_and_known_from_the_header(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.new("RGB", (30, 20), (255, 0, 0))
    path = saved(tmp_path / "a.jpg", upright, exif=exif)
    assert check(path) == decode(path).size == (20, 30)


def test_transparency_lies_on_white(tmp_path: Path):
    clear = np.zeros((10, 10, 4), np.uint8)
    clear[:, 5:] = (255, 0, 0, 255)
    path = saved(tmp_path / "a.png", Image.fromarray(clear))
    assert (levels(path)[0, 0] == 255).all()
    assert tuple(levels(path)[0, 9]) == (255, 0, 0)
    assert decode(path, alpha=True).mode == "RGBA"
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.info["transparency"] = 0
    palette.save(tmp_path / "p.png", transparency=0)
    assert (levels(tmp_path / "p.png") == 255).all()
    grey = saved(tmp_path / "la.png", Image.new("LA", (10, 10), (100, 0)))
    assert (levels(grey) == 255).all()


def test_sixteen_bits_keep_their_range(tmp_path: Path):
    deep = np.linspace(0, 65535, 100).reshape(10, 10).astype(np.uint16)
    path = saved(tmp_path / "deep.png", Image.fromarray(deep))
    assert np.abs(levels(path)[..., 0].astype(int) - deep / 257).max() <= 1
    path = saved(tmp_path / "deep.tif", Image.fromarray((deep / 65535).astype(np.float32)))
    assert np.abs(levels(path)[..., 0].astype(int) - deep / 257).max() <= 1


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "jpg"), ("P", "gif"), ("1", "png"), ("L", "webp"), ("P", "png")])
def test_other_modes(tmp_path: Path, mode: str, suffix: str):
    path = saved(tmp_path / f"a.{suffix}", Image.new("RGB", (12, 12), (255, 255, 255)).convert(mode))
    assert check(path) == (12, 12)
    assert levels(path).min() >= 250


def test_broken_pictures_are_skipped_with_reasons(tmp_path: Path):
    fill(tmp_path, [f"{number}.png" for number in range(6)])
    whole = (tmp_path / "0.png").read_bytes()
    picture(0, size=(64, 64)).save(tmp_path / "whole.jpg")
    jpeg = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "trailer.jpg").write_bytes(jpeg + b"\0" * 10_000)
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "misnamed.jpg").write_bytes(whole)
    picture(1, size=(3, 90)).save(tmp_path / "tiny.png")
    train, test = open_data(tmp_path)
    reasons = dict((*train.left_out, *test.left_out))
    assert set(reasons) == {"cut.png", "cut.jpg", "empty.png", "text.jpg", "tiny.png"}
    assert reasons["cut.jpg"] == reasons["cut.png"] == "truncated"
    assert reasons["empty.png"] == "empty file"
    assert reasons["text.jpg"] == "not a picture but text"
    assert "3 x 90" in reasons["tiny.png"]
    assert len(train) + len(test) == 9
    assert not test.left_out  # each is told once


def test_a_picture_broken_inside_is_named_when_met(tmp_path: Path):
    fill(tmp_path, ["a.png"], size=(64, 64))
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[200:6000] = bytes(5800)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png: the picture cannot be decoded"):
        decode(tmp_path / "a.png")


def test_names_that_are_not_utf8(tmp_path: Path):
    fill(tmp_path, ["a.png", "b.png"])
    strange = Path(str(tmp_path) + "/caf\udce9.png")
    try:
        picture(3).save(strange)
    except (OSError, UnicodeError):
        pytest.skip("this file system keeps only UTF-8 names")
    train, test = open_data(tmp_path)
    names = {source.example(row).name for source in (train, test) for row in range(len(source))}
    assert names == {"a.png", "b.png", "caf\\xe9.png"}
    train.fingerprint()


def test_maps_are_ids(tmp_path: Path):
    deep = np.full((9, 9), 300, np.uint16)
    assert decode_map(saved(tmp_path / "m.png", Image.fromarray(deep))).max() == 300
    colours = saved(tmp_path / "c.png", picture(0))
    with pytest.raises(DataError, match="one class id per pixel"):
        decode_map(colours)
    grey = picture(1, mode="L")
    for mode in ("LA", "RGB", "RGBA"):  # as some programs save any picture
        place = saved(tmp_path / f"{mode}.png", grey.convert(mode))
        assert np.array_equal(decode_map(place), np.array(grey))
        assert np.array_equal(input_picture(place).ids((20, 24))[0].numpy(), np.array(grey))
    thin = grey.convert("LA")
    thin.putpixel((0, 0), (0, 128))
    with pytest.raises(DataError, match="one class id per pixel"):
        decode_map(saved(tmp_path / "thin.png", thin))
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_map(tmp_path / "x.png")

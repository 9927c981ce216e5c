"""A first stage alone: what is opened, and pictures of any size through it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.autoencoder.model import Autoencoder
from darkroom.core.compute import Compute
from darkroom.core.errors import DataError, InputError, ModelFileError
from darkroom.core.pictures import as_saved, to_pictures
from darkroom.tasks import first_stage as room
from darkroom.tasks.first_stage import open_first_stage, padded, reconstruct_file, through
from darkroom.tasks.parts import load_autoencoder

CPU = Compute(torch.device("cpu"))


@pytest.fixture(scope="module")
def model(model_files: dict[str, Path]) -> Autoencoder:
    """f = 2, three channels."""
    return load_autoencoder(model_files["first-stage"], device="cpu")


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("kind", "name", "size"), [("plain", "plain", 16), ("first-stage", "first-stage", None), ("text", "text", 16)]
)
def test_what_is_opened(model_files: dict[str, Path], kind: str, *, name: str, size: int | None) -> None:
    opened = open_first_stage(model_files[kind], compute=CPU)
    assert (opened.name, opened.size, opened.odd) == (name, size, ())
    assert not opened.model.training
    expected = load_autoencoder(model_files[kind], device="cpu").state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in opened.model.state_dict().items())


def test_names_and_sizes_of_runs(model_files: dict[str, Path], tmp_path: Path) -> None:
    from darkroom.checkpoint.store import load_model, save_model

    stored = load_model(model_files["first-stage"])
    path = tmp_path / "my-run" / "first_stage" / "model.safetensors"
    for size, expected in ((24, 24), ("big", None), (0, None)):
        stored = type(stored)(stored.kind, stored.spec, stored.state, {"data": {"size": size}})
        save_model(path, stored)
        opened = open_first_stage(tmp_path / "my-run", compute=CPU)
        assert (opened.name, opened.size) == ("my-run", expected)
    assert open_first_stage("emoji", compute=CPU).size == 64


def test_a_model_on_pixels_has_no_first_stage(model_files: dict[str, Path]) -> None:
    with pytest.raises(ModelFileError, match="works on pixels, it has no first stage"):
        open_first_stage(model_files["pixels"], compute=CPU)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 17), (1, 1), (1, 30), (3, 2)])
def test_any_size_comes_back_at_its_size(model: Autoencoder, height: int, width: int) -> None:
    images = noise(2, 3, height, width)
    made, indices = through(model, images, compute=CPU)
    assert made.shape == images.shape
    assert indices is None
    assert torch.equal(made, as_saved(made))


def test_multiples_of_the_factor_are_not_padded(model: Autoencoder) -> None:
    images = noise(2, 3, 8, 12)
    with torch.no_grad():
        expected = model.reconstruct(images).images
    assert torch.equal(through(model, images, compute=CPU)[0], as_saved(expected))
    assert padded(images, 4) is images


def test_the_rest_is_a_mirror() -> None:
    images = torch.arange(5.0).view(1, 1, 1, 5).expand(1, 1, 5, 5)
    found = padded(images, 4)
    assert found.shape == (1, 1, 8, 8)
    assert found[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert padded(images[..., :2], 8)[0, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]


def test_saved_levels() -> None:
    images = torch.tensor([-3.0, -1.0, -0.999, 0.0, 0.5, 1.0, 9.0]).view(1, 1, 1, 7)
    saved = as_saved(images)
    assert float(saved.min()) == -1
    assert float(saved.max()) == 1
    again = torch.from_numpy(np.array(to_pictures(images)[0]))
    torch.testing.assert_close(saved[0, 0], again.float() / 127.5 - 1)


@pytest.mark.parametrize("kind", ["L", "RGBA", "P", "CMYK", "I;16", "1", "LA", "F"])
def test_files_of_every_mode(model: Autoencoder, tmp_path: Path, kind: str) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (13, 21), dtype=np.uint8)
    if kind == "I;16":
        picture = Image.fromarray(levels.astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(levels).convert(kind)
    path = tmp_path / ("picture.tif" if kind in ("CMYK", "F") else "picture.png")
    picture.save(path)
    found = reconstruct_file(path, model, compute=CPU)
    assert (found.original.size, found.picture.size) == ((21, 13), (21, 13))
    assert found.picture.mode == "RGB"
    assert 0 < found.psnr < 100
    assert found.ssim is not None
    same = np.asarray(found.original, dtype=float) - np.asarray(found.picture, dtype=float)
    assert found.psnr == pytest.approx(10 * np.log10(255**2 / (same**2).mean()), abs=1e-3)


def test_a_picture_lies_as_its_camera_says(model: Autoencoder, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert reconstruct_file(tmp_path / "turned.jpg", model, compute=CPU).picture.size == (20, 30)


def test_size_resizes_the_shorter_side(model: Autoencoder, tmp_path: Path) -> None:
    Image.new("RGB", (60, 30)).save(tmp_path / "wide.png")
    assert reconstruct_file(tmp_path / "wide.png", model, compute=CPU, size=15).picture.size == (30, 15)
    tiny = reconstruct_file(tmp_path / "wide.png", model, compute=CPU, size=10)
    assert (tiny.picture.size, tiny.ssim) == ((20, 10), None)


def test_too_large_a_picture_is_refused_before_any_work(
    model: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (60, 30)).save(path)
    with pytest.raises(InputError, match="20000 x 10000 pixels are more than 2097152 together; --size 1024 or less"):
        reconstruct_file(path, model, compute=CPU, size=10000)
    monkeypatch.setattr(room, "LARGEST", 60 * 30 - 1)
    with pytest.raises(InputError, match="60 x 30 pixels are more"):
        reconstruct_file(path, model, compute=CPU)


def test_memory_that_does_not_suffice_is_a_sentence(
    model: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no")

    Image.new("RGB", (60, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(room, "through", full)
    with pytest.raises(InputError, match="need more memory than there is; use --size"):
        reconstruct_file(tmp_path / "a.png", model, compute=CPU)


def test_files_that_are_no_pictures(model: Autoencoder, tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    for name in ("cut", "text", "empty", "absent"):
        with pytest.raises(DataError, match=f"{name}.png: the picture cannot be decoded"):
            reconstruct_file(tmp_path / f"{name}.png", model, compute=CPU)


def test_channels_that_no_file_has(model: Autoencoder) -> None:
    odd = Autoencoder(model.spec.model_copy(update={"image_channels": 2}))
    with pytest.raises(InputError, match="pictures of 2 channels; files have 1, 3, 4"):
        room.check_channels(odd)

"""Perceptual and judging networks: who receives gradient, what they accept, and that they mind what people mind."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.pictures import from_bytes, open_picture, to_bytes
from darkroom.nn import feature_file
from darkroom.nn.feature_file import SHIPPED, fresh, load_features, save_features
from darkroom.nn.features import Judge, PerceptualDistance, judge, perceptual
from darkroom.nn.pyramids import PlainSpec, ResidualSpec
from darkroom.nn.taps import as_rgb, unit

Distance = Callable[[Tensor, Tensor], Tensor]
Degrade = Callable[[Tensor, Tensor], Tensor]  # pictures and a strength for each, (b, 1, 1, 1)
NAMES = ("small", "judge")


@pytest.fixture(scope="module")
def small() -> PerceptualDistance:
    return perceptual("small")


@pytest.fixture(scope="module")
def judging() -> Judge:
    return judge()


@pytest.fixture
def distances(small: PerceptualDistance, judging: Judge) -> dict[str, Distance]:
    return {"small": small, "judge": judging.distance}


@pytest.fixture
def pictures() -> Tensor:
    torch.manual_seed(0)
    return torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8) * 2 - 1, size=(32, 40), mode="bicubic").clamp(-1, 1)


@pytest.fixture(scope="module")
def photos(shared: Path) -> Tensor:
    """Thirty photographs that no network of ours has seen, 72 x 72."""
    folder = shared / "data" / "commons_photos_128" / "test"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/commons_photos_128 (photographs)")
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = lines[:: max(1, len(lines) // 30)][:30]
    return from_bytes(torch.stack([to_bytes(open_picture(folder / line["file_name"])) for line in chosen]))[
        ..., 28:100, 28:100
    ]


def test_gradient_reaches_the_images_alone(small: PerceptualDistance, pictures: Tensor) -> None:
    images, targets = pictures.clone().requires_grad_(), (pictures * 0.8).requires_grad_()
    small(images, targets).sum().backward()
    assert images.grad.abs().sum() > 0
    assert images.grad.isfinite().all()
    assert targets.grad is None
    assert not any(parameter.requires_grad for parameter in small.parameters())
    assert all(parameter.grad is None for parameter in small.parameters())


def test_flat_pictures_have_a_finite_gradient(small: PerceptualDistance) -> None:
    images = torch.zeros(1, 3, 16, 16, requires_grad=True)
    small(images, torch.ones(1, 3, 16, 16)).sum().backward()
    assert images.grad.isfinite().all()


def test_descending_the_distance_leads_to_the_target(small: PerceptualDistance, pictures: Tensor) -> None:
    torch.manual_seed(0)
    targets = pictures[:1]
    images = (targets + 0.3 * torch.randn_like(targets)).requires_grad_()
    optimizer = torch.optim.Adam([images], lr=0.03)
    values = []
    for _ in range(16):
        optimizer.zero_grad()
        values.append(small(images, targets).sum())
        values[-1].backward()
        optimizer.step()
    assert values[-1] < 0.4 * values[0]


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_distance(distances: dict[str, Distance], name: str, pictures: Tensor) -> None:
    distance, others = distances[name], pictures.flip(0)
    value = distance(pictures, others)
    assert value.shape == (4,)
    assert value.dtype == torch.float32
    assert (value > 0).all()
    assert torch.equal(distance(pictures, pictures), torch.zeros(4))
    torch.testing.assert_close(value, distance(others, pictures))
    torch.testing.assert_close(value[1:2], distance(pictures[1:2], others[1:2]), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_half_precision_around_it_leaves_a_float32_value(small: PerceptualDistance, pictures: Tensor) -> None:
    exact = small(pictures, pictures.flip(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = small(pictures, pictures.flip(0))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact, rtol=0.05, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 17, 31), (4, 33, 16), (3, 128, 96)])
def test_every_size_and_kind_of_picture(distances: dict[str, Distance], name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    images, others = torch.rand(2, 1, *shape) * 2 - 1
    assert (distances[name](images, others) > 0).all()


@pytest.mark.parametrize(("shape", "complaint"), [((3, 15, 40), "at least 16 x 16"), ((2, 32, 32), "2 channels")])
def test_pictures_that_cannot_be_compared(judging: Judge, shape: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        judging.features(torch.zeros(1, *shape))


def test_grey_is_repeated_and_what_is_transparent_does_not_count() -> None:
    grey = torch.rand(2, 1, 16, 16)
    assert torch.equal(as_rgb(grey), grey.expand(2, 3, 16, 16))
    colour, opacity = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    seen = as_rgb(torch.cat([colour, opacity * 2 - 1], 1))
    torch.testing.assert_close(seen, colour * opacity)
    assert as_rgb(torch.rand(1, 3, 16, 16).double()).dtype == torch.float32


def test_unit_features() -> None:
    features = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(unit(features, eps=5.0).flatten(), torch.tensor([0.3, 0.4]))


@torch.no_grad()
def test_pooled_features(judging: Judge, pictures: Tensor) -> None:
    features = judging.features(pictures)
    assert features.shape == (4, judging.width)
    assert 128 <= judging.width <= 256
    assert torch.equal(features, judging.network(pictures)[-1].mean((2, 3)))


@torch.no_grad()
def test_the_judge_is_not_the_trainer(small: PerceptualDistance, judging: Judge, pictures: Tensor) -> None:
    assert (small.name, judging.name) == ("small", "judge")
    assert small.hash != judging.hash
    assert type(small.network) is not type(judging.network)
    assert perceptual("small").hash == small.hash
    cards = [load_features(SHIPPED / f"{name}.safetensors").card for name in NAMES]
    assert cards[0]["task"] != cards[1]["task"]
    assert all(card["licence"] == "Apache-2.0" for card in cards)


def test_heads_are_not_negative(small: PerceptualDistance, judging: Judge) -> None:
    assert all((head >= 0).all() for head in (*small.heads, *judging.heads))


def _noise(pictures: Tensor, strength: Tensor) -> Tensor:
    torch.manual_seed(0)
    return pictures + strength * torch.randn_like(pictures)


def _blur(pictures: Tensor, strength: Tensor) -> Tensor:
    place = torch.arange(pictures.shape[2]).float()
    weights = torch.exp(-((place[None] - place[:, None]) ** 2) / (2 * strength**2 + 1e-6))
    weights = weights / weights.sum(-1, keepdim=True)
    return weights @ pictures @ weights.mT


def _cast(pictures: Tensor, strength: Tensor) -> Tensor:
    return pictures + strength * torch.tensor([0.8, -0.6, -0.2]).view(3, 1, 1)


def _shift(pictures: Tensor, strength: Tensor) -> Tensor:
    """A part of a pixel to the right, by the shift theorem."""
    wave = torch.exp(-2j * torch.pi * torch.fft.rfftfreq(pictures.shape[3]) * strength)
    return torch.fft.irfft(torch.fft.rfft(pictures) * wave, n=pictures.shape[3])


def inner(pictures: Tensor) -> Tensor:
    """Without the edge, where blur and shift have nothing to draw on."""
    return pictures[..., 4:-4, 4:-4]


def at(psnr: float, pictures: Tensor, degrade: Degrade) -> tuple[Tensor, Tensor]:
    """Inner pictures degraded to a PSNR, and which could be."""
    low, high = torch.zeros(len(pictures), 1, 1, 1), torch.full((len(pictures), 1, 1, 1), 3.0)
    for _ in range(10):
        middle = (low + high) / 2
        error = inner(degrade(pictures, middle) - pictures).square().mean((1, 2, 3), keepdim=True)
        weak = 10 * torch.log10(4 / error) > psnr
        low, high = torch.where(weak, middle, low), torch.where(weak, high, middle)
    return inner(degrade(pictures, high)), high.flatten() < 2.9


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("degrade", [_noise, _blur, _cast, _shift])
def test_the_distance_grows_with_strength(distances, name: str, degrade: Degrade, photos: Tensor) -> None:
    strengths = [torch.full((len(photos), 1, 1, 1), s) for s in (0.15, 0.3, 0.6)]
    levels = [distances[name](inner(degrade(photos, s)), inner(photos)) for s in strengths]
    grows = torch.stack([after > before for before, after in itertools.pairwise(levels)]).all(0)
    assert grows.float().mean() > 0.9


@pytest.fixture(scope="module")
def equally_bad(photos: Tensor) -> dict[Degrade, tuple[Tensor, Tensor]]:
    """The photographs at 26 dB in four ways."""
    return {each: at(26.0, photos, each) for each in (_shift, _cast, _noise, _blur)}


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_people_at_equal_psnr(distances, name: str, equally_bad, photos: Tensor) -> None:
    value = {each: distances[name](images, inner(photos)) for each, (images, _) in equally_bad.items()}
    for mild, bad in ((_shift, _noise), (_cast, _noise), (_noise, _blur), (_shift, _blur), (_cast, _blur)):
        fits = equally_bad[mild][1] & equally_bad[bad][1]
        share = (value[mild] < value[bad])[fits].float().mean()
        assert share > 0.75, f"{mild.__name__} < {bad.__name__}: {share:.2f}"


@pytest.mark.parametrize("spec", [PlainSpec(widths=(4, 8), depths=(1, 2)), ResidualSpec(stem=8, widths=(8, 16))])
def test_a_file_gives_back_what_was_written(tmp_path: Path, spec: PlainSpec | ResidualSpec) -> None:
    features = fresh("tiny", spec)
    found = load_features(save_features(tmp_path / "tiny.safetensors", features))
    assert (found.name, found.spec, found.card) == ("tiny", spec, {"steps": 0})
    for name, tensor in features.network.state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _foreign(path: Path) -> None:
    save_file({"a": torch.zeros(1)}, path)


def _of_another_spec(path: Path) -> None:
    tensors = {"a": torch.zeros(1)}
    spec = PlainSpec().model_dump_json()
    ours = {"format": "1", "kind": "features", "name": "small", "spec": spec, "card": "{}"}
    save_file(tensors, path, metadata={f"darkroom.{key}": value for key, value in ours.items()})


@pytest.mark.parametrize("damage", [_truncated, _foreign, _of_another_spec, Path.unlink])
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage) -> None:
    path = save_features(tmp_path / "small.safetensors", fresh("small", PlainSpec()))
    damage(path)
    monkeypatch.setattr("darkroom.nn.features.SHIPPED", tmp_path)
    with pytest.raises(ModelFileError, match=r"small\.safetensors.*install the package again"):
        perceptual("small")


def test_files_stay_small() -> None:
    assert all((feature_file.SHIPPED / f"{name}.safetensors").stat().st_size < 1_500_000 for name in NAMES)

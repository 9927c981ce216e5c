"""LPIPS: its arithmetic against a second computation in float64, and where its weights come from."""

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.fetch import PublishedFile
from darkroom.nn import vgg
from darkroom.nn.features import perceptual

WIDTHS = ((8, 8), (8, 12), (12, 12, 12), (16, 16, 16), (16, 16, 16))  # the published ones are far too wide for a test
STACK = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # places of convolutions in the published file


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random weights under the published names."""
    torch.manual_seed(0)
    monkeypatch.setattr(vgg, "_WIDTHS", WIDTHS)
    stack, channels = {}, 3
    for places, widths in zip(STACK, WIDTHS, strict=True):
        for place, width in zip(places, widths, strict=True):
            stack[f"features.{place}.weight"] = torch.randn(width, channels, 3, 3) / (2 * channels) ** 0.5 / 2
            stack[f"features.{place}.bias"] = torch.randn(width) * 0.1
            channels = width
    stack["classifier.0.weight"] = torch.randn(4, 4)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, widths[-1], 1, 1) for i, widths in enumerate(WIDTHS)}
    return stack, heads


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, an empty torch hub, and no network."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for name in ("VGG16", "HEADS"):
        file = getattr(vgg, name).url.rpartition("/")[2]
        monkeypatch.setattr(vgg, name, PublishedFile(f"http://127.0.0.1:9/{file}", "sha256:00", 1000))
    folder = tmp_path / "cache" / "lpips"
    folder.mkdir(parents=True)
    return folder


def lpips(images: Tensor, targets: Tensor, weights: tuple[dict, dict]) -> Tensor:
    """LPIPS written down once more, in float64."""
    stack, heads = ({name: value.double() for name, value in each.items()} for each in weights)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    both = (torch.cat([images, targets]).double() - shift.double().view(3, 1, 1)) / scale.double().view(3, 1, 1)
    total = torch.zeros(len(images), dtype=torch.float64)
    for level, places in enumerate(STACK):
        if level:
            both = F.max_pool2d(both, 2)
        for place in places:
            both = F.conv2d(both, stack[f"features.{place}.weight"], stack[f"features.{place}.bias"], padding=1).relu()
        normed = both / (both.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
        a, b = normed.chunk(2)
        total += F.conv2d((a - b).pow(2), heads[f"lin{level}.model.1.weight"]).mean((1, 2, 3))
    return total


def test_the_arithmetic_is_that_of_lpips(published, cache: Path) -> None:
    torch.save(published[0], cache / "vgg16-397923af.pth")
    torch.save(published[1], cache / "vgg.pth")
    distance = perceptual("lpips")
    images, targets = torch.rand(2, 3, 3, 32, 40) * 2 - 1
    expected = lpips(images, targets, published)
    torch.testing.assert_close(distance(images, targets).double(), expected, rtol=1e-4, atol=1e-6)
    assert distance.name == "lpips"
    assert len(distance.hash) == 12
    asked = images.clone().requires_grad_()
    distance(asked, targets).sum().backward()
    assert asked.grad.isfinite().all()


def test_torch_hubs_file_serves_as_well(published, cache: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    torch.save(published[0], hub / "vgg16-397923af.pth")
    torch.save(published[1], cache / "vgg.pth")
    assert perceptual("lpips")(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)).item() == 0


def test_it_is_fetched_and_checked(published, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, weights in (("VGG16", published[0]), ("HEADS", published[1])):
        path = tmp_path / cache.name / getattr(vgg, name).url.rpartition("/")[2]
        path.parent.mkdir(exist_ok=True)
        torch.save(weights, path)
        digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        monkeypatch.setattr(vgg, name, PublishedFile(path.as_uri(), digest, 10**7))
    perceptual("lpips")
    assert sorted(path.name for path in cache.iterdir()) == ["vgg.pth", "vgg16-397923af.pth"]


def test_without_a_network_one_sentence_says_what_to_do(cache: Path) -> None:
    with pytest.raises(InputError, match=r"vgg16-397923af\.pth") as caught:
        perceptual("lpips")
    sentence = str(caught.value)
    assert str(cache / "vgg16-397923af.pth") in sentence
    assert "perceptual: small" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("broken", ["vgg16-397923af.pth", "vgg.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights", "other", "order"])
def test_a_broken_file_is_named(published, cache: Path, broken: str, content: bytes | str) -> None:
    torch.save(published[0], cache / "vgg16-397923af.pth")
    torch.save(published[1], cache / "vgg.pth")
    if content == "order":  # of bytes: torch has a ValueError for it, and a dozen other kinds of errors
        path = cache / broken
        path.write_bytes(path.read_bytes().replace(b"little", b"liddle"))
    elif isinstance(content, str):
        torch.save({"features.0.weight": torch.zeros(1)}, cache / broken)
    else:
        (cache / broken).write_bytes(content)
    with pytest.raises(ModelFileError, match=broken.replace(".", r"\.")):
        perceptual("lpips")

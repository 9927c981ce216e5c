"""Feature networks from names, files and folders, and what pictures pass before them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from miniature_clip import clip
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from darkroom.core.compute import Compute, sampling_compute
from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.fetch import PublishedFile
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.evaluate import networks
from darkroom.evaluate.networks import EncoderEye, Preparation, open_network, open_networks
from darkroom.metrics.extractors import FeatureNetwork
from darkroom.nn.inception import Inception

CPU = sampling_compute("cpu")


@pytest.fixture(scope="module")
def table() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: value for name, value in Inception().state_dict().items() if "num_batches" not in name}


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, an empty torch hub, and no network."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(networks, "PUBLISHED", PublishedFile("http://127.0.0.1:9/inception.pth", "sha256:00", 10**9))
    return tmp_path / "cache" / "inception" / "inception.pth"


def pictures(count: int = 3, side: int = 32) -> Tensor:
    draw = torch.Generator().manual_seed(2)
    return from_bytes(torch.randint(0, 256, (count, 3, side, side), generator=draw, dtype=torch.uint8))


def test_the_judge_is_there_always() -> None:
    found, odd = open_network("judge", CPU)
    assert isinstance(found, FeatureNetwork)
    assert (found.name, odd) == ("judge", ())
    assert found.look(pictures())["features"].shape == (3, 160)


def test_without_a_network_one_sentence_says_what_to_do(nowhere: Path) -> None:
    with pytest.raises(InputError, match=r"--features inception needs a file that is not here") as caught:
        open_network("inception", CPU)
    assert str(nowhere) in str(caught.value)
    assert "--features judge" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_published_weights_are_checked(
    nowhere: Path, table: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere.parent.mkdir(parents=True)
    torch.save(table, nowhere)
    with pytest.raises(ModelFileError, match="not the published weights"):
        open_network("inception", CPU)
    _, odd = open_network(str(nowhere), CPU)  # as a file of one's own it is taken, and that is said
    assert "does not have the checksum" in odd[0]
    digest = f"sha256:{hashlib.sha256(nowhere.read_bytes()).hexdigest()[:8]}"
    monkeypatch.setattr(networks, "PUBLISHED", PublishedFile("http://127.0.0.1:9/inception.pth", digest, 10**9))
    found, odd = open_network("inception", CPU)
    assert odd == ()
    assert open_network(str(nowhere), CPU)[1] == ()
    looked = found.look(pictures(1))
    assert (looked["features"].shape, looked["logits"].shape) == ((1, 2048), (1, 1008))
    assert found.preprocessing["size"] == 299


def test_a_file_is_read_and_never_executed(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "called",)

    torch.save({"fc.weight": Call()}, tmp_path / "bad.pth")
    with pytest.raises(ModelFileError):
        open_network(str(tmp_path / "bad.pth"), CPU)
    assert not (tmp_path / "called").exists()
    with pytest.raises(InputError, match="did you mean 'inception'"):
        open_network("inceptoin", CPU)


def test_a_folder_of_clip(tmp_path: Path) -> None:
    found, _ = open_network(str(clip(tmp_path / "clip")), CPU)
    assert isinstance(found, EncoderEye)
    assert found.name == "clip"
    features = -found.look(pictures())["features"]  # so that these random ones lie on the side of the words
    assert features.shape == (3, 12)
    assert found.texts is not None
    scores = found.texts.score(features, ["a red", "blue a red blue a red blue", ""])
    assert ((scores > 0) & (scores <= 100)).all()
    assert found.texts.score(-features, ["a red"] * 3).tolist() == [0, 0, 0]
    alone = [
        float(found.texts.score(features[i : i + 1], [said]))
        for i, said in enumerate(["a red", "blue a red blue a red blue", ""])
    ]
    assert scores.tolist() == pytest.approx(alone, rel=1e-5)  # whatever else is in the batch
    assert scores.tolist() != pytest.approx(found.texts.score(features, ["blue"] * 3).tolist())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"crop_size": 16}, "cut to 16 pixels, the model takes 32"),
        ({"resample": 1}, "'filter'"),
        ({"resample": [3]}, "'filter'"),
        ({"size": "large"}, "'size'"),
        ({"image_std": [1, 0]}, "'deviation"),
    ],
)
def test_preprocessing_that_is_not_understood(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = clip(tmp_path / "clip") / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelFileError, match=sentence):
        open_network(str(tmp_path / "clip"), CPU)


def test_pictures_are_prepared_as_pillow_does() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8))
    preparation = Preparation(size=40, crop=32, filter="bicubic")
    resized = np.asarray(picture.resize((40, 40), Image.Resampling.BICUBIC)).astype(float)[4:36, 4:36] / 255
    expected = (resized - preparation.mean) / preparation.deviation
    found = preparation.of(to_bytes(picture)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 1.01 / 255 / min(preparation.deviation)


def test_pictures_are_prepared_on_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere eight bits cannot be resized: what goes to the device is ready for the network."""
    placed: list[tuple[torch.dtype, int]] = []
    place = Compute.place

    def noted(self: Compute, tensor: Tensor) -> Tensor:
        placed.append((tensor.dtype, tensor.shape[-1]))
        return place(self, tensor)

    network, _ = open_network(str(clip(tmp_path / "clip")), CPU)
    monkeypatch.setattr(Compute, "place", noted)
    network.look(pictures(side=48))
    assert placed == [(torch.float32, network.preprocessing["crop"])]


def test_networks_come_once_and_are_told_apart(tmp_path: Path) -> None:
    """Figures are called by the names of networks, and two folders may hold the same, or two of a kind."""
    first, same, other = (clip(tmp_path / name) for name in ("first", "same", "other"))
    weights = load_file(other / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, other / "model.safetensors")
    found, odd = open_networks([str(each) for each in (first, same, other, first)] + ["judge"], CPU)
    assert [each.name.partition("-")[0] for each in found] == ["clip", "clip", "judge"]
    assert found[0].name == "clip"
    assert found[1].name == f"clip-{found[1].hash}"
    assert odd == ()

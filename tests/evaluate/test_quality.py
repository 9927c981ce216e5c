"""Sets of pictures to a card: figures against float64 of scipy and numpy, and what the card says."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measured import CornerJudge
from miniature_clip import clip
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from torch import Tensor

from darkroom.core.compute import sampling_compute
from darkroom.core.errors import InputError
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.data.sources import ShapesSource, Subset
from darkroom.data.transforms import TransformSpec, still
from darkroom.evaluate import quality as room
from darkroom.evaluate.card import Card
from darkroom.evaluate.lots import Asking, Drawn, OfSource
from darkroom.evaluate.networks import open_network
from darkroom.evaluate.quality import Measuring, Pairs, measure
from darkroom.tasks.load import load
from darkroom.tasks.model import Model

CPU = sampling_compute("cpu")
TRANSFORM = TransformSpec(size=32)


class Corners:
    """Twelve features, and logits of five classes made of them."""

    name, hash = "corners", "c0ffee"
    preprocessing: Mapping[str, Any] = {"size": "as they are"}

    def __init__(self) -> None:
        self.shown = 0

    def look(self, images: Tensor) -> dict[str, Tensor]:
        self.shown += len(images)
        features = torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return {"features": features, "logits": 9 * features[:, :5]}


def lot(seed: int, count: int) -> OfSource:
    return OfSource(ShapesSource(seed, side=40, count=count), TRANSFORM)


def work(folder: Path, made: Any, real: OfSource, **others: Any) -> Measuring:
    given = {"subject": {"kind": "pictures", "name": "made"}, "networks": [Corners()], "compute": CPU, **others}
    return Measuring(made=made, real=real, folder=folder, **given)


def features(lot: OfSource) -> np.ndarray:
    """Once more, picture by picture."""
    found = []
    for row in range(len(lot)):
        picture = from_bytes(still(lot.source.example(row).picture, TRANSFORM)[None])
        found.append(torch.nn.functional.adaptive_avg_pool2d(picture, 2).flatten().numpy())
    return np.stack(found).astype(np.float64)


def values(card: Card) -> dict[str, float]:
    return {each.measure: each.value for each in card.figures}


def test_figures_are_those_of_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.evaluate.seen.FILE", 16)  # several files
    made, real = lot(1, 45), lot(2, 60)
    found = values(measure(work(tmp_path, made, real)))
    a, b = features(made), features(real)
    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    distance = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(one + other - 2 * np.real(sqrtm(one @ other)))
    assert found["Fréchet distance"] == pytest.approx(distance, rel=1e-6)
    kernels = [(x @ y.T / 12 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
    within = [(each.sum() - np.trace(each)) / (len(each) * (len(each) - 1)) for each in kernels[:2]]
    assert found["kernel distance"] == pytest.approx(sum(within) - 2 * kernels[2].mean(), rel=1e-6)
    reach = [np.sort(cdist(x, x), axis=1)[:, 3] for x in (b, a)]
    assert found["precision"] == (cdist(a, b) <= reach[0]).any(1).mean()
    assert found["recall"] == (cdist(b, a) <= reach[1]).any(1).mean()
    logits = 9 * a[:, :5]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gain = (shares * np.log(shares / shares.mean(0))).sum(1).mean()
    assert found["inception score"] == pytest.approx(math.exp(gain), rel=1e-6)


def test_the_card_says_what_figures_depend_on(tmp_path: Path) -> None:
    card = measure(work(tmp_path, lot(1, 20), lot(2, 30), split="test"))
    protocol = card.protocol
    assert (protocol.kind, protocol.count, protocol.sampling) == ("set", 20, None)
    assert protocol.reference is not None
    assert (protocol.reference.name, protocol.reference.split, protocol.reference.pictures) == ("shapes", "test", 30)
    assert protocol.networks[0].plain() == {
        "name": "corners",
        "hash": "c0ffee",
        "preprocessing": {"size": "as they are"},
    }
    assert protocol.pictures["size"] == 32
    other = measure(work(tmp_path, lot(1, 20), lot(3, 30), split="test")).protocol.reference
    assert other is not None
    assert other.hash != protocol.reference.hash
    assert all(each.low is not None and each.low <= each.value <= (each.high or 0) for each in card.figures)
    assert any("biased upwards" in note for note in card.notes)
    assert not any("cannot be known" in note for note in card.notes)
    few = measure(work(tmp_path, lot(1, 10), lot(2, 30)))
    assert any("12 features cannot be known from 10 pictures" in note for note in few.notes)


def test_nothing_is_looked_at_twice_and_changed_files_are(tmp_path: Path) -> None:
    network = Corners()
    whole = measure(work(tmp_path, lot(1, 20), lot(2, 30), networks=[network]))
    assert network.shown == 50
    again = measure(work(tmp_path, lot(1, 20), lot(2, 30), networks=[network]))
    assert network.shown == 50
    assert again.model_copy(update={"time": {}}) == whole.model_copy(update={"time": {}})
    measure(work(tmp_path, lot(4, 20), lot(2, 30), networks=[network]))
    assert network.shown == 70


def test_sets_that_are_too_small(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 made pictures came; sets of 2"):
        measure(work(tmp_path, lot(1, 1), lot(2, 30)))
    names = values(measure(work(tmp_path, lot(1, 3), lot(2, 30)))).keys()
    assert names == {"Fréchet distance", "kernel distance", "inception score"}


def test_another_protocol_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    network = Corners()
    card = measure(work(tmp_path, lot(1, 20), lot(2, 30)))
    with pytest.raises(InputError, match=r"old\.json.*count \(25 here, 20 there\)"):
        measure(work(tmp_path, lot(1, 25), lot(2, 30), networks=[network], against=(card, "old.json")))
    assert network.shown == 0


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: load(name, device="cpu") for name in ("shapes", "shapes-superres")}


def test_what_a_model_draws_is_kept_in_order(models: dict[str, Model], tmp_path: Path) -> None:
    model, source = models["shapes"], ShapesSource(3, count=7)
    asking = Asking(model, {"seed": 5, "steps": 1}, count=7, source=source)
    drawn = Drawn.of(asking, folder=tmp_path, batch=3)
    drawn.draw(lambda done, total: None)
    alone = model.sample([source.caption(row) or "" for row in range(7)], seed=5, steps=1)
    apart = drawn.pictures(range(7)).int() - torch.stack([to_bytes(each) for each in alone]).int()
    assert apart.abs().max() <= 2  # other batches
    assert torch.equal(drawn.pictures(range(4, 6)), drawn.pictures(range(7))[4:6])
    files = sorted(tmp_path.glob("samples-*/*.safetensors"))
    assert len(files) == 3
    before = [path.stat().st_mtime_ns for path in files]
    again = Drawn.of(asking, folder=tmp_path, batch=2)  # as it was begun
    again.draw(lambda done, total: None)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("samples-*/*.safetensors"))] == before
    kept = drawn.pictures(range(7))
    files[1].unlink()
    again = Drawn.of(asking, folder=tmp_path, batch=2)
    again.draw(lambda done, total: None)
    assert torch.equal(again.pictures(range(7)), kept)  # drawn together with the same ones, so to the last bit
    for path in files:
        path.unlink()
    few = Drawn.of(asking, folder=tmp_path, batch=4)  # nothing is there: it may be that three were too many
    few.draw(lambda done, total: None)
    assert len(list(tmp_path.glob("samples-*/*.safetensors"))) == 2
    other = Drawn.of(Asking(model, {"seed": 6, "steps": 1}, count=7, source=source), folder=tmp_path, batch=3)
    assert other.key() != drawn.key()


def test_rows_ask_in_turn_and_keep_their_number(models: dict[str, Model]) -> None:
    source = ShapesSource(5, side=32, count=4)
    asking = Asking(models["shapes"], {"seed": 0}, count=6, source=source)
    assert asking.rows == (0, 1, 2, 3, 0, 1)
    request = asking.request(range(3, 6))
    assert request.prompts == tuple(source.caption(row) for row in (3, 0, 1))
    assert [wish.index for wish in request.wishes()] == [3, 4, 5]
    few = Asking(models["shapes"], {"seed": 0}, count=2, source=source)
    assert list(few.rows) == sorted(set(few.rows))


def test_pairs_and_scenes_that_are_read_back(
    models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ShapesSource(5, count=12)
    transform = TransformSpec(size=64)
    scenes = OfSource(source, transform)
    for name, expected in (
        ("shapes", {"caption obeyed": 1.0}),
        ("shapes-superres", {"PSNR (dB)": 100.0, "SSIM": 1.0}),
    ):
        asking = Asking(models[name], {"seed": 0, "steps": 1}, count=12, source=source)
        monkeypatch.setattr(room, "Drawn", type("Never", (), {}))
        given = work(tmp_path / name, scenes, scenes, pairs=Pairs(asking, CornerJudge()))
        found = values(measure(given))
        assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-4)
        if name == "shapes":
            moved = OfSource(Subset(source, (*range(1, 12), 0)), transform)
            assert values(measure(work(tmp_path / name, moved, scenes, pairs=given.pairs)))["caption obeyed"] < 0.5


def test_words_are_scored_where_the_network_knows_them(models: dict[str, Model], tmp_path: Path) -> None:
    network, _ = open_network(str(clip(tmp_path / "clip")), CPU)
    source = ShapesSource(5, count=12)
    scenes = OfSource(source, TransformSpec(size=64))
    asking = Asking(models["shapes"], {"seed": 0, "steps": 1}, count=12, source=source)
    asked = measure(work(tmp_path, scenes, scenes, networks=[network], pairs=Pairs(asking, CornerJudge())))
    scored = next(each for each in asked.figures if each.measure == "CLIP score")
    assert (scored.network, scored.count) == ("clip", 12)
    looked = network.look(from_bytes(scenes.pictures(range(12))))["features"]
    assert scored.value == pytest.approx(float(network.texts.score(looked, asking.captions or []).mean()), rel=1e-4)
    assert "CLIP score" not in values(measure(work(tmp_path, scenes, scenes, networks=[network])))

"""Does a model do what it is steered to: figures of answers that are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measured import CornerJudge
from PIL import Image

from darkroom.core.errors import DataError, InputError
from darkroom.data.examples import Source
from darkroom.data.sources import Joined, ShapesSource, open_data
from darkroom.evaluate import drawing as room
from darkroom.evaluate.conditions import evaluate_conditions, mean_iou
from darkroom.metrics.agreement import read_map
from darkroom.metrics.fill import mean_fill, telea_fill
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run
from darkroom.tasks.generate import Sampled
from darkroom.tasks.held_out import Spoiling, spoiling_of
from darkroom.tasks.load import load
from darkroom.tasks.model import Model

SMALL = (
    "data.count=8",
    "data.size=64",
    "first_stage.train.steps=2",
    "first_stage.train.batch=4",
    "first_stage.train.warmup=1",
    "denoiser.train.steps=2",
    "denoiser.train.batch=4",
    "denoiser.train.warmup=1",
    "denoiser.sample.count=1",
    "denoiser.sample.steps=2",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("conditions")
    found: dict[str, Model] = {}
    for name in ("tiny-text", "tiny-class", "tiny-layout", "tiny-semantic", "tiny-superres", "tiny-inpaint"):
        list(Run(recipe(name, overrides=SMALL), folder / name, device="cpu").develop(page=False))
        found[name] = load(folder / name, device="cpu")
    return found


def measured(
    model: Model,
    source: ShapesSource,
    monkeypatch: pytest.MonkeyPatch,
    *,
    perfect: bool,
    spoiling: Spoiling = Spoiling(),  # noqa: B008  (a frozen value)
) -> dict[str, Any]:
    """The report's figures when the model draws the scenes themselves (or one that is not asked for)."""

    def drawn(_model: Model, request: Any, **options: Any) -> Any:
        for row in range(request.total):
            scene = source.example(row if perfect else (row + 1) % len(source))
            yield Sampled(scene.picture, row, {})

    monkeypatch.setattr(room, "generate", drawn)
    report = evaluate_conditions(model, source, spoiling=spoiling, judge=CornerJudge(), sample={"steps": 2})
    assert report.plain()["protocol"]["sample"]["steps"] == 2
    distances = any("Fréchet distance" in figures for figures in report.ways.values())
    assert [f"of {len(source)} pictures are biased upwards" in note for note in report.plain()["notes"]] == [
        True
    ] * distances
    return {name: dict(figures) for name, figures in report.ways.items()}


@pytest.mark.parametrize("name", ["tiny-class", "tiny-layout", "tiny-semantic"])
def test_scenes_are_read_back(name: str, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    source = ShapesSource(seed=5, count=12, kind="single" if name == "tiny-class" else "captioned")
    right = measured(models[name], source, monkeypatch, perfect=True)["read back"]
    wrong = measured(models[name], source, monkeypatch, perfect=False)["read back"]
    match name:
        case "tiny-class":
            assert right == {"class right": 1.0}
            assert wrong["class right"] < 0.5
        case "tiny-layout":
            assert right["category right"] == 1.0
            assert right["mean box IoU"] > 0.93
            assert wrong["category right"] < 0.5
            assert wrong["mean box IoU"] < 0.4
        case _:
            assert right["mean IoU of classes"] > 0.93
            assert wrong["mean IoU of classes"] < 0.5


def test_enlarging_is_compared_with_bicubic(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    source = ShapesSource(seed=5, count=6)
    found = measured(models["tiny-superres"], source, monkeypatch, perfect=True)
    assert found["model"]["PSNR (dB)"] == 100
    assert 20 < found["bicubic"]["PSNR (dB)"] < 35
    assert found["model"]["judge distance"] == 0
    assert found["model"]["low-res PSNR (dB)"] > found["bicubic"]["low-res PSNR (dB)"] - 1


def test_holes_are_compared_with_fills(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    source = ShapesSource(seed=5, count=6)
    found = measured(models["tiny-inpaint"], source, monkeypatch, perfect=True)
    assert found["model"]["known pixels identical"] == 1.0
    assert found["model"]["hole PSNR (dB)"] == pytest.approx(100)
    assert found["telea"]["PSNR (dB)"] > found["mean fill"]["PSNR (dB)"]
    wrong = measured(models["tiny-inpaint"], source, monkeypatch, perfect=False)
    assert wrong["model"]["known pixels identical"] < 0.05  # what is masked does not count


@pytest.mark.parametrize(("ink", "lacks"), [(0, "hole PSNR (dB)"), (255, "known pixels identical")])
def test_holes_of_nothing_and_of_all_have_no_figure_that_is_no_number(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, ink: int, lacks: str
) -> None:
    Image.new("L", (64, 64), ink).save(tmp_path / "mask.png")
    spoiling = spoiling_of(models["tiny-inpaint"], masks=tmp_path)
    found = measured(models["tiny-inpaint"], ShapesSource(5, count=2), monkeypatch, perfect=True, spoiling=spoiling)
    assert lacks not in found["model"]
    assert {"hole PSNR (dB)", "known pixels identical"} - {*found["model"]} == {lacks}
    assert np.isfinite([value for figures in found.values() for value in figures.values()]).all()


def test_a_real_model_answers(models: dict[str, Model]) -> None:
    source = ShapesSource(seed=5, count=3)
    for name in ("tiny-superres", "tiny-inpaint"):
        report = evaluate_conditions(
            models[name], source, spoiling=Spoiling(), judge=CornerJudge(), sample={"steps": 1}, batch=2
        )
        assert all(np.isfinite(value) for figures in report.ways.values() for value in figures.values())
    assert report.ways["model"]["known pixels identical"] == 1.0


def of_two_classes(folder: Path) -> Source:
    for label, number in [(label, number) for label in ("circle", "square") for number in range(8)]:
        (folder / label).mkdir(exist_ok=True)
        colour = (16 * number, 90, 200 if label == "circle" else 20)
        Image.new("RGB", (64, 64), colour).save(folder / label / f"{number}.png")
    return open_data(folder).train


def test_names_of_classes_are_captions_where_there_are_no_others(
    models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []

    def drawn(_model: Model, request: Any, **options: Any) -> Any:
        prompts.extend(request.prompts)
        yield from (Sampled(Image.new("RGB", (64, 64)), row, {}) for row in range(request.total))

    monkeypatch.setattr(room, "generate", drawn)
    source, model = of_two_classes(tmp_path), models["tiny-text"]
    evaluate_conditions(model, source, spoiling=Spoiling(), judge=CornerJudge(), sample={})
    assert prompts == [source.classes[source.label(row) or 0] for row in range(len(source))]
    assert model.card["data"]["caption_field"] == "caption"
    assert "caption_field" not in models["tiny-class"].card["data"]


def test_pictures_that_nobody_drew_are_compared_as_sets(models: dict[str, Model], tmp_path: Path) -> None:
    source = of_two_classes(tmp_path)
    report = evaluate_conditions(
        models["tiny-class"], source, spoiling=Spoiling(), judge=CornerJudge(), sample={"steps": 1}
    )
    figures = report.ways["model"]
    assert {*figures} == {"judge distance", "Fréchet distance", "kernel distance", "precision", "recall"}
    assert figures["Fréchet distance"] > 0
    assert figures["judge distance"] > 0


def test_what_scenes_do_not_say_is_named(models: dict[str, Model]) -> None:
    with pytest.raises(InputError, match=r"does not say the label .*; shapes:single has labels"):
        evaluate_conditions(
            models["tiny-class"], ShapesSource(count=3), spoiling=Spoiling(), judge=CornerJudge(), sample={}
        )


def test_one_picture_is_measured_by_itself(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    figures = measured(models["tiny-superres"], ShapesSource(seed=5, count=1), monkeypatch, perfect=True)["model"]
    assert "judge distance" in figures
    assert "Fréchet distance" not in figures


def test_a_map_beyond_the_classes_is_named_before_anything_is_drawn(models: dict[str, Model], tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (64, 64), (80 * number, 90, 90)).save(tmp_path / f"{number}.png")
        Image.new("L", (64, 64), 255 * number).save(tmp_path / f"map-{number}.png")
    lines = [f'{{"file_name": "{number}.png", "map_file_name": "map-{number}.png"}}\n' for number in range(2)]
    (tmp_path / "metadata.jsonl").write_text("".join(lines))
    source = Joined(*open_data(tmp_path))
    with pytest.raises(DataError, match=r"the map of 1\.png has the id 255; there are 9 classes"):
        evaluate_conditions(
            models["tiny-semantic"], source, spoiling=Spoiling(), judge=CornerJudge(), sample={"steps": 1}
        )


def test_maps_are_read_as_they_were_drawn() -> None:
    source = ShapesSource(seed=5, count=12)
    maps = np.stack([read_map(source.example(row).picture) for row in range(12)])
    wanted = np.stack([source.example(row).map for row in range(12)])
    assert mean_iou(maps, wanted, classes=9) > 0.93


def test_mean_iou_by_hand() -> None:
    found, wanted = np.array([[[0, 0, 1, 1]]]), np.array([[[0, 1, 1, 1]]])
    assert mean_iou(found, wanted, classes=3) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_fills_keep_what_is_known_and_continue_slopes() -> None:
    """A plane of colour is continued by its slopes to less than a pixel's step, not by its mean."""
    across = torch.linspace(-0.8, 0.8, 24)
    image = across.expand(1, 3, 24, 24).clone()
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., 9:14, 8:14] = 1
    for fill, most in ((mean_fill, 0.5), (telea_fill, 0.0696)):
        filled = fill(image, mask)
        assert torch.equal(filled[:, :, mask[0, 0] == 0], image[:, :, mask[0, 0] == 0])
        assert float((filled - image).abs().max()) < most
        assert not fill(image, torch.ones_like(mask)).any()  # where nothing is known nothing is seen


def test_fills_of_large_holes_are_calmer_than_what_surrounds_them() -> None:
    """Slopes of what was just filled would be continued again and again, until noise fills the hole."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    filled = telea_fill(image, mask)[..., 16:48, 16:48]
    assert 0 < filled.std() < 0.5 * image.std()

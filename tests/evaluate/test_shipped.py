"""The models that come with the package do what they are there for."""

import pytest
import torch

from darkroom.autoencoder.model import Autoencoder
from darkroom.core.compute import Compute
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec
from darkroom.evaluate.conditions import evaluate_conditions
from darkroom.evaluate.first_stage import evaluate_first_stage
from darkroom.evaluate.obedience import evaluate_obedience
from darkroom.nn.features import judge
from darkroom.tasks.find import DEFAULT, built_in
from darkroom.tasks.held_out import Spoiling
from darkroom.tasks.load import load
from darkroom.tasks.parts import load_autoencoder

UNSEEN = ShapesSource(seed=20_261_122, count=48)


@pytest.mark.parametrize(("name", "least", "right"), [("shapes-vq-f4", 31.0, 0.93), ("shapes-f8", 37.0, 0.95)])
def test_unseen_scenes_survive_it(name: str, least: float, right: float) -> None:
    model = load_autoencoder(name, device="cpu")
    assert isinstance(model, Autoencoder)
    compute = Compute(torch.device("cpu"))
    report = evaluate_first_stage(model, UNSEEN, transform=TransformSpec(size=64), judge=judge(), compute=compute)
    assert report.figures.psnr > least
    assert report.figures.scenes_right is not None
    assert report.figures.scenes_right >= right
    if report.codes is not None:
        assert report.codes.perplexity > 0.25 * report.codes.codes
    assert report.figures.feature_distance < report.bicubic["x4"].feature_distance


def test_the_default_model_draws_what_it_is_told() -> None:
    """A sample of what docs/results.md measures on 512 captions of each kind, far enough from it to be no lottery."""
    assert built_in()[DEFAULT].stat().st_size <= 25e6
    report = evaluate_obedience(load(device="cpu"), count=10)
    one, two, _ = report.by_things
    assert one.obeyed >= 0.8
    assert two.obeyed >= 0.5
    assert all(each.shuffled is not None and each.shuffled <= 0.1 for each in report.by_things)


@pytest.mark.parametrize(
    ("name", "count", "bars"),
    [
        ("shapes-class", 16, {"read back": {"class right": 0.8}}),
        ("shapes-inpaint", 4, {"model": {"known pixels identical": 1.0, "SSIM": 0.8}}),
        ("shapes-layout", 8, {"read back": {"category right": 0.85, "mean box IoU": 0.7}}),
        ("shapes-semantic", 8, {"read back": {"mean IoU of classes": 0.7}}),
        ("shapes-superres", 8, {"model": {"PSNR (dB)": 29.5, "SSIM": 0.89, "low-res PSNR (dB)": 36.0}}),
        ("shapes-text-map", 8, {"read back": {"caption obeyed": 0.75, "mean IoU of classes": 0.7}}),
    ],
)
def test_a_model_of_each_task_does_it(name: str, count: int, bars: dict[str, dict[str, float]]) -> None:
    """A sample of what docs/results.md measures on 512 scenes, far enough from it to be no lottery."""
    assert built_in()[name].stat().st_size <= 12e6
    scenes = ShapesSource(UNSEEN.seed, count=count, kind="single" if name == "shapes-class" else "captioned")
    report = evaluate_conditions(load(name, device="cpu"), scenes, spoiling=Spoiling(), judge=judge(), sample={})
    for way, least in bars.items():
        for key, bar in least.items():
            assert report.ways[way][key] >= bar, (key, report.ways[way][key])
    for other in report.ways.keys() - {"read back", "model", "telea"}:  # how near to that one is takes more scenes
        assert report.ways["model"]["judge distance"] < report.ways[other]["judge distance"]


def test_the_package_stays_small() -> None:
    assert sum(path.stat().st_size for path in built_in().values()) <= 80e6

"""The first stages that come with the package keep what is in a scene."""

import pytest
import torch

from darkroom.autoencoder.model import Autoencoder
from darkroom.core.compute import Compute
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec
from darkroom.evaluate.first_stage import evaluate_first_stage
from darkroom.nn.features import judge
from darkroom.tasks.load import load_autoencoder

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

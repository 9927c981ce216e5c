"""What a step of training asks for: rows of all classes, and nothing back from its device."""

from pathlib import Path

import pytest
import torch

from darkroom.autoencoder.model import PixelsSpec
from darkroom.core.compute import Compute
from darkroom.core.hollow import hollow
from darkroom.data.latents import cache_latents
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.network.unet import UNetSpec
from darkroom.process.objective import MinSnrSpec, ObjectiveSpec
from darkroom.train.denoiser_objective import LatentBatch, denoiser_objective, still_batches
from darkroom.train.optim import TrainSpec

NETWORK = UNetSpec(in_channels=3, out_channels=3, channels=8, multipliers=(1, 2), blocks=1, norm_groups=4)
TRAIN = TrainSpec(steps=2, batch=2, learning_rate=1e-3)


@pytest.mark.parametrize(("rows", "count", "seen"), [(10, 4, [0, 3, 6, 9]), (3, 8, [0, 1, 2])])
def test_what_is_validated_is_spread_over_all_pictures(rows: int, count: int, seen: list[int], tmp_path: Path) -> None:
    """A folder's classes stand one after another: the first rows would be those of the first class."""
    source = ShapesSource(count=rows)
    table = cache_latents(
        lambda images: (images, None), source, spec=TransformSpec(size=8), batch_size=4, folder=tmp_path, key="any"
    )
    batches = list(still_batches(table, {}, scale=torch.tensor(1.0), count=count, batch_size=3))
    assert [row for batch in batches for row in batch.indices] == seen


def test_a_step_of_training_asks_nothing_back_from_its_device() -> None:
    """Every question would wait for all that the device has to do; on meta tensors, which hold nothing, it raises."""
    objective = ObjectiveSpec(weighting=MinSnrSpec(), learn_log_variance=True)
    with hollow():
        model = LatentDiffusion(
            ModelSpec(image_size=8, first_stage=PixelsSpec(), network=NETWORK, objective=objective, scale=1.0)
        )
    losses = denoiser_objective(model, train=TRAIN, compute=Compute(torch.device("meta")), seed=0)
    found = losses(LatentBatch(torch.zeros(2, 3, 8, 8), {}, [0, 1]))["loss"]
    assert (found.device.type, found.requires_grad) == ("meta", True)

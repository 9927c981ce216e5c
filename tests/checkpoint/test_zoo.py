"""Checkpoints of the published sizes, one at a time: nothing is missing and nothing unexplained.

They are written by torch with names and shapes from `original_layout`, which knows nothing of the package, and with
holes for weights: 10 GB take a few kilobytes of disk.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode

from darkroom.autoencoder.model import Autoencoder
from darkroom.checkpoint.archive import open_archive
from darkroom.checkpoint.config import read_config
from darkroom.checkpoint.inventory import Inventory, describe_original
from darkroom.checkpoint.specs import original_spec
from darkroom.checkpoint.store import StoredModel
from darkroom.checkpoint.to_compvis import original_config
from darkroom.checkpoint.write_compvis import original_state
from darkroom.core.hollow import hollow
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.process.schedule import LinearSpec, build_schedule, original_buffers
from darkroom.recipes.read import recipe
from original_layout import Shapes, layout
from zoo import DESCENDANTS, FIRST_STAGES, MODELS

STRAYS = {  # in the released files
    "bsr_sr": ("ddim_alphas", "ddim_alphas_prev", "ddim_sigmas", "ddim_sqrt_one_minus_alphas"),
    "inpainting_big": ("ddim_alphas", "ddim_alphas_prev", "ddim_sigmas", "ddim_sqrt_one_minus_alphas"),
}
PUBLISHED = MODELS | DESCENDANTS
LOSSES: Shapes = {"loss.logvar": (), "loss.perceptual_loss.lin0.model.1.weight": (1, 64, 1, 1)}


def with_holes(path: Path, shapes: Shapes, *, noise: LinearSpec | None = None) -> Path:
    """A torch checkpoint without the bytes of its tensors, but for the noise levels."""
    with FakeTensorMode():
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"state_dict": state, "global_step": 1000}, path)
    if noise is not None:
        levels = original_buffers(build_schedule(noise))["alphas_cumprod"].float()
        begin, _ = open_archive(path).storages[str(list(shapes).index("alphas_cumprod"))]
        with path.open("r+b") as file:
            file.seek(begin)
            file.write(levels.numpy().tobytes())
    return path


Made = Callable[[str], tuple[Path, Path, Shapes]]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Checkpoint and YAML of a name, and what the checkpoint holds."""

    def write(name: str) -> tuple[Path, Path, Shapes]:
        model = (FIRST_STAGES | PUBLISHED)[name]
        (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": {"base_learning_rate": 1e-6, **model}}))
        shapes = layout(model) | dict.fromkeys(STRAYS.get(name, ()), (50,))
        if name in FIRST_STAGES:
            path = with_holes(tmp_path / "model.ckpt", shapes | LOSSES)
        else:
            params = model["params"]
            noise = LinearSpec(start=params["linear_start"], end=params["linear_end"])
            path = with_holes(tmp_path / "model.ckpt", shapes, noise=noise)
        return path, tmp_path / "model.yaml", shapes

    return write


def numbers(shapes: Shapes, *prefixes: str) -> int:
    return sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(prefixes))


def assert_explained(found: Inventory, name: str) -> None:
    assert (found.missing, found.misshapen) == ((), ())
    assert found.strays == STRAYS.get(name, ())


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_first_stages(made: Made, name: str) -> None:
    path, config, shapes = made(name)
    found = describe_original(path, config)
    assert_explained(found, name)
    assert found.parameters == {"first_stage": numbers(shapes, "")}
    assert found.left_out == ("2 tensors of its losses, which only train",)
    assert found.described.spec == recipe(name).first_stage.model


@pytest.mark.parametrize("name", PUBLISHED)
def test_models(made: Made, name: str) -> None:
    path, config, shapes = made(name)
    averaged = PUBLISHED[name]["params"].get("use_ema", True)
    found = describe_original(path, config)
    assert_explained(found, name)
    assert (found.averages, found.ema) == (("complete", True) if averaged else ("none", False))
    again = PUBLISHED[name]["params"]["cond_stage_config"] == "__is_first_stage__"
    assert found.parameters == {
        "first_stage": numbers(shapes, "first_stage_model."),
        "network": numbers(shapes, "model."),
        "conditioner": 0 if again else numbers(shapes, "cond_stage_model.") - len(places(shapes)) * 77,
    }
    if name in MODELS:
        assert_the_recipe_of(name, found)
    else:
        assert_stable_diffusion(found)


def places(shapes: Shapes) -> list[str]:
    """Numbers that CLIP's text model counts its places by: no parameters."""
    return [name for name in shapes if name.endswith("position_ids")]


def assert_the_recipe_of(name: str, found: Inventory) -> None:
    """Our recipe of that name describes the same model."""
    spec, ours = found.described.spec, recipe(name).model_spec()
    assert isinstance(spec, ModelSpec)
    assert ours is not None
    network = ours.network.model_copy(update={"attention": tuple(sorted(ours.network.attention, reverse=True))})
    assert spec.network == network
    for part in ("image_size", "first_stage", "schedule", "prediction", "scale", "fields"):
        assert getattr(spec, part) == getattr(ours, part), part
    assert spec.objective.loss == ours.objective.loss


def assert_stable_diffusion(found: Inventory) -> None:
    assert found.parameters == {"first_stage": 83_653_863, "network": 859_520_964, "conditioner": 123_060_480}
    spec = found.described.spec
    assert isinstance(spec, ModelSpec)
    assert (spec.image_size, spec.scale, spec.fields, found.odd) == (512, 0.18215, ("caption",), ())


@pytest.mark.parametrize("name", [*FIRST_STAGES, *PUBLISHED])
def test_what_is_written_is_all_that_the_original_holds(name: str, tmp_path: Path) -> None:
    """Of the YAML that is written and of the published one alike."""
    model = (FIRST_STAGES | PUBLISHED)[name]
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": model}))
    spec = original_spec(read_config(tmp_path / "model.yaml"), where="here").spec
    with hollow():
        module = LatentDiffusion(spec) if isinstance(spec, ModelSpec) else Autoencoder(spec)
    kind = "model" if name in PUBLISHED else "first-stage"
    state = original_state(StoredModel(kind, spec, module.state_dict()))
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == layout(original_config(spec))
    assert shapes == {name: shape for name, shape in layout(model).items() if not name.startswith("model_ema.")}


def test_the_largest_file_is_told_of_at_once(made: Made) -> None:
    """In a process of its own, as a person waits for it; the limit leaves room for a busy machine."""
    path, _, _ = made("rdm768")
    began = time.monotonic()
    words = [sys.executable, "-m", "darkroom.cli.main", "inspect", str(path), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - began
    assert json.loads(done.stdout)["strays"] == []
    assert path.stat().st_size > 5e9
    assert path.stat().st_blocks * 512 < 1e8
    assert seconds < 30

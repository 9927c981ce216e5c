"""A first stage that begins with the weights of another one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.checkpoint.store import load_model
from darkroom.core.errors import DarkroomError
from darkroom.recipes.asked import Asked, recipe_asked
from darkroom.recipes.folder import TASKS, recipe_for_folder
from darkroom.recipes.given import check_begin
from darkroom.recipes.plan import fit
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run
from darkroom.recipes.schema import Recipe

SMALL = ("data.count=8", "first_stage.train.steps=1", "first_stage.train.batch=2", "first_stage.train.ema=0")
STILL = "first_stage.train.learning_rate=1e-12"


def tiny(*changes: str) -> Recipe:
    return recipe("tiny-vq", overrides=[*SMALL, *changes]).model_copy(update={"denoiser": None})


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(load_model(folder / "model.safetensors").state)


def finished(made: Recipe, folder: Path) -> dict[str, Tensor]:
    list(Run(made, folder, device="cpu").develop(page=False))
    return weights(folder)


def test_training_goes_on_from_the_weights_it_begins_with(tmp_path: Path) -> None:
    first = finished(tiny("first_stage.train.steps=3"), tmp_path / "first")
    fresh = finished(tiny(STILL, "seed=1"), tmp_path / "fresh")
    begun = finished(tiny(STILL, "seed=1", f"first_stage.begin={tmp_path / 'first'}"), tmp_path / "begun")
    assert any(not torch.allclose(fresh[name], tensor, atol=1e-3) for name, tensor in first.items())
    for name, tensor in first.items():
        if not name.startswith("codebook"):  # codes that nobody chose come back elsewhere
            torch.testing.assert_close(begun[name], tensor, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        ("pictures-f4", r"pictures-f4 is another first stage \(\w+ is .* fresh weights: first_stage\.begin=null"),
        ("nowhere", "nowhere: no such file, run folder or built-in model"),
    ],
)
def test_other_weights_are_refused_before_anything_is_written(begin: str, words: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(DarkroomError, match=words):
        Run(tiny(f"first_stage.begin={begin}"), run, device="cpu")
    assert not (run / "recipe.yaml").exists()


def test_a_decoder_alone_begins_with_its_own_first_stage() -> None:
    with pytest.raises(DarkroomError, match="begin is for a first stage that is trained as a whole"):
        recipe("tiny-decoder", overrides=["data.source=shapes", "first_stage.begin=pictures-f4"])


def told(pictures: int = 3000) -> dict[str, Any]:
    extent = {"min": 64, "median": 64, "max": 64}
    fields = ["caption", "label", "objects", "map"]
    names = {"categories": ["a"], "map_classes": ["a", "b"], "classes": {"a": 1500, "b": 1500}}
    return {"count": pictures, "fields": fields, "width": extent, "height": extent, **names}


@pytest.mark.parametrize("task", TASKS)
def test_folders_of_colour_pictures_begin_with_a_first_stage_of_the_package(task: str) -> None:
    part = recipe_for_folder(told(), place="pictures", task=task).first_stage
    fine = task in ("super-resolution", "inpainting")
    assert part.begin == ("pictures-f4-c12" if fine else "pictures-f4")
    check_begin(part)  # it is there, and of the same spec


@pytest.mark.parametrize("channels", [1, 4])
def test_others_begin_with_nothing(channels: Any) -> None:
    assert recipe_for_folder(told(), place="pictures", channels=channels).first_stage.begin is None


def test_whoever_changes_the_first_stage_gets_a_fresh_one_and_its_steps() -> None:
    plain, wide, fresh = (
        recipe_asked(Asked(source="shapes", changes=("data.count=40", *changes))).first_stage
        for changes in ((), ("first_stage.model.channels=64",), ("first_stage.begin=null",))
    )
    assert plain.begin == "pictures-f4"
    assert wide.begin is None
    assert fresh.begin is None
    assert plain.train is not None
    for part in (wide, fresh):
        assert part.train is not None
        assert part.train.steps > 2 * plain.train.steps


def test_it_takes_a_tenth_of_the_minutes(tmp_path: Path) -> None:
    pace = {"first_stage": 0.1, "denoiser": 0.1}
    begun, fresh = (
        fit(
            recipe_for_folder(told(), place="pictures", fresh=fresh),
            minutes=10,
            folder=tmp_path / "new",
            measure=lambda: pace,
        )
        for fresh in (False, True)
    )
    steps = [each.first_stage.train.steps for each in (begun, fresh) if each.first_stage.train is not None]
    assert steps == pytest.approx([552, 1656], abs=1)
    shares = [each.denoiser.train.steps for each in (begun, fresh) if each.denoiser and each.denoiser.train]
    assert shares == pytest.approx([4968, 3864], abs=1)

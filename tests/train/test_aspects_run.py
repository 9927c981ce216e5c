"""Runs on pictures of several aspects: every task, stopped and gone on with, drawn wide and high."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.checkpoint.store import load_model
from darkroom.core.errors import SpecError
from darkroom.core.record import read_lines
from darkroom.recipes.plan import plan_of, told
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run, open_recipe_data
from darkroom.recipes.schema import Recipe
from darkroom.tasks.load import load

SIZES = [(40, 24), (24, 40), (32, 32), (48, 24), (60, 33)]  # width, height
SMALL = (
    "data.aspects=2",
    "data.flip=true",
    "first_stage.train.steps=3",
    "first_stage.train.batch=4",
    "first_stage.train.warmup=1",
    "denoiser.train.steps=4",
    "denoiser.train.batch=4",
    "denoiser.train.warmup=1",
    "denoiser.train.log_every=1",
    "denoiser.train.save_every=2",
    "denoiser.train.sample_every=4",
    "denoiser.sample.count=2",
    "denoiser.sample.steps=2",
)
GIVEN = {
    "tiny-text": {"prompt": "a cell"},
    "tiny-layout": {"layout": [{"category": "cell", "box": [0.1, 0.2, 0.4, 0.5]}]},
    "tiny-semantic": {"map": Image.new("L", (40, 24), 1)},
    "tiny-superres": {"low_res": Image.new("RGB", (10, 6), "red")},
    "tiny-inpaint": {"image": Image.new("RGB", (40, 24), "red"), "mask": Image.new("L", (40, 24), 255)},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aspects")
    (folder / "maps").mkdir()
    lines = ""
    for number in range(20):
        width, height = SIZES[number % len(SIZES)]
        ids = np.random.default_rng(number).integers(0, 3, (height, width), dtype=np.uint8)
        Image.fromarray(np.stack([ids * 80, ids * 40, 255 - ids * 80], 2)).save(folder / f"{number:02}.png")
        Image.fromarray(ids).save(folder / "maps" / f"{number:02}.png")
        told = {
            "file_name": f"{number:02}.png",
            "map_file_name": f"maps/{number:02}.png",
            "objects": {"bbox": [[2, 3, 9, 9]], "categories": ["cell"]},
            "caption": f"a cell {number % 3}",
        }
        lines += json.dumps(told) + "\n"
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return folder


def small(name: str, folder: Path) -> Recipe:
    return recipe(name, overrides=[*SMALL, f"data.source={folder}"])


@pytest.mark.parametrize("name", GIVEN)
def test_every_task_goes_through_both_stages(name: str, folder: Path, tmp_path: Path) -> None:
    list(Run(small(name, folder), tmp_path, device="cpu").develop())
    shapes = sorted(path.name for path in (tmp_path / "latents" / "train").iterdir())
    assert shapes == ["24x40", "24x48", "32x32", "40x24"]
    losses = [line["loss"] for line in read_lines(tmp_path / "denoiser" / "log.jsonl") if "loss" in line]
    assert len(losses) == 4
    assert np.isfinite(losses).all()
    model = load(tmp_path, device="cpu")
    wide = {} if name in ("tiny-semantic", "tiny-superres", "tiny-inpaint") else {"size": (24, 40)}
    (drawn,) = model.sample(**GIVEN[name], **wide, steps=2)
    assert drawn.size == (40, 24)


def test_a_plan_says_how_many_have_which_shape(folder: Path) -> None:
    made = small("tiny-layout", folder)
    plan = plan_of(made, open_recipe_data(made.data, seed=0), measure=lambda: {"first_stage": 1.0, "denoiser": 1.0})
    assert plan["data"]["shapes"].keys() == {"24x40", "24x48", "32x32", "40x24"}
    assert sum(plan["data"]["shapes"].values()) == plan["data"]["train"]
    assert f"24x40 {plan['data']['shapes']['24x40']}" in told(plan)


def test_stopping_changes_nothing(folder: Path, tmp_path: Path) -> None:
    list(Run(small("tiny-layout", folder), tmp_path / "whole", device="cpu").develop(page=False))
    for stage in ("first_stage", "denoiser"):
        for _event in Run(small("tiny-layout", folder), tmp_path / "parts", device="cpu").develop(page=False):
            if (tmp_path / "parts" / stage / "state.pt").exists():
                break
    list(Run(small("tiny-layout", folder), tmp_path / "parts", device="cpu").develop(page=False))
    one, other = (load_model(tmp_path / part / "model.safetensors").state for part in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_does_not_fit_is_refused() -> None:
    for changes, words in (
        (["data.aspects=2", "data.turn=true"], "data.aspects and data.turn do not go together"),
        (["data.aspects=1.1"], "only the square of 32 fits"),
        (["data.aspects=9"], "data.aspects"),
    ):
        with pytest.raises(SpecError, match=words) as caught:
            recipe("tiny-layout", overrides=changes)
        assert "\n" not in str(caught.value)

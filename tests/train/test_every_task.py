"""A miniature of every task goes through both stages, draws, says so on its page, and goes on where it stopped."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from darkroom.checkpoint.store import load_model
from darkroom.conditioning.fill import led_inward
from darkroom.conditioning.spatial import LowResSpec, MapSpec
from darkroom.core.errors import DataError, InputError, SpecError
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.data.degrade import BicubicSpec, degrade
from darkroom.data.masks import MasksSpec
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec
from darkroom.recipes.asked import Asked, recipe_asked
from darkroom.recipes.given import on_pixels
from darkroom.recipes.pace import denoiser_pace
from darkroom.recipes.read import recipe
from darkroom.recipes.resolve import inputs, resolve
from darkroom.recipes.run import Run, open_recipe_data
from darkroom.recipes.schema import Recipe
from darkroom.tasks.find import read_whole
from darkroom.tasks.load import load

SMALL = (
    "data.count=24",
    "first_stage.train.steps=3",
    "first_stage.train.batch=4",
    "first_stage.train.warmup=1",
    "denoiser.train.steps=4",
    "denoiser.train.batch=4",
    "denoiser.train.warmup=1",
    "denoiser.train.save_every=2",
    "denoiser.train.sample_every=4",
    "denoiser.sample.count=2",
    "denoiser.sample.steps=2",
)
GIVEN = {
    "tiny-layout": ("objects", ["layout.json"]),
    "tiny-semantic": ("map", ["map.png"]),
    "tiny-superres": ("low_res", ["low-res.png"]),
    "tiny-inpaint": ("masked", ["image.png", "mask.png"]),
}


def small(name: str) -> Recipe:
    return recipe(name, overrides=SMALL)


@pytest.mark.parametrize("name", GIVEN)
def test_a_miniature(name: str, tmp_path: Path) -> None:
    field, files = GIVEN[name]
    list(Run(small(name), tmp_path, device="cpu").develop())
    model = load(tmp_path, device="cpu")
    assert model.fields == (field,)
    assert sorted(path.name for path in (tmp_path / "example").iterdir()) == sorted(files)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "asked for" in page
    for file in files:
        assert f"example/{file}" in page
    if field == "objects":
        layout = json.loads((tmp_path / "example" / "layout.json").read_text())
        assert model.names.categories[0] == "circle"
        (drawn,) = model.sample(layout=layout, steps=2)
    else:
        words = {"map": "map", "low-res": "low_res", "image": "image", "mask": "mask"}
        given = {words[Path(file).stem]: tmp_path / "example" / file for file in files}
        (drawn,) = model.sample(**given, steps=2)
    assert drawn.size == (32, 32)


@pytest.mark.parametrize("name", ["tiny-layout", "tiny-inpaint"])
def test_stopping_changes_nothing(name: str, tmp_path: Path) -> None:
    """Order of objects and holes are functions of the sample, so a run that stopped ends with the same bits."""
    list(Run(small(name), tmp_path / "whole", device="cpu").develop(page=False))
    for _event in Run(small(name), tmp_path / "parts", device="cpu").develop(page=False):
        if (tmp_path / "parts" / "denoiser" / "state.pt").exists():
            break
    list(Run(small(name), tmp_path / "parts", device="cpu").develop(page=False))
    one, other = (load_model(tmp_path / part / "model.safetensors").state for part in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("task", ["semantic", "layout", "super-resolution", "inpainting", "text+semantic"])
def test_a_folder_by_task(task: str, tmp_path: Path) -> None:
    """Every task of a data set that has all fields, sized by its recipe and timed before it is trained."""
    asked = Asked(source="shapes", changes=("data.count=30", f"task={task}"))
    made = recipe_asked(asked)
    assert made.denoiser is not None
    assert [each.field for each in made.denoiser.conditioners] == [
        {
            "semantic": "map",
            "layout": "objects",
            "super-resolution": "low_res",
            "inpainting": "masked",
            "text": "caption",
        }[each]
        for each in task.split("+")
    ]
    splits = open_recipe_data(made.data, seed=0)
    resolved = resolve(made, splits.train).recipe
    assert denoiser_pace(resolved, device="cpu") > 0
    assert made.data.flip == ("text" not in task)


def test_ids_that_only_held_out_maps_have_are_classes_too(tmp_path: Path) -> None:
    for part, highest in (("train", 2), ("test", 11)):
        (tmp_path / part).mkdir()
        lines = ""
        for number in range(3):
            Image.new("RGB", (32, 32), (80 * number, highest, 90)).save(tmp_path / part / f"{number}.png")
            Image.new("L", (32, 32), highest).save(tmp_path / part / f"map-{number}.png")
            lines += f'{{"file_name": "{number}.png", "map_file_name": "map-{number}.png"}}\n'
        (tmp_path / part / "metadata.jsonl").write_text(lines)
    made = recipe_asked(Asked(source=str(tmp_path), changes=("task=semantic",)))
    train, test = open_recipe_data(made.data, seed=0)
    found = resolve(made, train, held_out=test).recipe.denoiser
    assert found is not None
    (spec,) = found.conditioners
    assert isinstance(spec, MapSpec)
    assert spec.classes == 12


@pytest.mark.parametrize("name", ["tiny-uncond", "tiny-class", *GIVEN])
def test_every_task_on_pixels(name: str, tmp_path: Path) -> None:
    """The baseline at f = 1: no first stage to train, levels that halve as often as it did, conditions at full size."""
    made = on_pixels(small(name))
    assert made.denoiser is not None
    assert made.denoiser.network.multipliers[-2:] == recipe(name).denoiser.network.multipliers
    assert made.denoiser.network.size_multiple == 8
    list(Run(made, tmp_path, device="cpu").develop(page=False))
    model = load(tmp_path, device="cpu")
    assert model.spec.first_stage.factor == 1
    assert not (tmp_path / "first_stage" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["tiny-uncond", *GIVEN])
def test_every_task_on_squares_of_pixels(name: str, tmp_path: Path) -> None:
    """The levels that it had, on the squares that became one place of the first stage."""
    made, before = on_pixels(small(name), patches=True), recipe(name)
    assert made.denoiser is not None
    assert made.name.endswith("-patches")
    assert made.denoiser.network.multipliers == before.denoiser.network.multipliers
    assert made.denoiser.network.out_channels == 3 * before.first_stage.model.factor**2
    list(Run(made, tmp_path, device="cpu").develop(page=False))
    model = load(tmp_path, device="cpu")
    assert model.spec.first_stage == made.first_stage.model
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.decode(model.encode(images)), images)


def test_small_pictures_let_latents_be_guessed(tmp_path: Path) -> None:
    """A folder's model learns what is beyond the guess; a run that stopped ends with the same bits, guess and all."""
    changes = ("task=super-resolution", *SMALL, "data.size=32", "first_stage.loss.adversary=null")
    made = recipe_asked(Asked(source="shapes", changes=(*changes, "first_stage.loss.perceptual_weight=0")))
    assert made.denoiser is not None
    (spec,) = made.denoiser.conditioners
    assert isinstance(spec, LowResSpec)
    assert spec.guesses == made.first_stage.model.latent_channels
    list(Run(made, tmp_path / "whole", device="cpu").develop(page=False))
    for _event in Run(made, tmp_path / "parts", device="cpu").develop(page=False):
        if (tmp_path / "parts" / "denoiser" / "state.pt").exists():
            break
    list(Run(made, tmp_path / "parts", device="cpu").develop(page=False))
    one, other = (load_model(tmp_path / part / "model.safetensors").state for part in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    model, scenes = load(tmp_path / "whole", device="cpu"), ShapesSource(count=8, seed=5, side=32)
    whole = torch.stack([to_bytes(scenes.example(row).picture) for row in range(8)])
    small = degrade(whole, BicubicSpec(), seed=0, indices=range(8))
    latents, conditions = model.encode(from_bytes(whole)), model.condition(low_res=from_bytes(small))
    assert conditions.guess is not None
    beyond = (conditions.guess - latents).square().mean()
    assert beyond < 0.5 * latents.square().mean()
    assert 0.3 < beyond < 3  # it is what noise is compared with


def test_what_is_beyond_a_hole_s_edge_is_a_guess(tmp_path: Path) -> None:
    """A folder's model for holes learns what is beyond a smooth filling; what lies under a mask is never seen."""
    changes = ("task=inpainting", *SMALL, "data.size=32", "first_stage.loss.adversary=null")
    made = recipe_asked(Asked(source="shapes", changes=(*changes, "first_stage.loss.perceptual_weight=0")))
    list(Run(made, tmp_path, device="cpu").develop(page=False))
    model = load(tmp_path, device="cpu")
    images, mask = torch.rand(2, 3, 32, 32) * 2 - 1, torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:20, 10:22] = 1
    seen = model.condition(image=images, mask=mask)
    assert seen.planes is not None
    assert seen.guess is not None
    torch.testing.assert_close(seen.guess, model.encode(led_inward(images, mask)))
    assert torch.equal(seen.guess, seen.planes[:, :-1])
    other = model.condition(image=torch.where(mask > 0, -images, images), mask=mask)
    assert torch.equal(other.planes, seen.planes)
    scenes = ShapesSource(count=8, seed=5, side=32)
    whole = from_bytes(torch.stack([to_bytes(scenes.example(row).picture) for row in range(8)]))
    hole = mask[:1].expand(8, -1, -1, -1)
    conditions = model.condition(image=whole, mask=hole)
    assert conditions.guess is not None
    assert conditions.known is not None
    beyond = (conditions.guess - model.encode(whole)).square() * (1 - conditions.known)
    assert 0.3 < beyond.sum() / (beyond.shape[1] * (1 - conditions.known).sum()) < 3  # what noise is compared with


def test_all_of_it_in_a_run_of_two_conditions(tmp_path: Path) -> None:
    changes = ("task=text+semantic", *SMALL, "data.size=32", "first_stage.loss.perceptual_weight=0")
    made = recipe_asked(Asked(source="shapes", changes=(*changes, "first_stage.loss.adversary=null")))
    list(Run(made, tmp_path, device="cpu").develop())
    model = load(tmp_path, device="cpu")
    assert model.fields == ("caption", "map")
    assert len(model.sample("a red circle", map=tmp_path / "example" / "map.png", guidance={"caption": 2.0})) == 1


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("tiny-superres", "data.degradation.factor=2", "do not lie beside latents of 8 x 8"),
        ("tiny-superres", "data.degradation.factor=3", "do not lie beside latents"),
        ("tiny-semantic", "data.size=64", None),
        ("tiny-semantic", "denoiser.conditioners.0.patch=2", "halvings, patch"),
    ],
)
def test_planes_lie_beside_latents_before_anything_is_trained(name: str, change: str, sentence: str | None) -> None:
    if sentence is None:
        assert recipe(name, overrides=[change]).data.size == 64
        return
    with pytest.raises(SpecError, match=sentence):
        recipe(name, overrides=[change])


def test_fine_tuning_keeps_categories_and_how_holes_are_made(tmp_path: Path) -> None:
    """Boxes are called what the model calls them, whatever the order of names; unknown ones are refused."""
    list(Run(small("tiny-layout"), tmp_path / "run", device="cpu").develop(page=False))
    start = read_whole(tmp_path / "run")
    folder = tmp_path / "boxes"
    folder.mkdir()
    rows = []
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 90, 90)).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "objects": {"bbox": [[2, 2, 20, 20]], "categories": ["star"]}})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = recipe_asked(Asked(source=str(folder)), start=start, name="run")
    splits = open_recipe_data(made.data, seed=0)
    resolved = resolve(made, splits.train, start=start)
    transform = TransformSpec(size=32)
    ids = inputs(resolved, splits.train, transform=transform)["objects"].take([0], [0], seed=0)
    assert resolved.names.categories[int(ids[0, 0])] == "star"
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)).replace("star", "moon"))
    with pytest.raises(InputError, match="unknown category 'moon'"):
        resolve(made, open_recipe_data(made.data, seed=0).train, start=start)
    narrow = "data.masks={kind: boxes, most: 0.3}"
    list(Run(recipe("tiny-inpaint", overrides=[*SMALL, narrow]), tmp_path / "holes", device="cpu").develop(page=False))
    again = recipe_asked(Asked(source=str(folder)), start=read_whole(tmp_path / "holes"), name="holes")
    assert again.data.masks == MasksSpec(kind="boxes", most=0.3)


def test_boxes_of_nothing_are_refused() -> None:
    made = recipe_asked(Asked(source="shapes", changes=("data.count=30", "task=layout")))
    with pytest.raises(DataError, match="boxes of no category"):
        resolve(made, NoCategories(count=3))


class NoCategories(ShapesSource):
    """Scenes that say nothing of what is in them."""

    @property
    def categories(self) -> tuple[str, ...]:
        return ()

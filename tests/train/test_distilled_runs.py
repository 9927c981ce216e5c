"""Runs that distill: from a folder and a teacher to a file that draws in few steps, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.checkpoint.store import StoredModel, load_model
from darkroom.core.errors import DataError, InputError, SpecError
from darkroom.diffusion.model import ModelSpec
from darkroom.process.objective import NoisiestTimeSpec, ObjectiveSpec
from darkroom.recipes.asked import Asked, recipe_asked
from darkroom.recipes.describe import describe
from darkroom.recipes.pace import denoiser_pace
from darkroom.recipes.read import recipe
from darkroom.recipes.resolve import resolve
from darkroom.recipes.run import Run, open_recipe_data
from darkroom.recipes.schema import Recipe
from darkroom.tasks.find import read_whole
from darkroom.tasks.load import load
from darkroom.tasks.request import Request
from darkroom.tasks.settle import hardly_meant, settle
from darkroom.train.events import Advance
from small_models import CAPTIONS, CLASSES

Files = dict[str, Path]
SHORT = (
    "data.size=32",
    "data.degradation.factor=2",
    "denoiser.train.steps=3",
    "denoiser.train.batch=4",
    "denoiser.train.warmup=0",
    "denoiser.train.save_every=1",
    "denoiser.train.learning_rate=1e-3",
    "denoiser.sample.count=1",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen that have all fields."""
    folder, rows = tmp_path_factory.mktemp("pictures"), []
    for number in range(12):
        levels = np.random.default_rng(number).integers(0, 256, (36, 32, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{number}.png")
        Image.fromarray(levels[:, :, 0] // 64).save(folder / f"map-{number}.png")
        objects = {"bbox": [[2, 2, 20, 20]], "categories": [CLASSES[number % 3]]}
        fields = {"caption": CAPTIONS[number % 3], "label": number % 3, "map_file_name": f"map-{number}.png"}
        rows.append({"file_name": f"{number}.png", "objects": objects, **fields})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    return folder


def distilled(source: object, stored: StoredModel, *changes: str) -> Recipe:
    return recipe_asked(Asked(source=str(source), changes=(*SHORT, *changes), distill=True), start=stored, name="old")


def finished(made: Recipe, folder: Path, stored: StoredModel, *, page: bool = False) -> StoredModel:
    list(Run(made, folder, device="cpu", start=stored).develop(page=page))
    return load_model(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("kind", "guidance", "fields"),
    [
        ("plain", 1.0, {}),
        ("class", 2.0, {"label": "star"}),
        ("text-map", 2.0, {"prompt": CAPTIONS[0], "map": "map.png"}),
        ("low-res", 1.0, {"low_res": "low-res.png"}),
        ("inpaint", 1.0, {"image": "image.png", "mask": "mask.png"}),
    ],
)
def test_a_student_is_a_model_like_its_teacher(
    model_files: Files, pictures: Path, tmp_path: Path, *, kind: str, guidance: float, fields: dict[str, str]
) -> None:
    stored = read_whole(model_files[kind])
    before = {name: value.clone() for name, value in stored.state.items()}
    made = distilled(pictures, stored)
    found = finished(made, tmp_path / "run", stored, page=True)
    assert all(torch.equal(before[name], value) for name, value in stored.state.items())
    assert isinstance(found.spec, ModelSpec)
    assert found.spec == stored.spec.model_copy(update={"image_size": 32})
    assert made.name.endswith("-distilled")
    assert found.card["distill"]["guidance"] == guidance
    drawn = {key: found.card["sample"][key] for key in ("solver", "steps", "eta", "guidance")}
    assert drawn == {"solver": "lcm", "steps": 4, "eta": 0.0, "guidance": 1.0}
    same = {name: torch.equal(before[name], value) for name, value in found.state.items()}
    assert all(same[name] for name in same if name.startswith("first_stage.") or name == "scale")
    assert not all(same.values())
    model = load(tmp_path / "run", device="cpu")
    example = tmp_path / "run" / "example"
    given = {name: example / value if value.endswith(".png") else value for name, value in fields.items()}
    (two,), (four,) = model.sample(steps=2, **given), model.sample(**given)
    assert two.size == four.size == (32, 32)
    assert json.loads(str(four.info["darkroom"]))["solver"] == "lcm"
    assert "--from" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_run_that_was_stopped_ends_with_the_same_weights(model_files: Files, pictures: Path, tmp_path: Path) -> None:
    """The average that answers at the earlier time goes on, too."""
    stored = read_whole(model_files["class"])
    made = distilled(pictures, stored)
    calm = finished(made, tmp_path / "calm", stored)
    events = Run(made, tmp_path / "stopped", device="cpu", start=stored).develop()
    for event in events:
        if isinstance(event, Advance) and event.progress.step == 2:
            break
    events.close()
    state = torch.load(tmp_path / "stopped" / "denoiser" / "state.pt", weights_only=True)
    assert any(name.startswith("follower.network.") for name in state["beside"])
    stopped = finished(made, tmp_path / "stopped", stored)
    assert all(torch.equal(calm.state[name], stopped.state[name]) for name in calm.state)


def test_plans_know_what_it_costs(model_files: Files, pictures: Path) -> None:
    stored = read_whole(model_files["class"])
    made = distilled(pictures, stored)
    splits = open_recipe_data(made.data, seed=0)
    resolved = resolve(made, splits.train, start=stored, held_out=splits.test).recipe
    assert resolved.denoiser is not None
    plain = resolved.model_copy(update={"denoiser": resolved.denoiser.model_copy(update={"distill": None})})
    more = describe(resolved)["memory"]["train_denoiser"] - describe(plain)["memory"]["train_denoiser"]
    parameters = describe(resolved)["parameters"]
    assert more == 2 * 4 * (parameters["network"] + parameters["conditioner"])
    undropped = distilled(pictures, stored, "denoiser.conditioners.0.drop=0")
    assert denoiser_pace(undropped, device="cpu") > 0


def test_the_recipe_of_such_a_run_keeps_its_way(model_files: Files, pictures: Path, tmp_path: Path) -> None:
    stored = read_whole(model_files["class"])
    made = distilled(pictures, stored, "denoiser.distill.guidance=1.5", "denoiser.sample.steps=2")
    run = Run(made, tmp_path / "run", device="cpu", start=stored)
    words = {"source": str(tmp_path / "run" / "recipe.yaml"), "changes": ("data.size=32",)}
    again = recipe_asked(Asked(**words, distill=True), start=stored, name="old")
    assert again == run.recipe
    with pytest.raises(SpecError, match="begins with the model 'old'; say where it is with --distill"):
        Run(made, tmp_path / "other", device="cpu")


def test_a_distilled_model_neither_teaches_nor_trains_on(model_files: Files, pictures: Path) -> None:
    stored = read_whole(model_files["class"])
    card = {**stored.card, "distill": {"guidance": 2.0}, "start": {"name": "old"}}
    for distill in (True, False):
        with pytest.raises(SpecError, match=r"new is distilled from old and draws in few steps.* take old instead"):
            recipe_asked(
                Asked(source=str(pictures), changes=SHORT, distill=distill),
                start=replace(stored, card=card),
                name="new",
            )


def test_what_is_hardly_meant_is_told(model_files: Files, tmp_path: Path) -> None:
    model = load(model_files["class"], device="cpu")

    def said(**asked: object) -> list[str]:
        request = Request.of(label="star", others={"solver": "lcm", "steps": 2, "guidance": 1.0, **asked})
        return hardly_meant(model, settle(model, request))

    assert ["does not say that it is one" in each for each in said()] == [True]
    assert said(solver="ddim") == []
    model.card["distill"] = {"guidance": 2.0}
    assert said() == []
    assert "knows a guidance of 2 by heart" in said(guidance=3.0)[0]
    assert "distilled for the solver lcm; ddim may do worse" in said(solver="ddim")[0]


def bare(folder: Path, *names: str) -> Path:
    """Pictures without words, in sub-folders of these names perhaps."""
    for number in range(6):
        path = folder / (names[number % len(names)] if names else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), number + 1).convert("RGB").save(path)
    return folder


def test_pictures_have_what_steers_the_teacher(model_files: Files, tmp_path: Path) -> None:
    text, label = read_whole(model_files["text"]), read_whole(model_files["class"])
    folder = bare(tmp_path / "bare")
    with pytest.raises(DataError, match=r"old is steered by the field 'caption' .* it is distilled with pictures that"):
        Run(distilled(folder, text), tmp_path / "run", device="cpu", start=text)
    folder = bare(tmp_path / "named", "star", "moon")
    with pytest.raises(InputError, match=r"the teacher has no class 'moon'.*leave its pictures out"):
        Run(distilled(folder, label), tmp_path / "run", device="cpu", start=label)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("first-stage", (), "a first stage alone has no denoiser"),
        ("class", ("task=text",), "task=text teaches a model something else; a distilled one does what old does"),
        ("unguided", ("denoiser.distill.guidance=2",), "guidance=2 does not fit: training dropped no condition of the"),
        ("class", ("denoiser.distill.distance=[0.1,0.2]",), "distance shrinks in training"),
        ("class", ("denoiser.distill.distance=[2,0.2]",), "denoiser.distill.distance"),
        ("class", ("denoiser.objective.times={kind: noisiest}",), "a regression draws in one step already"),
        ("class", ("denoiser.sample.eta=0.5",), "solver 'lcm' has none"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    model_files: Files, pictures: Path, kind: str, changes: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        distilled(pictures, read_whole(model_files[kind]), *changes)


def test_a_regression_is_no_teacher(model_files: Files, pictures: Path) -> None:
    stored = read_whole(model_files["low-res"])
    assert isinstance(stored.spec, ModelSpec)
    spec = stored.spec.model_copy(update={"objective": ObjectiveSpec(times=NoisiestTimeSpec())})
    with pytest.raises(SpecError, match="a regression draws in one step already"):
        distilled(pictures, replace(stored, spec=spec))


def test_a_recipe_that_distills_names_its_teacher() -> None:
    with pytest.raises(SpecError, match=r"denoiser\.distill needs a teacher: darkroom train DATA --distill MODEL"):
        recipe("tiny-class", overrides=["denoiser.distill={guidance: 2.0}"])


def test_recipes_from_before_stay_what_they_were() -> None:
    assert "distill" not in recipe("tiny-class").plain()["denoiser"]

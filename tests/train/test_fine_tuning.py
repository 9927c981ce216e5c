"""Fine-tuning: a run that begins with the weights of a model."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from darkroom.checkpoint.store import StoredModel, load_model
from darkroom.core.errors import DataError, InputError, SpecError
from darkroom.core.names import Names
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.recipes.asked import Asked, recipe_asked
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run
from darkroom.recipes.schema import Recipe
from darkroom.recipes.tune import LABELS, begin_with, class_names, from_model
from darkroom.tasks.find import read_whole
from darkroom.tasks.load import load

FEW = (
    "data.count=40",
    "first_stage.train.steps=3",
    "first_stage.train.batch=4",
    "first_stage.train.warmup=1",
    "denoiser.train.steps=3",
    "denoiser.train.batch=4",
    "denoiser.train.warmup=1",
    "denoiser.sample.count=2",
    "denoiser.sample.steps=2",
)
SHORT = (
    *("denoiser.train.steps=2", "denoiser.train.batch=4", "denoiser.train.warmup=0", "denoiser.train.ema=0"),
    "denoiser.sample.count=1",
)


@pytest.fixture(scope="module")
def class_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "class"
    list(Run(recipe("tiny-class", overrides=FEW), folder, device="cpu").develop(page=False))
    return folder / "model.safetensors"


@pytest.fixture
def shapes_and_moons(tmp_path: Path) -> Path:
    """Two classes, one of them known to the model."""
    for name, colour in (("star", "red"), ("moon", "blue")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (40, 40), colour).rotate(number).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


def asked(source: object, *changes: str) -> Asked:
    return Asked(source=str(source), changes=changes)


def tuned(source: object, stored: StoredModel, *changes: str) -> Recipe:
    return recipe_asked(asked(source, *SHORT, *changes), start=stored, name="class")


def test_a_class_it_does_not_know_comes_after_those_it_knows(class_model: Path, shapes_and_moons: Path) -> None:
    stored = load_model(class_model)
    run = Run(tuned(shapes_and_moons, stored), shapes_and_moons.parent / "run", device="cpu", start=stored)
    assert run.resolved.names.classes == (*stored.names.classes, "moon")
    list(run.develop(page=False))
    model = load(shapes_and_moons.parent / "run", device="cpu")
    assert model.classes == (*stored.names.classes, "moon")
    assert len(model.sample(label=["moon", "star"], steps=2)) == 2
    assert float(model.diffusion.scale) == float(stored.state["scale"])


def test_weights_are_the_models_before_the_first_step(class_model: Path) -> None:
    stored = load_model(class_model)
    spec = stored.spec
    assert isinstance(spec, ModelSpec)
    old = spec.conditioners[0]
    more = spec.model_copy(update={"conditioners": (old.model_copy(update={"classes": 10, "null": 10}),)})
    model = LatentDiffusion(more)
    begin_with(model, stored)
    table, before = model.state_dict()[LABELS], stored.state[LABELS]
    assert torch.equal(table[:8], before[:8])
    for row in (8, 9, 10):  # two new classes begin like no class at all, which stays the last
        assert torch.equal(table[row], before[8])
    others = [name for name in stored.state if name != LABELS]
    assert all(torch.equal(model.state_dict()[name], stored.state[name]) for name in others)


def test_without_names_numbers_stand_for_classes(class_model: Path) -> None:
    nameless = replace(load_model(class_model), names=Names())
    assert class_names(nameless, ["3", "moon"]) == (*map(str, range(8)), "moon")


def test_it_learns_in_small_steps_on_the_models_own_latents(class_model: Path, shapes_and_moons: Path) -> None:
    stored = load_model(class_model)
    made = tuned(shapes_and_moons, stored)
    fresh = recipe_asked(asked(shapes_and_moons, "data.size=32"))
    assert made.denoiser is not None
    assert made.denoiser.train is not None
    assert fresh.denoiser is not None
    assert fresh.denoiser.train is not None
    assert made.denoiser.train.learning_rate < fresh.denoiser.train.learning_rate / 2
    assert (made.data.size, made.first_stage.train, made.first_stage.model) == (32, None, stored.spec.first_stage)
    folder = shapes_and_moons.parent / "run"
    list(Run(made, folder, device="cpu", start=stored).develop(page=False))
    state = load_model(folder / "model.safetensors").state
    kept = [name for name in stored.state if name.startswith("first_stage.")]
    moved = [name for name in stored.state if name.startswith("network.")]
    assert kept
    assert all(torch.equal(state[name], stored.state[name]) for name in kept)
    assert any(not torch.equal(state[name], stored.state[name]) for name in moved)
    assert max(float((state[name] - stored.state[name]).abs().max()) for name in moved) < 1e-3


def test_another_size_is_another_size_of_the_same_network(class_model: Path, shapes_and_moons: Path) -> None:
    stored = load_model(class_model)
    folder = shapes_and_moons.parent / "run"
    list(Run(tuned(shapes_and_moons, stored, "data.size=48"), folder, device="cpu", start=stored).develop(page=False))
    (picture,) = load(folder, device="cpu").sample(label="moon", steps=2)
    assert picture.size == (48, 48)


def test_captions_are_read_by_the_models_own_tokenizer(tmp_path: Path) -> None:
    first = recipe("tiny-text", overrides=FEW)
    list(Run(first, tmp_path / "text", device="cpu").develop(page=False))
    stored = read_whole(tmp_path / "text")
    made = recipe_asked(asked("shapes:single", "data.count=20", *SHORT), start=stored, name="text")
    run = Run(made, tmp_path / "run", device="cpu", start=stored)  # labels alone: their names are the captions
    assert run.resolved.tokenizer is not None
    assert run.resolved.tokenizer.to_json() == stored.tokenizer
    list(run.develop(page=False))
    assert load(tmp_path / "run", device="cpu").fields == ("caption",)


def test_it_goes_on_with_the_same_model_only(class_model: Path, tmp_path: Path) -> None:
    stored = load_model(class_model)
    made = tuned("shapes:single", stored, "data.count=20")
    with pytest.raises(SpecError, match="begins with the model 'class'; say where it is with --from"):
        Run(made, tmp_path / "run", device="cpu")
    other = replace(stored, state={name: tensor + 1 for name, tensor in stored.state.items()})
    with pytest.raises(InputError, match="begun from another 'class'"):
        Run(made, tmp_path / "run", device="cpu", start=other)
    assert not (tmp_path / "run").exists()


def test_what_counts_how_much_may_change(class_model: Path, tmp_path: Path) -> None:
    stored = load_model(class_model)
    changed = ("denoiser.objective.times={kind: shifted, factor: 2}", "denoiser.objective.weighting={kind: uniform}")
    made = tuned("shapes:single", stored, "data.count=20", *changed)
    assert Run(made, tmp_path / "run", device="cpu", start=stored).recipe.denoiser.objective.times.factor == 2
    made = tuned("shapes:single", stored, "data.count=20", "denoiser.objective.loss=l1")
    with pytest.raises(SpecError, match="objective differs from that of class"):
        Run(made, tmp_path / "other", device="cpu", start=stored)


def test_it_is_sampled_as_before(class_model: Path) -> None:
    stored = load_model(class_model)
    sampled = {"solver": "dpm++2m", "eta": 0.5, "steps": 7, "guidance": 1.5}
    made = tuned("shapes:single", replace(stored, card={**stored.card, "sample": sampled}), "data.count=20")
    assert sampled.items() <= (made.plain()["denoiser"]["sample"] | {"steps": 7}).items()


def test_what_does_not_fit_is_refused_before_a_folder_is_made(class_model: Path, tmp_path: Path) -> None:
    stored = load_model(class_model)
    made = tuned("shapes:single", stored, "data.count=20", "denoiser.network.blocks=2")
    with pytest.raises(SpecError, match="network differs from that of class"):
        Run(made, tmp_path / "run", device="cpu", start=stored)
    with pytest.raises(
        DataError,
        match=r"class is steered by the field 'label' and this data set has .*a folder with task=unconditional",
    ):
        Run(tuned("shapes", stored, "data.count=20"), tmp_path / "run", device="cpu", start=stored)
    alone = load_model(class_model.parent / "first_stage" / "model.safetensors")
    with pytest.raises(SpecError, match="a first stage alone has no denoiser to fine-tune; use it with --first-stage"):
        from_model(recipe("tiny-class"), alone, name="alone")
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_ends_with_the_same_weights(class_model: Path, tmp_path: Path) -> None:
    """By Muon, which a model that was trained by AdamW may well be tuned with."""
    stored = load_model(class_model)
    few = ("data.count=20", "denoiser.train.steps=4", "denoiser.train.save_every=1", "denoiser.train.optimizer=muon")
    made = tuned("shapes:single", stored, *few)
    list(Run(made, tmp_path / "calm", device="cpu", start=stored).develop(page=False))
    for _ in range(2):
        events = Run(made, tmp_path / "stopped", device="cpu", start=stored).develop(page=False)
        for event in events:
            if type(event).__name__ == "Advance":
                events.close()
                break
    list(Run(made, tmp_path / "stopped", device="cpu", start=stored).develop(page=False))
    calm, stopped = (_bytes(tmp_path / name / "model.safetensors") for name in ("calm", "stopped"))
    assert calm == stopped


def _bytes(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(sorted(load_model(path).state.items())), buffer)
    return buffer.getvalue()

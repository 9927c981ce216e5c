"""Teaching: a run that begins with a model that something else steered."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from darkroom.checkpoint.store import StoredModel, build, load_model
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError, SpecError
from darkroom.core.spec import parse
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.process.objective import ObjectiveSpec, ShiftedTimesSpec
from darkroom.recipes.asked import Asked, recipe_asked
from darkroom.recipes.given import on_pixels
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run
from darkroom.recipes.schema import Recipe
from darkroom.recipes.teach import taught as teach
from darkroom.recipes.tune import begin_with
from darkroom.tasks.load import load

FEW = (
    "data.count=24",
    "first_stage.train.steps=2",
    "first_stage.train.batch=4",
    "first_stage.train.warmup=1",
    "denoiser.train.steps=2",
    "denoiser.train.batch=4",
    "denoiser.train.warmup=1",
    "denoiser.sample.count=1",
    "denoiser.sample.steps=2",
)
SHORT = (
    "data.count=24",
    "denoiser.train.steps=2",
    "denoiser.train.batch=4",
    "denoiser.train.warmup=0",
    "denoiser.train.ema=0",
    "denoiser.sample.count=1",
    "denoiser.sample.steps=2",
)


def trained(name: str, folder: Path) -> StoredModel:
    list(Run(recipe(name, overrides=FEW), folder, device="cpu").develop(page=False))
    return load_model(folder / "model.safetensors")


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    return trained("tiny-text", tmp_path_factory.mktemp("runs") / "text")


@pytest.fixture(scope="module")
def map_model(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    return trained("tiny-semantic", tmp_path_factory.mktemp("runs") / "map")


def taught(source: str, stored: StoredModel, *changes: str) -> Recipe:
    return recipe_asked(Asked(source=source, changes=(*SHORT, *changes)), start=stored, name="before")


def begun(made: Recipe, stored: StoredModel) -> LatentDiffusion:
    """The model before its first step."""
    spec = made.model_spec()
    assert spec is not None
    torch.manual_seed(1)
    model = LatentDiffusion(spec)
    begin_with(model, stored)
    return model


def old(stored: StoredModel) -> LatentDiffusion:
    found = build(stored)
    assert isinstance(found, LatentDiffusion)
    return found


def test_new_planes_change_nothing_at_first(text_model: StoredModel) -> None:
    """Latents, time and tokens of the text model: with a map beside them the network still answers the same."""
    made = taught("tiny-semantic", text_model)
    assert made.start is not None
    assert made.start.taught
    both = made.model_spec()
    assert both is not None
    words = next(each for each in _spec(text_model).conditioners)
    spec = both.model_copy(
        update={
            "conditioners": (*both.conditioners, words),
            "network": both.network.model_copy(update={"context_width": _spec(text_model).network.context_width}),
        }
    )
    model = LatentDiffusion(spec)
    begin_with(model, text_model)
    x, t = torch.randn(2, spec.first_stage.latent_channels, 8, 8), torch.tensor([5, 700])
    tokens = torch.randn(2, 7, spec.network.context_width or 0)
    planes = torch.randn(2, spec.network.in_channels - x.shape[1], 8, 8)
    with torch.no_grad():
        before = old(text_model).network(x, t, Conditions(tokens=tokens))
        after = model.network(x, t, Conditions(tokens=tokens, planes=planes))
    torch.testing.assert_close(after, before)


def test_what_is_forgotten_says_nothing_any_more(text_model: StoredModel) -> None:
    """Without captions the second attention is the sequence's own, and begins silent; the rest is the model's."""
    model = begun(taught("tiny-uncond", text_model), text_model)
    for key, value in model.state_dict().items():
        if ".cross_attention." not in key:
            assert torch.equal(value, text_model.state[key]), key
        elif ".out." in key:
            assert not value.any(), key


def test_planes_that_stay_keep_their_place(map_model: StoredModel) -> None:
    """A map beside a masked picture: its weights move to where its planes lie now, those of the other begin at zero."""
    spec = _spec(map_model)
    (map_,) = spec.conditioners
    assert isinstance(map_, MapSpec)
    latent = spec.first_stage.latent_channels
    masked = MaskedSpec(channels=latent + 1)
    network = spec.network.model_copy(update={"in_channels": 2 * latent + 1 + map_.channels})
    model = LatentDiffusion(spec.model_copy(update={"conditioners": (masked, map_), "network": network}))
    begin_with(model, map_model)
    stem, before = model.state_dict()["network.stem.weight"], map_model.state["network.stem.weight"]
    assert torch.equal(stem[:, :latent], before[:, :latent])
    assert not stem[:, latent : 2 * latent + 1].any()
    assert torch.equal(stem[:, 2 * latent + 1 :], before[:, latent:])
    assert torch.equal(model.state_dict()["conditioning.by_field.map.mix.weight"], _mix(map_model))


def _mix(stored: StoredModel) -> torch.Tensor:
    return stored.state["conditioning.by_field.map.mix.weight"]


def _spec(stored: StoredModel) -> ModelSpec:
    assert isinstance(stored.spec, ModelSpec)
    return stored.spec


@pytest.mark.parametrize("name", ["tiny-layout", "tiny-semantic", "tiny-superres", "tiny-inpaint", "tiny-class"])
def test_every_task_can_be_taught_to_a_text_model(text_model: StoredModel, tmp_path: Path, name: str) -> None:
    made = taught(name, text_model)
    run = Run(made, tmp_path / "run", device="cpu", start=text_model)
    list(run.develop(page=False))
    model = load(tmp_path / "run", device="cpu")
    assert model.fields == tuple(each.field for each in recipe(name).denoiser.conditioners)  # type: ignore[union-attr]
    assert float(model.diffusion.scale) == float(text_model.state["scale"])
    key = next(key for key in text_model.state if key.startswith("first_stage."))
    assert torch.equal(model.diffusion.state_dict()[key], text_model.state[key])


def changed(stored: StoredModel, **values: Any) -> StoredModel:
    """The same weights under a spec with other values, for what is decided before a weight is looked at."""
    return replace(stored, spec=_spec(stored).model_copy(update=values))


def test_tokens_get_the_width_that_the_model_attends_to(text_model: StoredModel) -> None:
    width = _spec(text_model).network.context_width
    made = taught("tiny-class", text_model, "denoiser.conditioners.0.drop=0.3")
    assert made.denoiser is not None
    (label,) = made.denoiser.conditioners
    assert isinstance(label, ClassSpec)
    assert (label.width, label.drop, made.denoiser.network.context_width) == (width, 0.3, width)
    plain = recipe("tiny-class").denoiser
    assert plain is not None
    wide = plain.model_copy(update={"conditioners": (plain.conditioners[0].model_copy(update={"width": 48}),)})
    both = wide.model_copy(update={"conditioners": (*_spec(text_model).conditioners, *wide.conditioners)})
    parts = teach(both, _spec(text_model), name="before", small=4)
    assert [each.get("width", each.get("encoder", {}).get("width")) for each in parts["conditioners"]] == [width] * 2


def test_what_counts_how_much_is_the_recipes(text_model: StoredModel) -> None:
    noisiest = ObjectiveSpec(times=ShiftedTimesSpec(factor=3.0), loss="l1")
    spec = _spec(text_model).model_copy(update={"objective": noisiest})
    part = recipe("tiny-class").denoiser
    assert part is not None
    found = parse(ObjectiveSpec, teach(part, spec, name="before", small=4)["objective"], where="test")
    assert (found.times, found.weighting, found.loss) == (part.objective.times, part.objective.weighting, "l1")


def test_a_class_that_knows_no_nothing_is_not_dropped(text_model: StoredModel) -> None:
    label = ClassSpec(classes=3, width=_spec(text_model).network.context_width or 0, drop=0.0)
    spec = _spec(text_model).model_copy(update={"conditioners": (label,)})
    part = recipe("tiny-class").denoiser
    assert part is not None
    (kept,) = teach(part, spec, name="before", small=4)["conditioners"]
    assert kept["drop"] == 0.0
    assert kept["null"] is None


def test_where_nothing_is_attended_to_no_tokens_can_be_taught(text_model: StoredModel) -> None:
    bare = _spec(text_model).network.model_copy(
        update={"transformer_depth": 0, "context_width": None, "places": "none"}
    )
    with pytest.raises(
        SpecError, match=r"before attends to nothing but itself .* maps, small pictures and holes, but no"
    ):
        taught("tiny-class", changed(text_model, network=bare, conditioners=()))


def test_a_model_of_grey_pixels_is_taught_on_grey_pixels(tmp_path: Path) -> None:
    changes = ("data.channels=1", "first_stage.model.image_channels=1", *FEW)
    grey = on_pixels(recipe("tiny-uncond", overrides=changes))
    list(Run(grey, tmp_path / "grey", device="cpu").develop(page=False))
    stored = load_model(tmp_path / "grey" / "model.safetensors")
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        Image.new("L", (32, 32), 40 * number).save(folder / f"{number}.png")
    made = recipe_asked(Asked(source=str(folder), changes=(*SHORT, "task=inpainting")), start=stored, name="grey")
    list(Run(made, tmp_path / "run", device="cpu", start=stored).develop(page=False))
    (drawn,) = load(tmp_path / "run", device="cpu").sample(
        image=folder / "0.png", mask=Image.new("L", (32, 32), 255), steps=2
    )
    assert drawn.mode == "L"


def test_pictures_of_what_stays_are_spoilt_as_before(tmp_path: Path, text_model: StoredModel) -> None:
    masked = recipe("tiny-inpaint", overrides=(*FEW, "data.masks.kind=boxes"))
    list(Run(masked, tmp_path / "holes", device="cpu").develop(page=False))
    stored = load_model(tmp_path / "holes" / "model.safetensors")
    made = recipe_asked(Asked(source="shapes", changes=(*SHORT, "task=inpainting+text")), start=stored, name="holes")
    assert made.data.masks == masked.data.masks
    assert recipe_asked(Asked(source="tiny-inpaint", changes=SHORT), start=text_model).data.masks != masked.data.masks


def test_a_taught_run_that_was_stopped_ends_with_the_same_weights(text_model: StoredModel, tmp_path: Path) -> None:
    made = taught("tiny-semantic", text_model, "denoiser.train.steps=4", "denoiser.train.save_every=1")
    list(Run(made, tmp_path / "calm", device="cpu", start=text_model).develop(page=False))
    events = Run(made, tmp_path / "stopped", device="cpu", start=text_model).develop(page=False)
    for event in events:
        if type(event).__name__ == "Advance":
            events.close()
            break
    list(Run(made, tmp_path / "stopped", device="cpu", start=text_model).develop(page=False))
    calm, stopped = (load_model(tmp_path / name / "model.safetensors").state for name in ("calm", "stopped"))
    assert all(torch.equal(calm[key], stopped[key]) for key in calm)


def test_a_folder_is_taught_what_was_asked_for(text_model: StoredModel, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 90, 200)).save(folder / f"{number}.png")
    made = recipe_asked(Asked(source=str(folder), changes=(*SHORT, "task=inpainting")), start=text_model, name="before")
    assert made.denoiser is not None
    (masked,) = made.denoiser.conditioners
    assert isinstance(masked, MaskedSpec)
    assert masked.channels == _spec(text_model).first_stage.latent_channels + 1
    assert not masked.guesses  # its network knows whole latents
    list(Run(made, tmp_path / "run", device="cpu", start=text_model).develop(page=False))
    model = load(tmp_path / "run", device="cpu")
    (drawn,) = model.sample(image=folder / "0.png", mask=Image.new("L", (32, 32), 255), size=32, steps=2)
    assert drawn.size == (32, 32)


def test_small_pictures_may_be_of_another_factor(text_model: StoredModel, tmp_path: Path) -> None:
    for number in range(6):
        Image.effect_noise((64, 64), number + 1).convert("RGB").save(tmp_path / f"{number}.png")
    changes = ("task=super-resolution", "data.degradation.factor=2", "denoiser.sample.eta=0.5")
    made = taught(str(tmp_path), text_model, *changes)
    assert made.denoiser is not None
    (low_res,) = made.denoiser.conditioners
    assert isinstance(low_res, LowResSpec)
    assert low_res.patch * 2 == made.model_spec().first_stage.factor
    assert low_res.guesses == 0  # its network knows whole latents
    assert made.data.degradation.factor == 2


def test_the_body_of_the_network_is_the_models(text_model: StoredModel, tmp_path: Path) -> None:
    made = taught("tiny-semantic", text_model, "denoiser.network.blocks=2")
    with pytest.raises(SpecError, match="network differs from that of before"):
        Run(made, tmp_path / "run", device="cpu", start=text_model)


def test_another_model_of_that_name_is_refused(text_model: StoredModel, map_model: StoredModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="begun from another 'before'"):
        Run(taught("tiny-semantic", text_model), tmp_path / "run", device="cpu", start=map_model)

"""Recipes are found by forgiving names, completed, overridden, and refused in one sentence."""

from pathlib import Path

import pytest
import yaml

from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.core.errors import SpecError
from darkroom.core.spec import parse
from darkroom.recipes.asked import Asked, recipe_asked
from darkroom.recipes.read import names, recipe
from darkroom.recipes.schema import Recipe


@pytest.mark.parametrize("name", names())
def test_every_built_in_recipe_is_valid_named_by_its_file_and_survives_yaml(name: str) -> None:
    read = recipe(name)
    assert read.name == name == name.lower()
    assert read.source
    written = yaml.safe_load(yaml.safe_dump(read.plain()))
    assert parse(Recipe, written, where=name) == read


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("kl_f8", "kl-f8"),
        ("KL-F8", "kl-f8"),
        ("txt2img-1p4B", "txt2img-1p4b"),
        ("lsun-beds256", "lsun_beds256"),
        ("layout2img_openimages256", "layout2img-openimages256"),
        ("Cin256_V2", "cin256-v2"),
    ],
)
def test_names_are_forgiving(asked: str, name: str) -> None:
    assert recipe(asked).name == name


def test_the_list_counts_as_people_do() -> None:
    listed = names()
    places = [listed.index(name) for name in ("kl-f4", "kl-f8", "kl-f16", "celeba256", "ldm-2", "ldm-16", "tiny-text")]
    assert places == sorted(places)
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("kl-f9", "did you mean 'kl-f"),
        ("celeba_265", "did you mean 'celeba256'"),
        ("nowhere/mine.yaml", "there is no such recipe file"),
        ("mine.yml", "there is no such recipe file"),
    ],
)
def test_unknown_names_and_files(asked: str, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        recipe(asked)


def test_overrides_reach_every_depth() -> None:
    changed = recipe(
        "celeba256",
        overrides=["denoiser.train.steps=7", "data.source=faces", "first_stage.train=null", "seed=3"],
    )
    assert changed.denoiser is not None
    assert changed.denoiser.train is not None
    assert (changed.denoiser.train.steps, changed.data.source, changed.seed) == (7, "faces", 3)
    assert changed.first_stage.train is None
    assert changed.denoiser.network == recipe("ffhq256").denoiser.network  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("denoiser.train.stepz=7", r"denoiser\.train\.stepz.*did you mean 'steps'"),
        ("denoiser.network.chanels=7", r"denoiser\.network\.chanels.*did you mean 'channels'"),
        ("sede=1", r"'sede'.*did you mean 'seed'"),
        ("denoiser.prediction=epsilon", r"denoiser\.prediction"),
        ("data.size=100", "100"),
        ("denoiser.train.batch=0", r"denoiser\.train\.batch"),
        ("first_stage.recipe=vq-f5", r"first_stage\.recipe.*did you mean 'vq-f"),
        ("steps", "key=value"),
    ],
)
def test_wrong_overrides(override: str, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        recipe("celeba256", overrides=[override])


def test_a_first_stage_is_taken_from_another_recipe_and_changed() -> None:
    rung = recipe("ldm-2").first_stage.model
    assert isinstance(rung, AutoencoderSpec)
    assert (rung.channels, rung.multipliers, rung.bottleneck) == (128, (1, 2), VQSpec(codes=2048))
    swapped = recipe("ldm-4", overrides=["first_stage.model.bottleneck={kind: kl}"]).first_stage.model
    assert isinstance(swapped, AutoencoderSpec)
    assert swapped.bottleneck == KLSpec()


def test_an_override_can_name_another_first_stage() -> None:
    changed = recipe("celeba256", overrides=["first_stage.recipe=kl-f4", "denoiser.scale=null"])
    assert changed.first_stage == recipe("kl-f4").first_stage


def test_a_file_is_read_like_a_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nsummary: a test\ndata: {size: 64}\nfirst_stage: {recipe: KL_f8}\n")
    assert recipe(file).first_stage == recipe(str(file)).first_stage == recipe("kl-f8").first_stage


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1, 2]", "a recipe is a mapping of keys, list came"),
        ("name: {", "not valid YAML"),
        ("name: mine\nsumary: x\n", "summary"),
        (
            "name: mine\nsummary: x\ndata: {size: 64}\nfirst_stage: {recipe: kl-f88}\n",
            "unknown recipe 'kl-f88'",
        ),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SpecError, match=sentence) as caught:
        recipe(file)
    assert "mine.yaml" in str(caught.value)


def test_pictures_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(SpecError, match=r"photos\.zip: no recipe, .* pictures are given as a folder"):
        recipe(tmp_path / "photos.zip")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("epochs=3", "'epochs' (here: steps); keys of a recipe are written whole: first_stage.train.steps, denoiser"),
        ("lr=1e-4", "'lr' (here: learning_rate); keys of a recipe are written whole: first_stage.train.learning_rate"),
        ("batch_size=8", "'batch_size'; keys of a recipe are written whole: first_stage.train.batch, denoiser"),
        ("nothing_like_it=8", "minutes=60 fits, and keys of the recipe that are written whole, e.g. data.size=64"),
    ],
)
def test_what_is_called_otherwise_elsewhere_is_told_with_our_keys(change: str, sentence: str) -> None:
    with pytest.raises(SpecError) as refused:
        recipe_asked(Asked(source="tiny-text", changes=(change,)))
    assert sentence in str(refused.value)

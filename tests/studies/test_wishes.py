"""What may be asked of a study, and how the cells follow from it: nothing is trained."""

from types import SimpleNamespace

import pytest

from darkroom.core.errors import InputError
from darkroom.core.spec import parse
from darkroom.data.sources import open_data
from darkroom.process.prediction import build_prediction
from darkroom.process.schedule import CosineSpec, LinearSpec, build_schedule
from darkroom.recipes.describe import count
from darkroom.recipes.schema import Recipe
from darkroom.studies import wishes
from darkroom.studies.cells import HeldOut, Pace, Quality, Sampling, Training
from darkroom.studies.choose import STUDIES, build_study
from darkroom.studies.solvers import evaluations

SMALL = ("pictures=8", "size=32")


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("compresion", (), "did you mean 'compression'"),
        ("solvers", ("minutes=5",), "study solvers does not take 'minutes'"),
        ("compression", ("minutes=5", "steps=3"), "give one of them"),
        ("compression", ("minutes=0",), "'minutes'"),
        ("compression", (*SMALL, "factors=3"), "factors=3 does not fit"),
        ("compression", (*SMALL, "factors=4,32"), "factors=32 does not fit pictures of 32 px"),
        ("compression", (*SMALL, "bottlenecks=kl,vd"), "'bottlenecks"),
        ("solvers", ("solvers=heum",), "did you mean 'heun'"),
        ("guidance", ("samplings=2,3",), "give one number of steps"),
        ("guidance", ("scales=1,.nan",), "'scales"),
        ("inpainting", (*SMALL, "samplings=2,3"), "give one number of steps, samplings=2"),
        ("speed", (*SMALL, "size=48", "factors=6"), "factors=6 does not fit; a first stage halves"),
        ("speed", (*SMALL, "factors=16"), "factors=16 does not fit: the network halves latents twice"),
        ("super-resolution", (*SMALL, "minutes=5", "parameters=300000000"), "cannot be tried here (too large)"),
        ("solvers", (f"seed={2**63}",), "'seed'"),
        ("solvers", ("samplings=5,3000", "solvers=ddim"), "3000"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, changes: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        build_study(name, "shapes", changes=changes)
    assert sentence in str(refused.value)


def test_what_looks_at_no_pictures_needs_no_network_for_them() -> None:
    with pytest.raises(InputError, match="study speed compares no pictures"):
        build_study("speed", "shapes", changes=SMALL, features=["judge"])


def test_shards_elsewhere_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "https://example.org/cats/{000000..000199}.tar"
    monkeypatch.setattr(wishes, "open_data", lambda data, **_: open_data("shapes", limit=8))
    assert wishes.base(place, wishes.Wishes(), task="unconditional").data.source == place


def test_a_model_that_nothing_can_guide_is_refused() -> None:
    with pytest.raises(InputError, match="nothing can guide it"):
        build_study("guidance", "shapes-superres")


def test_a_model_of_unknown_pictures_needs_them_named() -> None:
    with pytest.raises(InputError, match="data=FOLDER is needed"):
        build_study("solvers", "emoji")


def test_compression_has_equal_parameters_and_shares_its_minutes() -> None:
    cells = build_study("compression", "shapes", changes=(*SMALL, "minutes=100")).cells
    trainings = [each for each in cells if isinstance(each, Training)]
    firsts = [each for each in trainings if each.recipe.denoiser is None]
    denoisers = [each for each in trainings if each.recipe.denoiser is not None]
    assert [each.name for each in denoisers] == [
        "ldm-1",
        *(f"ldm-{f}-{k}" for f, k in ((2, "kl"), (4, "kl"), (4, "vq"), (8, "kl"), (8, "vq"), (16, "kl"))),
    ]
    assert sum(each.recipe.minutes or 0 for each in trainings) == pytest.approx(100)
    assert len({each.recipe.minutes for each in denoisers}) == 1
    assert len({each.recipe.minutes for each in firsts}) == 1
    sizes = [count(each.recipe)["network"] for each in denoisers]
    assert max(sizes) < 1.3 * min(sizes), sizes
    assert {each.on for each in denoisers} == {None, *(each.name for each in firsts)}
    assert all(each.recipe.first_stage.model.factor == int(each.name.split("-")[1]) for each in denoisers)
    trains = [each.recipe.denoiser.train for each in denoisers if each.recipe.denoiser and each.recipe.denoiser.train]
    assert [each.batch for each in trains] == [16, 32, 32, 32, 32, 32, 32]  # 32, 16, 8, ... places along a side
    assert len({each.learning_rate for each in trains}) == 1


@pytest.mark.parametrize("name", ["compression", "super-resolution", "inpainting"])
def test_paces_are_measured_one_soon_after_another(name: str) -> None:
    cells = build_study(name, "shapes", changes=SMALL).cells
    kinds = [each.kind for each in cells]
    assert kinds == sorted(kinds, key=("training", "pace", "quality", "held-out").index)


def test_bottlenecks_that_are_named_are_made_of_every_factor() -> None:
    cells = build_study("compression", "shapes", changes=(*SMALL, "factors=2,8", "bottlenecks=vq,kl", "batch=4")).cells
    models = [each for each in cells if isinstance(each, Training) and each.recipe.denoiser]
    assert [each.name for each in models] == ["ldm-2-vq", "ldm-2-kl", "ldm-8-vq", "ldm-8-kl"]
    assert {each.recipe.denoiser.train.batch for each in models} == {4}  # type: ignore[union-attr]


def test_few_minutes_have_no_more_pictures_than_they_can_encode() -> None:
    def data(*changes: str) -> tuple[int | None, bool]:
        cells = build_study("super-resolution", "shapes", changes=("size=32", *changes)).cells
        recipe = next(each.recipe for each in cells if isinstance(each, Training))
        return recipe.data.count, recipe.data.turn

    assert data("minutes=1") == (round(1000 * 0.7 / 3), False)  # turned are few pictures of a folder alone
    assert data("minutes=1", "pictures=50") == (50, True)


@pytest.mark.parametrize("name", [name for name, kind in STUDIES.items() if kind.of == "pictures"])
def test_cells_have_names_of_their_own_and_models_that_come_before(name: str) -> None:
    made: set[str] = set()
    fewer = ("factors=1,4",) if name == "compression" else ()
    for cell in build_study(name, "shapes", changes=(*SMALL, *fewer)).cells:
        assert cell.name not in made
        match cell:
            case Training(on=on):
                assert on is None or on in made
            case Quality(model=model):
                assert model in made
            case Pace(model=model, recipe=recipe):
                assert recipe is not None or model in made
            case HeldOut():
                assert cell.size == 32
        made.add(cell.name)


def test_what_is_asked_for_twice_is_made_once_in_rising_order() -> None:
    study = build_study("solvers", "shapes", changes=("solvers=heun,ddim,heun", "samplings=4,2,4"))
    assert [cell.name for cell in study.cells] == ["heun-2", "ddim-2", "heun-4", "ddim-4"]
    scales = build_study("guidance", "shapes", changes=("scales=3,1,1.0,3.0000001",)).cells
    assert [cell.name for cell in scales][:3] == ["scale-1-always", "scale-3-always", "scale-3.0000001-always"]


def test_models_of_pixels_and_of_latents_learn_by_one_rule() -> None:
    for name in ("super-resolution", "inpainting"):
        cells = build_study(name, "shapes", changes=("pictures=8", "minutes=5")).cells
        trains = {each.name: each.recipe.denoiser.train for each in cells if isinstance(each, Training) and each.on}  # type: ignore[union-attr]
        (pixels,) = [
            each.recipe.denoiser.train
            for each in cells
            if isinstance(each, Training) and each.recipe.denoiser and not each.on
        ]
        assert {each.batch for each in trains.values()} == {32}
        assert pixels.batch == 16
        assert {(each.optimizer, each.learning_rate) for each in trains.values()} == {("muon", pixels.learning_rate)}


def test_looks_are_cheap_for_all_for_they_are_paid_from_the_minutes() -> None:
    cells = build_study("compression", "shapes", changes=(*SMALL, "minutes=60", "factors=1,4")).cells
    drawn = [cell.recipe.denoiser.sample for cell in cells if isinstance(cell, Training) and cell.recipe.denoiser]
    assert [(sample.count, sample.steps) for sample in drawn] == [(1, 25)] * 3


@pytest.mark.parametrize("name", ["super-resolution", "inpainting"])
def test_what_is_drawn_is_left_as_drawn(name: str) -> None:
    cells = build_study(name, "shapes", changes=SMALL).cells
    assert {cell.sampling.match for cell in cells if isinstance(cell, Quality | Pace)} == {0}


def test_a_sampling_from_before_match_came_is_the_same_one() -> None:
    assert "match" not in Sampling(steps=3).plain()
    assert Sampling(steps=3, match=0).asked()["match"] == 0


def test_big_is_as_much_bigger_as_in_the_paper_as_widths_allow() -> None:
    cells = {cell.name: cell for cell in build_study("inpainting", "shapes", changes=("pictures=8",)).cells}
    recipes = [cells[name].recipe for name in ("ldm-4-vq", "ldm-4-vq-big")]  # type: ignore[union-attr]
    plain, big = (count(recipe)["network"] for recipe in recipes)
    assert recipes[1].denoiser is not None
    assert recipes[1].denoiser.network.resample == "residual"
    wanted = 387 / 215 * plain
    other = recipes[1].denoiser.network.channels
    for width in (other - 32, other + 32):
        values = recipes[1].plain()
        values["denoiser"]["network"]["channels"] = width
        assert abs(count(parse(Recipe, values, where="test"))["network"] - wanted) >= abs(big - wanted)


def test_evaluations_are_counted_where_noise_decides_how_often_a_step_asks() -> None:
    mild = SimpleNamespace(schedule=build_schedule(LinearSpec()), prediction=build_prediction("eps"))
    counts = {name: evaluations(mild, solver=name, steps=5) for name in ("ddim", "ddpm", "dpm++2m", "heun", "plms")}
    assert counts == {"ddim": 5, "ddpm": 5, "dpm++2m": 5, "heun": 9, "plms": 6}
    nearly_pure = SimpleNamespace(schedule=build_schedule(CosineSpec()), prediction=build_prediction("v"))
    assert evaluations(nearly_pure, solver="heun", steps=5) == 8  # its first step is Euler's


def test_the_regression_differs_from_the_diffusion_in_its_objective_alone() -> None:
    cells = {each.name: each for each in build_study("super-resolution", "shapes", changes=SMALL).cells}
    plain = [cells[name].recipe.plain()["denoiser"] for name in ("latent-diffusion", "latent-regression")]  # type: ignore[union-attr]
    assert {key for key in plain[0] if plain[0][key] != plain[1][key]} == {"objective", "sample"}

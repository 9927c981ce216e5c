"""What may be asked of a study, and how the cells follow from it: nothing is trained."""

import pytest

from darkroom.core.errors import SpecError
from darkroom.recipes.describe import count
from darkroom.studies.cells import Pace, Quality, Training
from darkroom.studies.choose import STUDIES, build_study

SMALL = ("pictures=8", "size=32")


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("compresion", (), "did you mean 'compression'"),
        ("solvers", ("minutes=5",), "study solvers does not take 'minutes'"),
        ("compression", ("minutes=5", "steps=3"), "give one of them"),
        ("compression", ("minutes=0",), "'minutes'"),
        ("compression", (*SMALL, "factors=3"), "factors=3 does not fit"),
        ("compression", (*SMALL, "bottlenecks=kl,vd"), "'bottlenecks"),
        ("solvers", ("solvers=heum",), "did you mean 'heun'"),
        ("guidance", ("samplings=2,3",), "give one number of steps"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, changes: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(SpecError) as refused:
        build_study(name, "shapes", changes=changes)
    assert sentence in str(refused.value)


def test_a_model_that_nothing_can_guide_is_refused() -> None:
    with pytest.raises(SpecError, match="nothing can guide it"):
        build_study("guidance", "shapes-superres")


def test_a_model_of_unknown_pictures_needs_them_named() -> None:
    with pytest.raises(SpecError, match="data=FOLDER is needed"):
        build_study("solvers", "emoji")


def test_compression_has_equal_parameters_and_shares_its_minutes() -> None:
    cells = build_study("compression", "shapes", changes=(*SMALL, "minutes=100")).cells
    trainings = [each for each in cells if isinstance(each, Training)]
    firsts = [each for each in trainings if each.recipe.denoiser is None]
    denoisers = [each for each in trainings if each.recipe.denoiser is not None]
    assert [each.name for each in denoisers] == [
        "ldm-1",
        *(f"ldm-{f}-{k}" for f in (2, 4, 8, 16) for k in ("kl", "vq")),
    ]
    assert sum(each.recipe.minutes or 0 for each in trainings) == pytest.approx(100)
    assert len({each.recipe.minutes for each in denoisers}) == 1
    assert len({each.recipe.minutes for each in firsts}) == 1
    sizes = [count(each.recipe)["network"] for each in denoisers]
    assert max(sizes) < 1.3 * min(sizes), sizes
    assert {each.on for each in denoisers} == {None, *(each.name for each in firsts)}
    assert all(each.recipe.first_stage.model.factor == int(each.name.split("-")[1]) for each in denoisers)


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
        made.add(cell.name)


def test_the_regression_differs_from_the_diffusion_in_its_objective_alone() -> None:
    cells = {each.name: each for each in build_study("super-resolution", "shapes", changes=SMALL).cells}
    plain = [cells[name].recipe.plain()["denoiser"] for name in ("latent-diffusion", "latent-regression")]  # type: ignore[union-attr]
    assert {key for key in plain[0] if plain[0][key] != plain[1][key]} == {"objective", "sample"}

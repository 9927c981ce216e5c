"""Every study end to end, as a miniature; killed anywhere it goes on, and no cell is made twice."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from darkroom.cli.main import main
from darkroom.core.errors import InputError
from darkroom.core.record import read_json, write_json
from darkroom.data.masks import MasksSpec
from darkroom.data.sources import open_data
from darkroom.recipes.describe import describe
from darkroom.recipes.length import trained
from darkroom.recipes.schema import Recipe
from darkroom.studies import carry, cost, inpainting, measure, speed, wishes
from darkroom.studies.carry import carry_out, finished
from darkroom.studies.cells import Quality, Training
from darkroom.studies.choose import build_study
from darkroom.studies.measure import real_pictures
from darkroom.tasks.load import load
from darkroom.train.events import Sentence

TINY = ("pictures=8", "size=32", "batch=2", "parameters=100000")
SMALL = (*TINY, "steps=1", "count=4", "real=6")


@pytest.fixture(autouse=True)
def few_previews(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw their previews in one step."""
    make = wishes.recipe_for_folder

    def small(*given: Any, **named: Any) -> Recipe:
        made = make(*given, **named)
        assert made.denoiser is not None
        sample = made.denoiser.sample.model_copy(update={"steps": 1})
        return made.model_copy(update={"denoiser": made.denoiser.model_copy(update={"sample": sample})})

    monkeypatch.setattr(wishes, "recipe_for_folder", small)


def quiet(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def tables(folder: Path) -> dict[str, list[list[str]]]:
    """The rows of each table by its title."""
    return {each["title"]: each["rows"] for each in read_json(folder / "results.json")["tables"]}


def carried(name: str, of: str, *changes: str, folder: Path) -> dict[str, list[list[str]]]:
    study = build_study(name, of, changes=changes)
    list(carry_out(study, folder, device="cpu", tell=quiet))
    assert all((folder / "cells" / each.name / "done.json").exists() for each in study.cells)
    return tables(folder)


def test_compression_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = (*SMALL, "factors=1,4", "bottlenecks=vq", "samplings=1,2", "parameters=40000")
    study = build_study("compression", "shapes", changes=changes)
    made: list[str] = []
    make: Callable[..., Any] = carry._made

    def counted(cell: Any, place: Any) -> Any:
        found = yield from make(cell, place)
        made.append(cell.name)
        return found

    monkeypatch.setattr(carry, "_made", counted)
    for events in (1, 6, 14):  # stopped after so many events of what was left
        for _, _event in zip(range(events), carry_out(study, tmp_path, device="cpu", tell=quiet), strict=False):
            pass
    assert f"{len(made)} of {len(study.cells)} cells are finished" in (tmp_path / "study.md").read_text()
    list(carry_out(study, tmp_path, device="cpu", tell=quiet))
    assert made == [each.name for each in study.cells]

    found = tables(tmp_path)
    rows = {row[0]: row for row in found["Compression, DDIM of 2 steps"]}
    assert set(rows) == {"ldm-1", "ldm-4-vq", "held-out-pictures"}
    assert float(rows["held-out-pictures"][-1].split()[0]) > 0  # the bias of so few
    assert rows["ldm-1"][3] == "–"  # no first stage
    assert float(rows["ldm-4-vq"][2]) > 0  # multiply-adds
    assert float(rows["ldm-4-vq"][8]) > 0  # drawn in a second
    assert (rows["ldm-4-vq"][6], rows["ldm-1"][4]) == ("1", "–")
    assert [(row[0], row[1]) for row in found["Beside pixels"]] == [("ldm-4-vq", "1"), ("ldm-4-vq", "2")]
    assert ["Tab. 13, row Batch Size", "LDM-1, -2, -4, -8, -16, -32", "7, 9, 40, 64, 112, 112"] in found[
        "The paper: compression"
    ]
    course = read_json(tmp_path / "cells" / "course-ldm-1" / "done.json")["found"]["points"]
    assert [each["step"] for each in course] == [1]
    assert course[0]["seconds"] > 0
    quality = read_json(tmp_path / "cells" / "quality-ldm-1-2" / "done.json")["found"]
    assert course[0]["subject"] == quality["subject"]  # the same pictures, drawn once
    plots = read_json(tmp_path / "results.json")["plots"]
    assert len(plots["throughput"]["series"]["ldm-1"]) == 2
    assert "ldm-4-vq" in (tmp_path / "throughput.svg").read_text()
    assert "Every training made 1 steps, so neither time nor" in (tmp_path / "study.md").read_text()
    assert not list(tmp_path.glob("cells/*/report.html"))  # pages of runs are not what a study is for
    assert "![Quality against training time" in (tmp_path / "study.md").read_text()
    assert (tmp_path / "study.html").read_text().count("data:image/svg+xml") == 2


def test_another_study_in_the_folder_is_refused(tmp_path: Path) -> None:
    study = build_study("speed", "shapes", changes=TINY)
    begun = carry_out(study, tmp_path, device="cpu", tell=quiet)
    next(begun)
    begun.close()
    other = build_study("speed", "shapes", changes=(*TINY, "samplings=3"))
    with pytest.raises(InputError, match=r"another study was begun here \(samplings was None and is \[3\] now\)"):
        next(carry_out(other, tmp_path, device="cpu", tell=quiet))
    for garbled in ("{", "[]", '{"study": "speed", "features": ["judge"], "cells": 3}', '{"cells": [{"name": []}]}'):
        (tmp_path / "study.json").write_text(garbled)
        with pytest.raises(InputError) as refused:
            next(carry_out(study, tmp_path, device="cpu", tell=quiet))
        assert "choose another --out" in str(refused.value)
    for cell in study.cells:
        (tmp_path / "cells" / cell.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cells" / cell.name / "done.json").write_text("{")
    with pytest.raises(InputError, match=r"done\.json: not JSON .*remove it to have it made again"):
        finished(study, tmp_path)


def test_what_an_earlier_version_began_goes_on_with_its_own_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*TINY, "factors=4", "samplings=2")
    before = build_study("speed", "shapes", changes=words)
    begun = carry_out(before, tmp_path, device="cpu", tell=quiet)
    next(begun)
    begun.close()
    monkeypatch.setattr(speed, "BATCH", 3)
    monkeypatch.setattr(speed, "FACTORS", (1, 4))
    now = build_study("speed", "shapes", changes=words)
    assert carry.begun(now, tmp_path).cells == tuple(before.cells) != tuple(now.cells)
    assert carry.begun(now, tmp_path / "new") is now
    said = next(carry_out(now, tmp_path, device="cpu", tell=quiet))
    assert said == Sentence(
        "this study was begun by another version, and goes on with the cells that it was begun with"
    )
    plan = read_json(tmp_path / "study.json")
    plan["cells"][0]["nobody knows this"] = 1
    write_json(tmp_path / "study.json", plan)
    with pytest.raises(InputError, match="another version wrote it, choose another --out"):
        carry.begun(now, tmp_path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("super-resolution", "{data}", "size=32", "--features", "nothing"), "no such feature network"),
        (("guidance", "shapes", "data={data}"), "does not say the caption that shapes is steered by"),
        (("guidance", "shapes", "data=nowhere"), "nowhere"),
        (("guidance", "shapes", "samplings=5000"), "5000"),
        (("super-resolution", "{data}", "size=32", "samplings=5000"), "5000"),
        (("super-resolution", "{data}", "size=32"), "1 of its pictures are there to compare with"),
    ],
)
def test_what_could_not_be_finished_is_not_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, words: tuple[str, ...], sentence: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for row in range(4):  # one of them is kept for testing
        open_data("shapes", size=32, limit=4).train.example(row).picture.save(data / f"{row}.png")
    given = [word.format(data=data) for word in words]
    assert main(["study", *given, "--device", "cpu", "--out", str(tmp_path / "study")]) == 2
    complaint = capsys.readouterr().err
    assert sentence in complaint
    assert complaint.count("\n") == 1
    assert main(["study", *given, "--device", "cpu", "--out", str(tmp_path / "study"), "--plan"]) == 2  # nor planned
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_a_picture_that_trainings_leave_out_is_left_out_of_figures_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    (data / "test").mkdir()
    source = open_data("shapes", size=32, limit=12).train
    for row in range(12):
        source.example(row).picture.save(data / ("train" if row < 6 else "test") / f"{row}.bmp")
    broken = data / "test" / "7.bmp"
    broken.write_bytes(broken.read_bytes()[:60])
    model = load("shapes-superres", device="cpu")
    assert len(real_pictures(model, str(data), most=10)[0]) == 6
    for _ in range(2):  # looked at once, then remembered
        kept, split = real_pictures(model, str(data), most=10, memo=tmp_path / "pictures.json")
        assert (len(kept), split) == (5, "test")


def test_minutes_are_shared_out_and_kept(tmp_path: Path) -> None:
    changes = (*TINY, "minutes=0.04", "factors=1,4", "bottlenecks=kl")
    study = build_study("compression", "shapes", changes=changes)
    trainings = [cell for cell in study.cells if isinstance(cell, Training)]
    assert [cell.recipe.minutes for cell in trainings] == pytest.approx([0.012, 0.014, 0.014])
    study = replace(study, cells=trainings)  # what is measured of them is measured in other tests
    begun = carry_out(study, tmp_path, device="cpu", tell=quiet)
    list(itertools.takewhile(lambda event: not (tmp_path / "cells" / "ldm-4-kl" / "recipe.yaml").exists(), begun))
    begun.close()
    first = (tmp_path / "cells" / "first-4-kl" / "recipe.yaml").read_text()
    list(carry_out(study, tmp_path, device="cpu", tell=quiet))
    assert (tmp_path / "cells" / "first-4-kl" / "recipe.yaml").read_text() == first
    for name in ("ldm-1", "ldm-4-kl"):
        settled = read_json(tmp_path / "cells" / name / "denoiser" / "pace.json")
        stages = read_json(tmp_path / "cells" / name / "done.json")["found"]["stages"]
        assert settled["seconds_used"] > 0  # what opening, measuring and caching took is not left to the training
        assert stages["denoiser"]["steps"] == settled["steps"] > 0
        marks = sorted((tmp_path / "cells" / name / "denoiser" / "models").glob("*"))
        assert int(marks[-1].stem) == settled["steps"]
    found = read_json(tmp_path / "results.json")
    assert any("Denoisers were given equal time, first stages too" in sentence for sentence in found["notes"])
    assert all(float(row[5]) > 0 for row in found["tables"][0]["rows"])  # minutes of the denoiser


def test_speed(tmp_path: Path) -> None:
    found = carried("speed", "shapes", *TINY, "samplings=1", "factors=1,4", folder=tmp_path)
    (pixels, latents) = found["Speed, DDIM of 1 steps"]
    assert (pixels[0], latents[0]) == ("LDM-1", "LDM-4")
    assert pixels[-1] == "1.00 x"
    assert float(latents[-2].split()[0]) > 1  # trained faster than pixels
    assert found["The paper: efficiency of inpainting, Tab. 6"][0][-1] == "24.74"


def test_super_resolution(tmp_path: Path) -> None:
    found = carried("super-resolution", "shapes", *SMALL, "samplings=2", folder=tmp_path)
    rows = found["Super-resolution"]
    assert [(row[0], row[1]) for row in rows] == [
        ("latent-diffusion", "2"),
        ("latent-regression", "1"),
        ("pixel-diffusion", "2"),
    ]
    assert all(float(row[2].split()[0]) > 0 for row in rows)  # PSNR


def test_inpainting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, models = {"first-vq": ("vq", False)}, {"ldm-1": None, "ldm-4-vq-big": "first-vq"}
    monkeypatch.setattr(inpainting, "FIRST_STAGES", first)
    monkeypatch.setattr(inpainting, "MODELS", models)
    monkeypatch.setattr(inpainting, "HOLES", {"40–50 %": (0.4, 0.5), inpainting.ALL: None})
    found = carried("inpainting", "shapes", *SMALL, "samplings=1", folder=tmp_path)
    assert [row[0] for row in found["Efficiency"]] == list(models)
    assert all(len(found[f"Holes of {words}"]) == 2 for words in inpainting.HOLES)
    cards = {
        share: read_json(tmp_path / "cells" / f"ldm-1-holes-{share}" / "done.json")["found"]["protocol"]
        for share in ("0.4-0.5", "all")
    }
    assert {share: each["asked"]["spoiling"]["masks"]["least"] for share, each in cards.items()} == {
        "0.4-0.5": 0.4,
        "all": MasksSpec().least,
    }


def test_inpainting_in_full_trains_what_tables_6_and_7_name() -> None:
    cells = build_study("inpainting", "shapes", changes=SMALL).cells
    trainings = {each.name: each.recipe for each in cells if isinstance(each, Training)}
    assert set(trainings) == {*inpainting.FIRST_STAGES, *inpainting.MODELS}
    spec = {name: trainings[name].first_stage.model.plain() for name in inpainting.FIRST_STAGES}
    assert [(each["bottleneck"]["kind"], each["middle_attention"]) for each in spec.values()] == [
        ("kl", True),
        ("vq", True),
        ("vq", False),
    ]
    assert sum(isinstance(each, Quality) for each in cells) == len(inpainting.MODELS) * len(inpainting.HOLES)


def test_guidance_draws_anew_for_each_interval(tmp_path: Path) -> None:
    found = carried("guidance", "shapes", "count=4", "real=6", "scales=1,3", "samplings=5", folder=tmp_path)
    rows = found["Guidance, model shapes"]
    assert [(row[0], row[1]) for row in rows] == [
        ("1", "always"),
        ("3", "always"),
        ("3", "middling noise"),
        ("3", "high noise"),
    ]
    assert len(list((tmp_path / "pictures").glob("samples-*"))) == 4
    assert len({row[2] for row in rows}) == 4


def test_a_plan_tries_each_way_of_drawing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guided step asks the network twice."""
    tried: list[float | None] = []

    def of_few_steps(cell: Quality, *_: Any, **__: Any) -> tuple[float, float]:
        tried.append(cell.sampling.guidance)
        return (1.0, 1.0) if cell.sampling.guidance == 1 else (2.0, 2.0)

    monkeypatch.setattr(cost, "_tried", of_few_steps)
    study = build_study("guidance", "shapes", changes=("scales=1,3", "samplings=10", "count=4"))
    found = cost.costs(study, tmp_path, device="cpu")
    assert [each.seconds for each in found] == [40.0, 80.0, 80.0, 80.0]
    assert tried == [1.0, 3.0]


def test_a_plan_tells_what_trainings_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "pace", lambda recipe, device: dict.fromkeys(trained(recipe), 0.5))
    monkeypatch.setattr(cost, "_tried", lambda *_, **__: (0.5, 0.25))
    changes = (*TINY, "minutes=10", "factors=4", "bottlenecks=kl", "samplings=5", "count=8")
    found = {
        each.name: each
        for each in cost.costs(build_study("compression", "shapes", changes=changes), tmp_path, device="cpu")
    }
    assert [(name, each.seconds) for name, each in found.items()] == [
        ("first-4-kl", pytest.approx(180)),
        ("ldm-4-kl", pytest.approx(420)),
        ("pace-ldm-4-kl-5", 2 * 16 * 1.5),
        ("course-ldm-4-kl", 4 * 8 * 1.5),
        ("quality-ldm-4-kl-5", 8 * 1.5),
        ("held-out-pictures", 0.0),
    ]
    recipe = next(
        cell.recipe for cell in build_study("compression", "shapes", changes=changes).cells if cell.name == "ldm-4-kl"
    )  # type: ignore[union-attr]
    work = found["ldm-4-kl"].work["denoiser"]
    assert work["multiply_adds"] == describe(recipe)["flops"]["network"] > 0
    assert (work["pictures_per_second"], work["steps"]) == (4.0, int(420 * 0.92 / 0.5))
    assert "4 pictures/s, 772 steps of 2" in cost.told(list(found.values()))


def test_looks_that_are_hardly_apart_are_measured_once() -> None:
    steps = [250, 500, 750, 996, 1000]
    marks = [Path(f"{step:08}.safetensors") for step in steps]
    assert [int(path.stem) for path in measure._apart(marks)] == [250, 500, 750, 1000]
    assert measure._apart(marks[:1]) == marks[:1]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "solvers", "shapes", "count=4", "real=6", "samplings=2", "solvers=ddim,heun"]
    words += ["--device", "cpu", "--out", str(tmp_path / "study")]
    assert main([*words, "--plan"]) == 0
    assert "2 cells, about" in capsys.readouterr().out
    assert not (tmp_path / "study").exists()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "| heun | 2 | 2 |" in said  # the first step of this model is from nearly pure noise, and Euler's
    assert "it compares no solvers with one another" in said
    assert main([*words, "--plan"]) == 0
    assert capsys.readouterr().out.count(" done ") == 2
    assert main(["study", "solvers", "shapes", "count=5", "--out", str(tmp_path / "study")]) == 2
    assert "another study was begun here" in capsys.readouterr().err

"""Whole runs of miniatures: both stages, stopping and going on, what is refused."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from darkroom.checkpoint.store import load_model
from darkroom.core.compute import training_compute
from darkroom.core.errors import DataError, InputError, SpecError
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.core.record import read_json, read_lines
from darkroom.nn import vgg
from darkroom.process.objective import ShiftedTimesSpec, UniformTimesSpec
from darkroom.process.schedule import CosineSpec, FlowSpec, ScheduleSpec, build_schedule
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run
from darkroom.tasks.load import load
from darkroom.tasks.parts import load_autoencoder, load_network
from darkroom.train.denoiser_objective import draw_times
from darkroom.train.events import Advance, Sentence, Wrote
from warm import begun

SMALL = (
    "data.count=40",
    "first_stage.train.steps=4",
    "first_stage.train.batch=4",
    "first_stage.train.warmup=1",
    "first_stage.train.log_every=1",
    "first_stage.train.save_every=2",
    "first_stage.train.sample_every=3",
    "denoiser.train.steps=5",
    "denoiser.train.batch=4",
    "denoiser.train.warmup=1",
    "denoiser.train.save_every=2",
    "denoiser.train.sample_every=3",
    "denoiser.sample.count=3",
    "denoiser.sample.steps=2",
)


def finish(run: Run, *, page: bool = False) -> list[object]:
    return list(run.develop(page=page))


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "text"
    finish(Run(recipe("tiny-text", overrides=SMALL), folder, device="cpu"), page=True)
    return folder


def test_a_run_leaves_what_the_design_promises(text_run: Path) -> None:
    for name in (
        "recipe.yaml",
        "tokenizer.json",
        "model.safetensors",
        "first_stage/model.safetensors",
        "first_stage/log.jsonl",
        "first_stage/reconstructions.png",
        "first_stage/report.json",
        "denoiser/log.jsonl",
        "denoiser/samples.png",
        "denoiser/report.json",
    ):
        assert (text_run / name).is_file(), name
    lines = read_lines(text_run / "first_stage" / "log.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "test_psnr" in line] == [3, 4]
    figures = {"pictures", "psnr", "bicubic_psnr", "distance", "bicubic_distance"}
    assert set(read_json(text_run / "first_stage" / "report.json")) == figures


def test_the_model_file_is_enough(text_run: Path) -> None:
    model = load(text_run, device="cpu")
    assert model.fields == ("caption",)
    assert model.card["data"]["source"] == "shapes"
    assert model.card["quality"]["denoiser"]["step"] == 5
    pictures = model.sample("a red circle", count=2, steps=3, seed=4)
    assert [picture.size for picture in pictures] == [(32, 32)] * 2
    assert isinstance(load_autoencoder(text_run).latent_shape((32, 32)), tuple)
    assert load_network(text_run).spec == model.spec.network


@torch.no_grad()
def test_the_scale_is_measured_over_the_training_set(text_run: Path) -> None:
    """1 / the standard deviation of posterior draws of all training pictures: E[z^2] = mean^2 + variance."""
    model = load(text_run, device="cpu")
    run = Run(recipe("tiny-text", overrides=SMALL), text_run, device="cpu")
    pictures = [run.splits.train.example(index).picture for index in range(len(run.splits.train))]
    images = from_bytes(torch.stack([to_bytes(picture) for picture in pictures]))
    with training_compute("cpu").autocast():
        mean, log_variance = model.first_stage.moments(images)
    assert log_variance is not None
    mean, log_variance = mean.float(), log_variance.float()
    variance = (mean.square() + log_variance.exp()).mean() - mean.mean().square()
    assert float(model.diffusion.scale) == pytest.approx(1 / float(variance.sqrt()), rel=1e-3)


def test_every_latent_channel_can_have_a_spread_of_its_own(tmp_path: Path) -> None:
    """Over the training set the denoiser's latents have the deviations asked for, also in the model that is loaded."""
    run = Run(recipe("tiny-text", overrides=[*SMALL, "denoiser.spread=[1, 0.5, 2, 0.4]"]), tmp_path, device="cpu")
    finish(run)
    model = load(tmp_path, device="cpu")
    pictures = [run.splits.train.example(index).picture for index in range(len(run.splits.train))]
    images = from_bytes(torch.stack([to_bytes(picture) for picture in pictures]))
    with torch.no_grad(), training_compute("cpu").autocast():
        mean, log_variance = model.first_stage.moments(images)
        latents = model.diffusion.encode(images)
    assert log_variance is not None
    mean, log_variance, latents = mean.float(), log_variance.float(), latents.float()
    noise = log_variance.exp() * model.diffusion.known_scale**2
    deviation = (latents.var((0, 2, 3), correction=0) + noise.mean((0, 2, 3))).sqrt()
    torch.testing.assert_close(deviation, torch.tensor([1.0, 0.5, 2.0, 0.4]), rtol=1e-3, atol=0)
    torch.testing.assert_close(model.diffusion.unscaled(latents), mean)
    assert len(model.sample("a red circle", steps=2)) == 1


def test_stopped_anywhere_it_ends_the_same(text_run: Path, tmp_path: Path) -> None:
    """Listening is broken off after every few events, and a file of latents then cut; final weights are bit-equal."""
    folder = tmp_path / "stopped"
    latents, remade = folder / "latents" / "train" / "000000.safetensors", list[str]()
    for patience in (1, 2, 3, 2, 100):
        run = Run(recipe("tiny-text", overrides=SMALL), folder, device="cpu")
        events = run.develop(page=False)
        steps = 0
        for event in events:
            steps += isinstance(event, Advance)
            if isinstance(event, Sentence) and "damaged" in event.text:
                remade.append(event.text)
            if steps == patience:
                with pytest.raises(InputError, match="another process is at work in this folder"):
                    next(Run(recipe("tiny-text", overrides=SMALL), folder, device="cpu").develop(page=False))
                events.close()
                break
        if latents.exists():
            content = latents.read_bytes()
            latents.unlink()
            latents.write_bytes(content[:100])
    assert set(remade) == {f"{latents} was damaged, and was made anew"}
    one, other = (load_model(each / "model.safetensors").state for each in (text_run, folder))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_killed_after_its_last_save_logs_each_step_once(text_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    events = Run(recipe("tiny-text", overrides=SMALL), folder, device="cpu").develop()
    steps = [event for event in events if isinstance(event, Advance) and event.stage == "first_stage"]
    assert len(steps) == 4
    log, state = folder / "first_stage" / "log.jsonl", folder / "first_stage" / "state.pt"
    (folder / "first_stage" / "model.safetensors").unlink()
    state.unlink()  # as if nothing had been saved
    finish(Run(recipe("tiny-text", overrides=SMALL), folder, device="cpu"))
    assert [line["step"] for line in read_lines(log) if "loss" in line] == [1, 2, 3, 4]


def test_a_finished_run_says_so_and_changes_nothing(text_run: Path) -> None:
    before = (text_run / "model.safetensors").read_bytes()
    events = finish(Run(recipe("tiny-text", overrides=SMALL), text_run, device="cpu"), page=True)
    assert [type(event) for event in events] == [Sentence, Wrote]
    assert (text_run / "model.safetensors").read_bytes() == before


def test_another_recipe_is_refused_in_the_same_folder(text_run: Path) -> None:
    changed = recipe("tiny-text", overrides=[*SMALL, "denoiser.train.steps=6"])
    with pytest.raises(InputError, match=r"denoiser\.train\.steps was 5 and is 6 now"):
        Run(changed, text_run, device="cpu")


@pytest.mark.parametrize(("name", "fields"), [("tiny-uncond", ()), ("tiny-class", ("label",)), ("tiny-vq", ())])
def test_the_other_miniatures(name: str, fields: tuple[str, ...], tmp_path: Path) -> None:
    events = finish(Run(recipe(name, overrides=SMALL), tmp_path, device="cpu"))
    assert any(isinstance(event, Wrote) for event in events)
    assert ("perplexity" in read_json(tmp_path / "first_stage" / "report.json")) == (name == "tiny-vq")
    model = load(tmp_path, device="cpu")
    assert model.fields == fields
    assert len(model.sample(label="star" if fields else None, steps=2)) == 1


def test_a_given_first_stage_is_used_as_it_is(text_run: Path, tmp_path: Path) -> None:
    given = load_model(text_run / "first_stage" / "model.safetensors")
    changed = recipe("tiny-uncond", overrides=SMALL)
    finish(Run(changed, tmp_path, device="cpu", first_stage=given))
    mine = load_model(tmp_path / "model.safetensors").state
    assert all(torch.equal(mine[f"first_stage.{name}"], value) for name, value in given.state.items())


def test_a_pixel_space_model_needs_no_first_stage(tmp_path: Path) -> None:
    changes = [each for each in SMALL if each.startswith(("denoiser", "data"))] + [
        "first_stage={model: {kind: pixels}}",
        "denoiser.network.attention=[2]",
        "denoiser.network.in_channels=3",
        "denoiser.network.out_channels=3",
    ]
    finish(Run(recipe("tiny-uncond", overrides=changes), tmp_path / "fits", device="cpu"))
    model = load(tmp_path / "fits", device="cpu")
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.decode(model.encode(images)), images)


def test_recipes_that_cannot_be_trained_say_why(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"data\.source=FOLDER"):
        Run(recipe("tiny-text", overrides=["data.source=null"]), tmp_path / "a", device="cpu")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for place in range(3):
        Image.new("RGB", (32, 32), (place, 9, 9)).save(pictures / f"{place}.png")
    with pytest.raises(DataError, match="needs the field 'caption'"):
        Run(recipe("tiny-text", overrides=[f"data.source={pictures}", "data.count=null"]), tmp_path / "b", device="cpu")
    assert not any((tmp_path / name).exists() for name in "ab")


def test_lpips_that_is_nowhere_to_be_had_is_told_before_a_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(vgg, "VGG16", replace(vgg.VGG16, url=(tmp_path / "nowhere.pth").as_uri()))
    with pytest.raises(InputError, match=r"nowhere\.pth cannot be fetched"):
        Run(recipe("kl-f8", overrides=["data.source=shapes", "data.size=64"]), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def _compiled(plain: Path, compiled: Path, words: Sequence[str]) -> None:
    torch.set_num_threads(1)
    torch.compile = functools.partial(torch.compile, backend="eager")  # traced, then run by torch's own kernels
    list(Run(recipe("tiny-text", overrides=words), plain, device="cpu").develop(page=False))
    more = [*words, "denoiser.train.compiled=true"]
    for event in Run(recipe("tiny-text", overrides=more), compiled, device="cpu").develop(page=False):
        if isinstance(event, Advance) and event.stage == "denoiser" and event.progress.step == 2:
            break
    list(Run(recipe("tiny-text", overrides=more), compiled, device="cpu").develop(page=False))


def test_a_run_on_a_compiled_network_ends_the_same(tmp_path: Path) -> None:
    """Without a compiler, which changes no number; stopped once, too. In a process whose shapes nobody checks."""
    words = (*SMALL, "denoiser.train.precision=float32", "denoiser.network.attention=[2]")  # levels with it and without
    with begun(_compiled, tmp_path / "plain", tmp_path / "compiled", words, folder=tmp_path / "said") as process:
        assert process.ended(seconds=200) == 0, process.complaints[-2000:]
    plain, other = (load_model(tmp_path / name / "model.safetensors").state for name in ("plain", "compiled"))
    assert list(plain) == list(other)
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_compiling_that_cannot_be_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe("tiny-text", overrides=[*SMALL, "first_stage.train.compiled=true"])
    with pytest.raises(SpecError, match="only the network of a denoiser is compiled"):
        Run(made, tmp_path / "run", device="cpu")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    made = recipe("tiny-text", overrides=[*SMALL, "denoiser.train.compiled=true"])
    with pytest.raises(SpecError, match=r"needs a C\+\+ compiler"):
        Run(made, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spec", [CosineSpec(), FlowSpec()])
def test_times_of_training_follow_the_recipe(spec: ScheduleSpec) -> None:
    schedule, indices = build_schedule(spec), list(range(400))
    even, late = (
        draw_times(schedule, times=times, seed=3, indices=indices) / float(schedule.noisiest)
        for times in (UniformTimesSpec(), ShiftedTimesSpec(factor=4.0))
    )
    assert abs(float(even.float().median()) - 0.5) < 0.06
    assert abs(float(late.float().median()) - 0.8) < 0.06
    for drawn in (even, late):
        assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1

"""First-stage training with all its terms: gradients stay on their side, a killed run ends as an undisturbed one."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from darkroom.autoencoder.adversary import AdversarySpec
from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.losses import FirstStageLossSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.autoencoder.revival import RevivalSpec
from darkroom.checkpoint.store import load_model
from darkroom.core import seeds
from darkroom.core.compute import Compute
from darkroom.core.errors import InputError, SpecError
from darkroom.core.record import alone_in, read_lines
from darkroom.data.loader import Batch
from darkroom.data.order import spread
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run
from darkroom.train.ema import Ema
from darkroom.train.events import Sentence
from darkroom.train.first_stage_objective import FirstStageObjective, first_stage_objective, opponent_of
from darkroom.train.loop import train
from darkroom.train.optim import TrainSpec, build_optimizer
from darkroom.train.state import Training
from warm import command

CPU = Compute(torch.device("cpu"))
TRAIN = TrainSpec(steps=20, batch=4, learning_rate=1e-3, warmup=1, ema=0.99)
SMALL_ADVERSARY = AdversarySpec(start=0, layers=2, channels=8, weight=0.5)
FULL = FirstStageLossSpec(perceptual_weight=0.5, adversary=SMALL_ADVERSARY)


def model_of(bottleneck: KLSpec | VQSpec) -> Autoencoder:
    torch.manual_seed(0)
    spec = AutoencoderSpec(
        channels=8, multipliers=(1, 1), blocks=1, stem="patch2", norm_groups=4, latent_channels=2, bottleneck=bottleneck
    )
    return Autoencoder(spec)


def batch(start: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(start)
    images = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=draw)
    indices = list(range(start, start + 4))
    return Batch(images, indices, indices)


def batches(start: int = 0) -> Iterator[Batch]:
    while True:
        yield batch(start)
        start += 4


def objective(model: Autoencoder, loss: FirstStageLossSpec = FULL) -> FirstStageObjective:
    return first_stage_objective(model, loss, train=TRAIN, compute=CPU, seed=0)


def touched(module: nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.grad is not None]


def gradients(loss: Tensor, model: Autoencoder) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize(("bottleneck", "draws"), [(KLSpec(), ["posterior"]), (VQSpec(codes=16), [])])
def test_noise_is_drawn_where_it_is_read(
    bottleneck: KLSpec | VQSpec, draws: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, plain = list[str](), seeds.normal
    monkeypatch.setattr(
        seeds, "normal", lambda *a, purpose, **k: drawn.append(purpose) or plain(*a, purpose=purpose, **k)
    )
    objective(model_of(bottleneck), FirstStageLossSpec())(batch())
    assert drawn == draws


@pytest.mark.parametrize("bottleneck", [KLSpec(), VQSpec(codes=16)])
def test_neither_side_leaves_a_gradient_in_the_other(bottleneck: KLSpec | VQSpec) -> None:
    model = model_of(bottleneck)
    made = objective(model)
    assert made.adversary is not None
    assert made.distance is not None
    values = made(batch())
    values["loss"].backward()
    assert touched(made.adversary) == []
    assert touched(made.distance) == []
    assert set(touched(model)) == {name for name, _ in model.named_parameters()}
    before = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    values["opponent"].backward()
    assert set(touched(made.adversary)) == {name for name, _ in made.adversary.named_parameters()}
    assert all(torch.equal(before[name], each.grad) for name, each in model.named_parameters() if each.grad is not None)


def test_the_loss_is_what_the_paper_writes() -> None:
    """reconstruction + 0.5 · w · (minus the mean score), differentiated as one expression with w held fixed."""
    model = model_of(KLSpec())
    made = objective(model, FULL.model_copy(update={"kl_weight": 0.3}))
    assert made.adversary is not None
    assert made.distance is not None
    values = made(batch())
    found = gradients(values["loss"], model)
    weight = float(values["adaptive_weight"].detach())
    images = batch().images.float() / 127.5 - 1
    from darkroom.core import seeds

    noise = seeds.normal((2, 4, 4), seed=0, indices=range(4), purpose="posterior")
    again = model.reconstruct(images, noise=noise)
    pixel = (again.images - images).abs().mean()
    features = made.distance(again.images, images).mean()
    score = made.adversary.discriminator(again.images).mean()
    whole = pixel + 0.5 * features + 0.3 / images[0].numel() * again.regularizer.mean() - 0.5 * weight * score
    assert float(values["loss"].detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    for name, gradient in gradients(whole, model).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_the_opponent_learns_only_once_it_has_begun() -> None:
    model = model_of(KLSpec())
    late = FULL.model_copy(update={"adversary": SMALL_ADVERSARY.model_copy(update={"start": 3})})
    made = objective(model, late)
    assert made.adversary is not None
    before = made.adversary.discriminator.stem.weight.clone()
    training = Training(
        model, build_optimizer(list(model.parameters()), TRAIN), None, opponent_of(made, TRAIN), made.beside
    )
    moved = []
    for progress in train(training, batches(), losses=made, spec=TRAIN, compute=CPU, after=made.after):
        moved.append(not torch.equal(before, made.adversary.discriminator.stem.weight))
        assert ("opponent" in progress.values) == (progress.step > 3)
        if progress.step == 5:
            break
    assert moved == [False, False, False, True, True]


def test_revived_codes_take_their_averages_and_moments_along() -> None:
    model = model_of(VQSpec(codes=16))
    made = objective(model, FULL.model_copy(update={"revival": RevivalSpec(memory=0.5)}))
    assert made.revival is not None
    assert model.codebook is not None
    parameters = list(model.parameters())
    training = Training(
        model, build_optimizer(parameters, TRAIN), Ema(parameters, decay=0.99), opponent_of(made, TRAIN), made.beside
    )
    codes = model.codebook.codes.weight
    for progress in train(training, batches(), losses=made, spec=TRAIN, compute=CPU, after=made.after):
        assert float(progress.values["perplexity"]) <= 16
        if progress.step == 3:
            with torch.no_grad():
                codes[5] = 1e4
        if progress.step == 14:
            break
    assert codes[5].abs().max() < 100
    assert training.ema is not None
    shadow = next(s for p, s in zip(training.ema.parameters, training.ema.shadow, strict=True) if p is codes)
    assert shadow[5].abs().max() < 100


def test_pictures_too_small_for_the_adversary_are_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    asked = recipe("tiny-vq", overrides=[*TINY, "first_stage.loss.adversary={layers: 4}"])
    with pytest.raises(SpecError, match="too small for an adversary of 4 layers"):
        Run(asked, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("source", "changes", "told"),
    [
        ("tiny-vq", ["data.size=16"], "too small for shapes; at least 32"),
        ("shapes-f4", ["first_stage.loss.revival={}"], "keeps a codebook alive, and this first stage has none"),
        ("ldm-1", ["data.source=shapes", "data.size=64", "denoiser=null"], "leaves nothing to train"),
    ],
)
def test_what_could_only_fail_later_is_refused_first(
    source: str, changes: list[str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=told):
        Run(recipe(source, overrides=changes), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_of_two_that_begin_at_once_one_alone_says_what_is_done(tmp_path: Path) -> None:
    made = recipe("tiny-vq", overrides=TINY)
    with alone_in(tmp_path), pytest.raises(InputError, match="another process is at work in this folder"):
        Run(made, tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())
    assert Run(made, tmp_path, device="cpu").recipe == Run(made, tmp_path, device="cpu").recipe
    assert (tmp_path / "recipe.yaml").exists()


def test_pictures_too_small_for_features_are_refused_first(tmp_path: Path) -> None:
    for place in range(3):
        Image.new("RGB", (8, 8), (place, 9, 9)).save(tmp_path / f"{place}.png")
    words = [*TINY, "first_stage.loss.adversary=null", f"data.source={tmp_path}", "data.size=8"]
    with pytest.raises(SpecError, match="8 px are too small to compare features; at least 16"):
        Run(recipe("tiny-vq", overrides=words), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_an_adversary_that_never_plays_is_told(tmp_path: Path) -> None:
    late = [*TINY, "first_stage.loss.adversary={start: 24, layers: 2, channels: 8}"]
    first = next(iter(Run(recipe("tiny-vq", overrides=late), tmp_path / "run", device="cpu").develop()))
    assert first == Sentence("the adversary would begin at step 24, and there are only 24: it never plays")


@pytest.mark.parametrize(("count", "most", "rows"), [(3, 8, 3), (8, 8, 8), (9, 8, 5), (8191, 4096, 4096), (0, 8, 0)])
def test_what_is_measured_is_spread_over_all_pictures(count: int, most: int, rows: int) -> None:
    chosen = spread(count, most=most)
    assert len(chosen) == rows <= most
    assert not rows or count - chosen[-1] <= chosen.step


TINY = (
    "data.count=60",
    "denoiser=null",
    "first_stage.loss.perceptual_weight=0.5",
    "first_stage.loss.adversary={start: {window: 4, gain: 0.9}, layers: 2, channels: 8}",
    "first_stage.model.bottleneck.codes=64",
    "first_stage.train.steps=24",
    "first_stage.train.batch=4",
    "first_stage.train.warmup=2",
    "first_stage.train.log_every=1",
    "first_stage.train.save_every=3",
    "first_stage.train.sample_every=24",
)


def test_a_run_killed_at_any_moment_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    """SIGKILL leaves no chance to save: what counts is the last state on disk, its adversary and codebook with it."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    list(Run(recipe("tiny-vq", overrides=TINY), undisturbed, device="cpu").develop(page=False))
    words = ["train", "tiny-vq", *TINY, "--out", killed, "--device", "cpu"]
    log = killed / "first_stage" / "log.jsonl"
    for wanted in (5, 13):
        with command(words, folder=tmp_path / "said") as process:
            deadline = time.monotonic() + 120
            while len(read_lines(log)) < wanted and process.alive and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send(signal.SIGKILL)
            assert process.ended() == -signal.SIGKILL, process.complaints
        assert not (killed / "model.safetensors").exists()
    list(Run(recipe("tiny-vq", overrides=TINY), killed, device="cpu").develop(page=False))
    first, second = (load_model(folder / "model.safetensors").state for folder in (undisturbed, killed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    steps = [line["step"] for line in read_lines(log) if "loss" in line]
    assert steps == list(range(1, 25))
    assert [line["loss"] for line in read_lines(log) if "loss" in line] == [
        line["loss"] for line in read_lines(undisturbed / "first_stage" / "log.jsonl") if "loss" in line
    ]
    assert any("opponent" in line for line in read_lines(log))
    leftovers = [path.name for path in (killed / "first_stage").iterdir() if path.name.startswith(".")]
    assert leftovers == []

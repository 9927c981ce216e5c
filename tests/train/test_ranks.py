"""One training on several processes, or in several pieces: the effective batch decides, and nothing else."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from darkroom.autoencoder.adversary import AdversarySpec, PlateauSpec
from darkroom.autoencoder.bottleneck import VQSpec
from darkroom.autoencoder.losses import FirstStageLossSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.autoencoder.revival import RevivalSpec
from darkroom.checkpoint.store import load_model
from darkroom.core.compute import Compute
from darkroom.core.errors import InputError
from darkroom.core.parallel import WHOLE, Share, leave, together
from darkroom.core.record import read_lines
from darkroom.data.loader import Batch, batches
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec
from darkroom.diffusion.model import LatentDiffusion
from darkroom.nn.dropout import Dropout
from darkroom.recipes.pace import like
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run
from darkroom.train import ranks
from darkroom.train.denoiser_objective import LatentBatch, denoiser_objective
from darkroom.train.ema import Ema
from darkroom.train.events import Advance
from darkroom.train.first_stage_objective import first_stage_objective, opponent_of
from darkroom.train.loop import train
from darkroom.train.optim import TrainSpec, build_optimizer
from darkroom.train.state import Training
from processes import torchrun
from warm import START

EXACT = Compute(torch.device("cpu"), torch.float64)
TINY = (
    "data.count=70",
    "first_stage.loss.perceptual_weight=0.5",
    "first_stage.loss.adversary={start: {window: 2, gain: 0.9}, layers: 2, channels: 8}",
    "first_stage.model.bottleneck.codes=64",
    "first_stage.model.dropout=0.1",
    *(f"first_stage.train.{each}" for each in ("steps=10", "save_every=3")),
    "denoiser.network.dropout=0.2",
    *(f"denoiser.train.{each}" for each in ("steps=8", "save_every=3")),
    *(
        f"{stage}.train.{each}"
        for stage in ("first_stage", "denoiser")
        for each in ("batch=4", "warmup=1", "log_every=1", "sample_every=50", "precision=float64")
    ),
    "denoiser.sample.count=2",
    "denoiser.sample.steps=2",
)


def test_rows_of_dropout_are_those_of_the_whole_batch() -> None:
    whole, part = Dropout(0.3), Dropout(0.3)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(8, 6, 5, 5).contiguous(memory_format=layout)
        torch.manual_seed(3)
        wanted, found = whole(x), list[Tensor]()
        for number in range(4):
            part.share = WHOLE.piece(number // 2, 2).piece(number % 2, 2)
            torch.manual_seed(3)
            found.append(part(x[2 * number : 2 * number + 2]))
        assert torch.equal(torch.cat(found), wanted)
    assert torch.equal(part.eval()(x), x)


def test_parts_of_batches_are_those_of_the_whole_batch() -> None:
    spec, source = TransformSpec(size=32, crop="random"), ShapesSource(side=40, count=9)
    whole = next(batches(source, spec, batch_size=6, seed=1, start=6))
    parts = [next(batches(source, spec, batch_size=6, seed=1, start=6, share=Share(number, 3))) for number in range(3)]
    assert [index for part in parts for index in part.indices] == whole.indices == list(range(6, 12))
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)


def test_pieces_are_as_few_and_as_large_as_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(batch: int, micro: int | None) -> list[int]:
        return [share.of for share in ranks.shares(TrainSpec(steps=1, batch=batch, learning_rate=1.0, micro=micro))]

    assert counted(12, None) == [1]
    assert counted(12, 12) == [1]
    assert counted(12, 5) == [3, 3, 3]
    assert counted(12, 1) == [12] * 12
    assert counted(7, 5) == [7] * 7
    monkeypatch.setattr("darkroom.core.parallel.world_size", lambda: 4)
    with pytest.raises(InputError, match=r"train\.batch is 6, which 4 processes cannot share evenly; 4 or 8 fits"):
        counted(6, None)


@pytest.mark.parametrize("start", [0, 2, PlateauSpec(window=1, gain=0.9)])
def test_pieces_of_a_step_are_the_whole_step(start: int | PlateauSpec) -> None:
    """Adversary, adaptive weight, codebook, revival, dropout: weights and averages after four steps are equal."""
    made = [_trained(micro, start) for micro in (None, 2, 1)]
    for other in made[1:]:
        assert made[0].keys() == other.keys()
        for name, value in made[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-11)


def _trained(micro: int | None, start: int | PlateauSpec) -> Mapping[str, Tensor]:
    torch.manual_seed(0)
    spec = AutoencoderSpec(
        channels=8, multipliers=(1, 1), blocks=1, stem="patch2", norm_groups=4, latent_channels=2, dropout=0.2
    )
    model = EXACT.host(Autoencoder(spec.model_copy(update={"bottleneck": VQSpec(codes=16)})))
    adversary = AdversarySpec(start=start, layers=2, channels=8, weight=0.5)
    loss = FirstStageLossSpec(perceptual_weight=0.5, adversary=adversary, revival=RevivalSpec(memory=0.5))
    plan = TrainSpec(steps=4, batch=4, micro=micro, learning_rate=1e-3, warmup=1)
    made = first_stage_objective(model, loss, train=plan, compute=EXACT, seed=0)
    parameters = list(model.parameters())
    ema, opponent = Ema(parameters, decay=0.9), opponent_of(made, plan)
    training = Training(model, build_optimizer(parameters, plan), ema, opponent, made.beside)

    def stream():
        for first in range(0, 100, 4):
            draw, indices = torch.Generator().manual_seed(first), list(range(first, first + 4))
            yield Batch(torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=draw), indices, indices)

    seen = [
        progress.values
        for progress in train(
            training, stream(), losses=made, spec=plan, compute=EXACT, after=made.after, pieces=made.pieces
        )
    ]
    assert made.adversary is not None
    assert bool(made.adversary.begun)
    averages = {str(number): value for number, value in enumerate(ema.shadow)}
    values = {f"step {step}: {name}": value for step, values in enumerate(seen) for name, value in values.items()}
    return {**model.state_dict(), **nn.ModuleDict(made.beside).state_dict(), **averages, **values}


def _rank(rank: int, folder: str) -> None:
    """One of two processes; both stop after the same step of the first stage."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": Path(folder, "port").read_text()}
    with together():
        _stop_at(Run(recipe("tiny-vq", overrides=TINY), Path(folder, "moved"), device="cpu"), 4)
    leave(0)


def _stop_at(run: Run, step: int) -> None:
    events = run.develop()
    for event in events:
        if isinstance(event, Advance) and event.progress.step == step:
            break
    events.close()


def test_two_processes_then_one_then_two_are_one(tmp_path: Path) -> None:
    """The second stage on two again, by the command and in parts (FSDP); all of the log and the weights are those of
    one process.
    """
    calm, moved = tmp_path / "calm", tmp_path / "moved"
    list(Run(recipe("tiny-vq", overrides=TINY), calm, device="cpu").develop(page=False))
    (tmp_path / "port").write_text(str(29500 + os.getpid() % 2000))
    mp.start_processes(_rank, args=(str(tmp_path),), nprocs=2, start_method=START)
    assert not (moved / "first_stage" / "model.safetensors").exists()
    _stop_at(Run(recipe("tiny-vq", overrides=TINY), moved, device="cpu"), 7)
    parts = "denoiser.train.strategy=fsdp"
    done = torchrun("train", "tiny-vq", *TINY, parts, "--out", moved, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert len(list((moved / "latents" / "train").glob("*.safetensors"))) == 2  # a share of each
    assert done.stdout.count("the run is in") == 1  # one of them speaks
    for stage in ("first_stage", "denoiser"):
        one, other = (_values(folder / stage / "log.jsonl") for folder in (calm, moved))
        assert len(one) == len(other) >= 8
        for line, again in zip(one, other, strict=True):
            assert again == pytest.approx(line, rel=1e-9, abs=1e-12)
    assert any("opponent" in line for line in _values(moved / "first_stage" / "log.jsonl"))
    one, other = (load_model(folder / "model.safetensors").state for folder in (calm, moved))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)


def _values(log: Path) -> list[dict[str, float]]:
    clocks = ("seconds", "pictures_per_second")
    return [{name: value for name, value in line.items() if name not in clocks} for line in read_lines(log)]


@pytest.mark.parametrize("name", ["tiny-text", "tiny-class", "tiny-layout", "tiny-semantic", "tiny-inpaint"])
def test_every_weight_has_a_part_in_every_step(name: str) -> None:
    """DistributedDataParallel waits for a gradient of each."""
    made = recipe(name)
    spec, part = made.model_spec(), made.denoiser
    assert spec is not None
    assert part is not None
    assert part.train is not None
    model = LatentDiffusion(spec)
    model.scale.fill_(1.0)
    shape = model.latent_shape((spec.image_size, spec.image_size))
    inputs = {each.field: like(each, spec, batch=2, latent=shape) for each in spec.conditioners}
    objective = denoiser_objective(model, train=part.train, compute=Compute(torch.device("cpu")), seed=0)
    objective(LatentBatch(torch.randn(2, *shape), inputs, [0, 1]))["loss"].backward()
    assert all(value.grad is not None for value in model.denoising_parameters)

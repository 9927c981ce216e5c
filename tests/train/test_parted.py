"""Weights in parts over ranks: what is learnt, and every file, are those of one process; what a rank holds is half."""

import math
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from darkroom.core.compute import Compute
from darkroom.core.errors import InputError, SpecError
from darkroom.core.parallel import in_parts, is_first, leave, own_share, together, wait_for_all
from darkroom.core.record import read_lines
from darkroom.data.inputs import Fixed
from darkroom.data.latents import LatentTable
from darkroom.data.loader import Order
from darkroom.diffusion.model import LatentDiffusion
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run
from darkroom.train.averages import FOLDER
from darkroom.train.denoiser import Latents, train_denoiser
from darkroom.train.denoiser_objective import denoiser_objective, latent_batches
from darkroom.train.ema import Ema
from darkroom.train.events import Advance, Event
from darkroom.train.loop import train
from darkroom.train.optim import AveragesSpec, TrainSpec, build_optimizer
from darkroom.train.parted import shared_out
from darkroom.train.ranks import Ranks
from darkroom.train.scaler import FIRST, Scaler
from darkroom.train.state import Training, restore_state, save_state
from warm import START

EXACT = Compute(torch.device("cpu"), torch.float64)
SPEC = TrainSpec(
    steps=4,
    batch=4,
    micro=1,
    learning_rate=3e-3,
    warmup=1,
    clip=0.5,
    ema=0.9,
    averages=AveragesSpec(every=2),
    strategy="fsdp",
    log_every=1,
    save_every=1,
    sample_every=2,
)
CHANGES = (
    "denoiser.network.attention=[2]",  # blocks with and without; each weight costs ranks a while at each step
    "denoiser.conditioners.0.encoder.depth=1",
    "denoiser.network.recompute=true",
    "denoiser.network.dropout=0.2",
    "denoiser.objective={learn_log_variance: true}",
    "denoiser.objective.weighting={kind: uniform}",
)
COUNT, BAD = 70, 6  # pictures; the sample of step 2 that is not a number, of the second rank's share


def _model() -> LatentDiffusion:
    """Text to image with weights that all have a gradient from the first step on."""
    spec = recipe("tiny-text", overrides=CHANGES).model_spec()
    assert spec is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LatentDiffusion(spec)
        for each in model.denoising_parameters:
            nn.init.normal_(each, std=0.1)
    model.scale.fill_(1.0)
    return model


def _latents(model: LatentDiffusion) -> Latents:
    draw = torch.Generator().manual_seed(0)
    mean = torch.randn((COUNT, 1, *model.latent_shape((32, 32))), generator=draw)
    mean[Order(COUNT, seed=0).row(BAD)] = torch.nan
    ids = Fixed(torch.randint(256, (COUNT, 24), generator=draw))
    test = LatentTable([torch.randn((8, 1, *mean.shape[2:]), generator=draw)], None, key="test")
    table = LatentTable([mean], None, key="train")
    return Latents(train=table, train_inputs={"caption": ids}, test=test, test_inputs={"caption": ids})


def _begin(folder: Path, *, strategy: str = "fsdp") -> tuple[LatentDiffusion, Generator[Event]]:
    model = _model()
    events = train_denoiser(
        model,
        _latents(model),
        train=SPEC.model_copy(update={"strategy": strategy}),
        compute=EXACT,
        folder=folder,
        seed=0,
        preview=lambda: [Image.new("RGB", (8, 8))],
    )
    return model, events


def _stop_at(folder: Path, step: int, *, strategy: str = "fsdp") -> None:
    _, events = _begin(folder, strategy=strategy)
    for event in events:
        if isinstance(event, Advance) and event.progress.step == step:
            break
    events.close()


def _looped(folder: Path, compute: Compute) -> dict[str, Any]:
    """Steps of the loop alone, with a factor of losses that is to blame for a gradient; then saved, and restored."""
    model = _model()
    compute.host(model).train()
    model.first_stage.requires_grad_(False)
    parted = shared_out(model, train=SPEC, compute=compute)
    moving = model if parted is None else parted.trained
    objective = denoiser_objective(moving, train=SPEC, compute=compute, seed=0)
    optimizer = build_optimizer(moving.denoising_parameters, SPEC)
    ema = Ema(moving.denoising_parameters, decay=0.9)
    module = nn.ModuleList([moving.network, moving.conditioning])
    training = Training(module, optimizer, ema, scaler=Scaler())
    table = _latents(model)
    stream = latent_batches(
        table.train, table.train_inputs, scale=torch.tensor(1.0), batch_size=4, seed=0, share=own_share()
    )
    ranks = Ranks(module, training.beside, sharded=None if parted is None else parted.doing)
    few, seen = SPEC.model_copy(update={"steps": 3}), list[float]()
    for progress in train(
        training, stream, losses=objective, pieces=objective.pieces, spec=few, compute=compute, ranks=ranks
    ):
        seen.append(float(progress.values["gradient"]))
    held = _held(training)
    save_state(training, folder / "loop.pt")
    wait_for_all()
    assert restore_state(training, folder / "loop.pt")
    assert training.scaler is not None
    kept = sum(each.untyped_storage().nbytes() for each in model.denoising_parameters)
    return {"gradients": seen, "factor": training.scaler.factor, "held": held, "again": _held(training), "shown": kept}


def _held(training: Training) -> int:
    """Bytes of weights, moments and averages that this process keeps alive."""
    assert training.ema is not None
    moments = [value for each in training.optimizer.state.values() for value in each.values() if value.ndim]
    own = [*training.ema.parameters, *moments, *training.ema.shadow]
    places = [each.to_local() if in_parts(each) else each for each in own]  # pyright: ignore[reportAttributeAccessIssue]
    return sum(each.untyped_storage().nbytes() for each in places)


def _rank(rank: int, place: str) -> None:
    """One of two processes, weights in parts: a run of its own to the end, and the middle of one of one process."""
    torch.set_num_threads(1)
    folder = Path(place)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    with together():
        other, events = _begin(folder / "whole", strategy="ddp")
        list(events)
        model, events = _begin(folder / "parts")
        list(events)
        _stop_at(folder / "moved", 3)
        found = {str(each.dtype): _looped(folder, each) for each in (EXACT, Compute(EXACT.device, torch.bfloat16))}
        torch.save(
            {"found": found, "weights": [each.numel() for each in model.denoising_parameters]}, folder / str(rank)
        )
        if is_first():
            torch.save(model.state_dict(), folder / "parts.pt")
            torch.save(other.state_dict(), folder / "whole.pt")
    leave(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`calm` of one process; `whole` (DDP) and `parts` of two; `moved` of one, then two in parts, then one again."""
    folder = tmp_path_factory.mktemp("parted")
    calm, events = _begin(folder / "calm", strategy="ddp")
    list(events)
    torch.save(calm.state_dict(), folder / "calm.pt")
    _stop_at(folder / "moved", 1)
    (folder / "port").write_text(str(31500 + os.getpid() % 2000))
    mp.start_processes(_rank, args=(str(folder),), nprocs=2, start_method=START)
    model, events = _begin(folder / "moved", strategy="ddp")
    list(events)
    torch.save(model.state_dict(), folder / "moved.pt")
    return folder


def test_what_is_learnt_is_that_of_one_process(made: Path) -> None:
    """Losses, gradients' norms, held-out losses by averaged weights, and the model at the end; a step was skipped."""
    for name in ("whole", "parts", "moved"):
        lines = _values(made / name / "log.jsonl")
        assert len(lines) == 6
        assert max(line.get("skipped", 0) for line in lines) == 1
        for line, wanted in zip(lines, _values(made / "calm" / "log.jsonl"), strict=True):
            assert line == pytest.approx(wanted, rel=1e-9, nan_ok=True)
        _assert_equal(torch.load(made / f"{name}.pt"), torch.load(made / "calm.pt"))


def test_files_do_not_tell_whether_ranks_held_parts(made: Path) -> None:
    calm, parts = (torch.load(made / name / "state.pt", weights_only=True) for name in ("calm", "parts"))
    for clock in (calm, parts):
        clock.pop("seconds")
    _assert_equal(parts, calm)
    snapshots = sorted((made / "calm" / FOLDER).iterdir())
    assert [each.name for each in snapshots] == ["00000002.safetensors", "00000004.safetensors"]
    for each in snapshots:
        for name in ("parts", "moved"):
            _assert_equal(load_file(made / name / FOLDER / each.name), load_file(each))


def test_a_rank_holds_its_part_of_weights_moments_and_averages(made: Path) -> None:
    both = [torch.load(made / name)["found"][str(torch.float64)] for name in "01"]
    alone = _looped(made, EXACT)
    for each in both:
        assert each["held"] <= 0.55 * alone["held"]
        assert each["again"] == each["held"]  # after restoring, too
        assert each["shown"] == 0
        assert each["gradients"] == pytest.approx(alone["gradients"], rel=1e-9, nan_ok=True)
        assert each["factor"] == alone["factor"] == FIRST / 2
    assert [math.isfinite(each) for each in alone["gradients"]] == [True, False, True]


def test_bfloat16(made: Path) -> None:
    short = Compute(EXACT.device, torch.bfloat16)
    alone, other = _looped(made, short), torch.load(made / "0")["found"][str(torch.bfloat16)]
    assert other["gradients"] == pytest.approx(alone["gradients"], rel=0.1, nan_ok=True)


def test_only_the_first_rank_ends_with_the_model(made: Path) -> None:
    first, second = (torch.load(made / name)["weights"] for name in "01")
    assert first == [each.numel() for each in _model().denoising_parameters]
    assert not any(second)


def _values(log: Path) -> list[dict[str, float]]:
    clocks = ("seconds", "pictures_per_second")
    return [{name: value for name, value in line.items() if name not in clocks} for line in read_lines(log)]


def _assert_equal(one: Any, other: Any) -> None:
    """The same keys in the same order, and tensors that differ by rounding alone."""
    match one:
        case dict():
            assert list(one) == list(other)
            for name, value in one.items():
                _assert_equal(value, other[name])
        case list() | tuple():
            for value, wanted in zip(one, other, strict=True):
                _assert_equal(value, wanted)
        case Tensor():
            assert one.dtype == other.dtype
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)
        case _:
            assert one == other


def test_what_cannot_be_in_parts_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'first_stage': train\.strategy fsdp is for denoisers"):
        recipe("tiny-vq", overrides=["first_stage.train.strategy=fsdp"])
    with pytest.raises(SpecError, match="strategy fsdp does not go with compiled"):
        recipe("tiny-vq", overrides=["denoiser.train.strategy=fsdp", "denoiser.train.compiled=true"])


def test_a_run_may_go_on_with_another_strategy_and_nothing_else(tmp_path: Path) -> None:
    small = ("data.count=70",)
    Run(recipe("tiny-vq", overrides=[*small, "denoiser.train.strategy=fsdp"]), tmp_path, device="cpu")
    Run(recipe("tiny-vq", overrides=small), tmp_path, device="cpu")
    with pytest.raises(InputError, match=r"denoiser\.train\.batch was 32"):
        Run(recipe("tiny-vq", overrides=[*small, "denoiser.train.batch=16"]), tmp_path, device="cpu")

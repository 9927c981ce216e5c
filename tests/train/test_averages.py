"""Averages whose width is chosen afterwards: what is tracked and what is made of it, beside direct ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from darkroom.checkpoint.store import load_model
from darkroom.cli.main import main
from darkroom.core.errors import InputError, ModelFileError
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run
from darkroom.train.averages import FOLDER, PowerAverages, combination, exponent, reconstructed
from darkroom.train.events import Advance
from darkroom.train.optim import AveragesSpec

STORED = AveragesSpec(every=20)
WIDTHS = (0.04, 0.07, 0.15)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.25])
def test_a_width_is_the_deviation_of_its_profile(width: float) -> None:
    """Of tau^gamma on [0, 1]: mean (gamma + 1) / (gamma + 2), second moment (gamma + 1) / (gamma + 3)."""
    p = exponent(width)
    assert np.sqrt(p / (p + 2) - (p / (p + 1)) ** 2) == pytest.approx(width, rel=1e-6)


@pytest.mark.parametrize("width", [0.0, -1.0, 0.29, float("nan")])
def test_widths_that_no_power_has_are_refused(width: float) -> None:
    with pytest.raises(InputError, match=r"cannot be; more than 0 and less than 0\.2886 fits"):
        exponent(width)


def test_the_tracked_average_weighs_by_its_power() -> None:
    weight, powers = nn.Parameter(torch.zeros(1, dtype=torch.float64)), [exponent(width) for width in STORED.widths]
    averages, values = PowerAverages([weight], STORED), [3.0, -1.0, 4.0, 1.0, -5.0]
    for value in values:
        with torch.no_grad():
            weight.fill_(value)
        averages.update()
    for power, (average,) in zip(powers, averages.tracked, strict=True):
        ends = (np.arange(len(values) + 1) / len(values)) ** power
        assert float(average) == pytest.approx(float(np.diff(ends) @ values), rel=1e-12)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[float, Tensor]]:
    """Snapshots along a random walk, which nothing smooths, and averages of other widths tracked directly."""
    folder, module = tmp_path_factory.mktemp("walk"), nn.Linear(8, 6)
    parameters = list(module.parameters())
    stored, draw = PowerAverages(parameters, STORED), torch.Generator().manual_seed(0)
    direct = {width: PowerAverages(parameters, AveragesSpec(every=1, widths=(width, width))) for width in WIDTHS}
    for step in range(1, 1001):
        with torch.no_grad():
            for each in parameters:
                each.add_(0.03 * torch.randn(each.shape, generator=draw))
        for averages in (stored, *direct.values()):
            averages.update()
        if step % STORED.every == 0:
            stored.save(module, folder / f"{step:08}.safetensors")
    return folder, {width: averages.tracked[0][0] for width, averages in direct.items()}


@pytest.mark.parametrize("width", WIDTHS)
def test_an_average_made_afterwards_is_the_one_tracked_directly(width: float, walked) -> None:
    folder, direct = walked
    made = reconstructed(folder, width=width)
    assert set(made) == {"weight", "bias"}
    assert float((made["weight"] - direct[width]).abs().max()) < 1e-5 * float(direct[width].abs().max())


def test_what_was_stored_comes_back_and_what_cannot_be_made_is_refused(walked, tmp_path: Path) -> None:
    profiles = [(exponent(width), updates) for updates in (50, 100) for width in STORED.widths]
    shares, misfit = combination(profiles, wanted=profiles[3])
    np.testing.assert_allclose(shares, [0, 0, 0, 1], atol=1e-6)
    assert misfit < 1e-6
    with pytest.raises(InputError, match="cannot be made of the 100 that are stored here"):
        reconstructed(walked[0], width=0.285)
    with pytest.raises(InputError, match=r"no averages are stored here; train with denoiser\.train\.averages\.every"):
        reconstructed(tmp_path, width=0.1)
    (tmp_path / "00000001.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelFileError, match="this snapshot of averages cannot be read"):
        reconstructed(tmp_path, width=0.1)


@pytest.mark.parametrize("widths", [(0.002, 0.1), (0.005, 0.005)])
def test_narrow_averages_are_stored_and_found_again(widths: tuple[float, float]) -> None:
    """What the first of them hold is long forgotten by the last: powers of it are no numbers any more."""
    profiles = [(exponent(width), updates) for updates in range(10, 1001, 10) for width in widths]
    shares, misfit = combination(profiles, wanted=(exponent(0.1), 1000))
    assert np.isfinite(shares).all()
    assert (misfit < 1e-6) == (0.1 in widths)
    assert misfit == pytest.approx(_directly(shares, profiles), abs=1e-6)


def _directly(shares: np.ndarray, profiles: list[tuple[float, int]]) -> float:
    """How far a sum of profiles is off, as a share, update by update."""

    def weights(power: float, updates: int) -> np.ndarray:
        return np.append(np.diff((np.arange(updates + 1) / updates) ** power), np.zeros(1000 - updates))

    wanted = weights(exponent(0.1), 1000)
    made = sum(share * weights(*profile) for share, profile in zip(shares, profiles, strict=True))
    return float(np.linalg.norm(made - wanted) / np.linalg.norm(wanted))


SMALL = (
    "data.count=12",
    "denoiser.train.averages.every=2",
    "denoiser.sample.count=1",
    "denoiser.sample.steps=2",
    *(f"{stage}.train.{each}" for stage in ("first_stage", "denoiser") for each in ("steps=5", "batch=2", "warmup=1")),
)


def test_a_run_stores_them_and_convert_makes_a_model_of_them(tmp_path: Path, capsys) -> None:
    """Also of a run that stopped and went on; the last snapshot of a tracked width is that width."""
    run = tmp_path / "run"
    for event in Run(recipe("tiny-uncond", overrides=SMALL), run, device="cpu").develop(page=False):
        if isinstance(event, Advance) and event.stage == "denoiser" and event.progress.step == 3:
            break
    list(Run(recipe("tiny-uncond", overrides=SMALL), run, device="cpu").develop(page=False))
    stored = run / "denoiser" / FOLDER
    assert [path.stem for path in sorted(stored.iterdir())] == ["00000002", "00000004", "00000005"]
    out = tmp_path / "wide.safetensors"
    assert main(["convert", str(run), str(out), "--ema", "0.1"]) == 0
    made, plain = load_model(out).state, load_model(run / "model.safetensors").state
    wanted = reconstructed(stored, width=0.1)
    assert made.keys() == plain.keys()
    assert set(wanted) == {name for name in plain if name.startswith("network.") and name in wanted}
    for name, value in made.items():
        assert torch.equal(value, wanted.get(name, plain[name]))
    changed = sum(not torch.equal(made[name], plain[name]) for name in wanted)
    assert changed > len(wanted) / 2
    capsys.readouterr()
    assert main(["convert", str(out), str(tmp_path / "again.safetensors"), "--ema", "0.1"]) == 2
    assert "--ema chooses among the averages that a run stored; give its folder" in capsys.readouterr().err

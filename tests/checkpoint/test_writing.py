"""What is written appears whole or not at all: full disks, renames that fail, writes that were cut off; and memory."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from darkroom.autoencoder.bottleneck import KLSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.checkpoint.compvis import convert_original
from darkroom.checkpoint.inventory import describe_original
from darkroom.checkpoint.store import StoredModel, save_model
from darkroom.checkpoint.to_diffusers import save_folder
from darkroom.checkpoint.write_compvis import rewrite_original, save_original
from darkroom.core import record
from darkroom.core.errors import InputError
from originals import CLASSES, KL, SPATIAL, both, config

SPEC = AutoencoderSpec(channels=32, multipliers=(1, 1), blocks=1, latent_channels=4, bottleneck=KLSpec())
WRITERS: dict[str, Callable[[Path], object]] = {
    "ours": lambda folder: save_model(folder / "m.safetensors", first_stage()),
    "ckpt": lambda folder: save_original(folder / "m.ckpt", first_stage()),
    "safetensors": lambda folder: save_original(folder / "m.safetensors", first_stage()),
    "all of a ckpt": lambda folder: rewrite_original(folder / "m.ckpt", source(folder)),
    "diffusers": lambda folder: save_folder(folder / "m", first_stage()),
}


def first_stage() -> StoredModel:
    return StoredModel("first-stage", SPEC, Autoencoder(SPEC).state_dict())


def source(folder: Path) -> Path:
    return folder.parent / "source.ckpt"


@pytest.fixture
def small_files(tmp_path: Path):
    """No file of more than 300 kB can be written; the first stage has 900."""
    torch.save({"state_dict": Autoencoder(SPEC).state_dict()}, source(tmp_path / "x"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_one_sentence(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match=r"folder/m[.\w]*: cannot be written \(File too large") as caught:
        WRITERS[name](folder)
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails(tmp_path: Path, suffix: str, failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The YAML is renamed first, the checkpoint second; when one fails nothing stays, and the next try goes through."""
    target, moved = tmp_path / f"m{suffix}", list[str]()
    plain = record.os.replace

    def replace(begin: Path, end: Path) -> None:
        moved.append(end.suffix)
        if len(moved) == failing:
            raise OSError(5, "Input/output error")
        plain(begin, end)

    with monkeypatch.context() as patched:
        patched.setattr(record.os, "replace", replace)
        with pytest.raises(InputError, match=r"cannot be written \(Input/output error\)"):
            save_original(target, first_stage())
    assert moved == [".yaml", suffix][:failing]
    assert list(tmp_path.iterdir()) == []
    save_original(target, first_stage())
    assert describe_original(target, target.with_suffix(".yaml")).missing == ()


def test_a_write_that_was_cut_off_is_repaired_by_the_next(tmp_path: Path) -> None:
    """A YAML alone is all that a process killed between both renames leaves."""
    target, yaml = tmp_path / "m.ckpt", tmp_path / "m.yaml"
    save_original(target, first_stage())
    said = yaml.read_bytes()
    target.unlink()
    save_original(target, first_stage())
    assert (target.exists(), yaml.read_bytes()) == (True, said)
    with pytest.raises(InputError, match=r"m\.ckpt: this is there already"):
        save_original(target, first_stage())
    target.unlink()
    yaml.write_bytes(said.replace(b"32", b"64"))
    for write in (save_original, lambda path, _: rewrite_original(path, both(tmp_path, KL)[0])):
        with pytest.raises(InputError, match=r"m\.yaml: this is there already, and says something else"):
            write(target, first_stage())
    assert not target.exists()


MEASURE = """
import resource, sys
from pathlib import Path
import torch
from darkroom.checkpoint.write_compvis import rewrite_original
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
torch.save({"state_dict": {"a.weight": torch.ones(4)}}, sys.argv[3])
rewrite_original(Path(sys.argv[3] + ".ckpt"), Path(sys.argv[3]))  # what is imported and set up once
before = peak()
for name in sys.argv[1:3]:
    rewrite_original(Path(name), Path(sys.argv[4]))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is asked of Linux")
def test_memory_of_a_checkpoint_written_again(tmp_path: Path) -> None:
    """The tensors once; one that two names share lies once in the file, and in memory."""
    state = {f"model.diffusion_model.{number}.weight": torch.ones(2**20) for number in range(48)}
    state["cond_stage_model.x.weight"] = state["first_stage_model.x.weight"] = torch.ones(2**21)
    path = tmp_path / "large.ckpt"
    torch.save({"state_dict": state}, path)
    size = path.stat().st_size / 2**20
    files = [str(tmp_path / name) for name in ("again.ckpt", "clean.safetensors", "tiny.ckpt", path.name)]
    done = subprocess.run([sys.executable, "-c", MEASURE, *files], capture_output=True, text=True, check=True)
    took = float(done.stdout)
    assert size > 200
    assert took < 1.3 * size
    assert took > 0.5 * size  # the peak was that of writing


def test_a_first_stage_that_lies_there_twice_must_be_the_same(tmp_path: Path) -> None:
    """inpainting_big holds it once more as the conditioner: compared, and said by name where it differs."""
    model = config("__is_first_stage__", unet={"in_channels": 9}, conditioning_key="concat")
    path, yaml = both(tmp_path, model)
    odd = convert_original(path, yaml).odd
    state = torch.load(path, weights_only=True)["state_dict"]
    again = {name.replace("first_stage", "cond_stage"): each for name, each in state.items() if "first_stage" in name}
    for copy in (again, {name: each.clone() for name, each in again.items()}):
        torch.save({"state_dict": state | copy}, path)
        found = convert_original(path, yaml)
        assert (found.strays, found.odd) == ((), odd)
    name, extra = "cond_stage_model.quant_conv.bias", "cond_stage_model.other.weight"
    torch.save({"state_dict": state | again | {name: again[name] + 1, extra: torch.zeros(1)}}, path)
    found = convert_original(path, yaml)
    assert found.strays == (extra,)
    assert f"{name!r} is not equal to the first stage's of that name, which is taken in both places" in found.stored.odd
    assert found.stored.card["odd"] == list(found.odd)
    torch.save({"state_dict": state | {name: torch.zeros(3)}}, path)
    assert repr(name) in " ".join(convert_original(path, yaml).odd)


def test_averages_of_nothing_are_strays(tmp_path: Path) -> None:
    path, yaml = both(tmp_path, config(CLASSES, unet=SPATIAL, conditioning_key="crossattn"))
    state = torch.load(path, weights_only=True)["state_dict"]
    odd = ["model_ema.diffusion_modelheadbias", "model_ema.first_stage_modelquant_convbias", "model_ema.losslogvar"]
    counters = {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(3)}
    torch.save({"state_dict": state | counters | {name: torch.zeros(4) for name in odd}}, path)
    found = describe_original(path, yaml)
    assert found.strays == tuple(odd)
    assert (found.averages, found.left_out) == ("none", ())

"""From a name or a path to a model: what is found, what is refused and how."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from darkroom.autoencoder.model import Autoencoder
from darkroom.cli.inspect import look
from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError, ModelFileError
from darkroom.network.unet import UNet
from darkroom.tasks import find as door
from darkroom.tasks.find import built_in, read
from darkroom.tasks.load import load
from darkroom.tasks.parts import load_autoencoder, load_network


@pytest.fixture
def run(model_files: dict[str, Path], tmp_path: Path) -> Path:
    """A finished run's folder."""
    folder = tmp_path / "fine-run"
    folder.mkdir()
    shutil.copy(model_files["class"], folder / "model.safetensors")
    (folder / "recipe.yaml").write_text("name: x\n")
    return folder


def test_a_file_a_string_and_a_run_folder(model_files: dict[str, Path], run: Path) -> None:
    assert load(model_files["class"], device="cpu").name == "class"
    assert load(str(model_files["class"]), device="cpu").classes == ("circle", "square", "star")
    assert load(run, device="cpu").name == "fine-run"
    assert load(run / "model.safetensors", device="cpu").name == "fine-run"


def test_a_built_in_name(model_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "built_in", lambda: {"hearts": model_files["plain"]})
    assert load("hearts", device="cpu").fields == ()
    with pytest.raises(ModelFileError, match=r"haerts: no such file.*\(did you mean 'hearts'\?\)"):
        load("haerts", device="cpu")


def test_built_in_models_stand_in_the_order_of_their_names() -> None:
    assert list(built_in()) == sorted(built_in())  # shapes before shapes-class, unlike their files


def test_built_in_models_can_be_loaded() -> None:
    for path in built_in().values():
        assert path.stat().st_size < 25e6
        stored = read(path)
        assert stored.card["data"]["license"]
        if stored.kind == "first-stage":
            assert stored.latents is not None
            assert load_autoencoder(path, device="cpu").spec == stored.spec
            with pytest.raises(ModelFileError, match="a first stage alone, which draws nothing"):
                load(path, device="cpu")
        else:
            assert load(path, device="cpu").card


def test_the_card_says_which_spec_it_is(model_files: dict[str, Path]) -> None:
    hashes = {load(model_files[name], device="cpu").card["spec_hash"] for name in ("plain", "class", "vector", "text")}
    assert len(hashes) == 4
    assert all(len(each) == 12 for each in hashes)


def test_what_is_no_model_is_said_so(model_files: dict[str, Path], tmp_path: Path) -> None:
    empty, half, foreign = (tmp_path / name for name in ("empty", "half", "foreign"))
    for folder in (empty, half, foreign / "unet"):
        folder.mkdir(parents=True)
    (half / "recipe.yaml").write_text("name: x\n")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    (tmp_path / "alone.ckpt").write_bytes(b"PK\x03\x04")
    (tmp_path / "note.txt").write_bytes(b"nonsense")
    (named := tmp_path / "celeba256").mkdir()
    (named / "model.ckpt").touch()
    cases: list[tuple[Path, type[InputError], str]] = [
        (tmp_path / "absent", ModelFileError, "no such file, run folder or built-in model"),
        (empty, ModelFileError, "no model in this folder"),
        (named, ModelFileError, "no model in this folder .*; name one of its files itself: model.ckpt"),
        (Path("a" * 5000), ModelFileError, "File name too long"),
        (half, ModelFileError, "has not finished its first stage yet; run darkroom train again"),
        (foreign, ModelFileError, "model_index.json is missing, which says what the parts"),
        (tmp_path / "other.safetensors", ModelFileError, "not one of darkroom's"),
        (tmp_path / "broken.safetensors", ModelFileError, "broken.safetensors"),
        (tmp_path / "alone.ckpt", ModelFileError, "an original checkpoint needs its YAML"),
        (tmp_path / "note.txt", ModelFileError, "not a torch checkpoint"),
        (model_files["first-stage"], ModelFileError, "a first stage alone.* in Python darkroom.load_autoencoder"),
    ]
    for path, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            load(path, device="cpu")
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelFileError, match="no such config file"):
        load(tmp_path / "alone.ckpt", config=tmp_path / "absent.yaml")


def test_a_first_stage_without_a_folder_in_its_name(
    model_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_files["first-stage"].parent)
    with pytest.raises(ModelFileError, match="a first stage alone"):
        load("first-stage.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"engine": "egaer"}, InputError, r"engine 'egaer' is unknown \(did you mean 'eager'\?\)"),
        ({"dtype": "int8"}, InputError, "precision 'int8' is unknown"),
        ({"device": "toaster"}, InputError, "device 'toaster'"),
    ],
)
def test_engines_devices_and_precisions_that_are_not_there(
    model_files: dict[str, Path], options: dict[str, str], kind: type[InputError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        load(model_files["plain"], **{"device": "cpu", **options})


def test_what_a_model_computes_in(model_files: dict[str, Path]) -> None:
    assert load(model_files["plain"], device="cpu", engine="eager").compute.dtype == torch.float32
    assert load(model_files["plain"], device="cpu", dtype="bfloat16").compute.dtype == torch.bfloat16


def test_a_first_stage_alone_or_inside(model_files: dict[str, Path]) -> None:
    alone, inside = (load_autoencoder(model_files[name], device="cpu") for name in ("first-stage", "class"))
    assert isinstance(alone, Autoencoder)
    assert alone.spec == inside.spec
    images = torch.rand(1, 3, 8, 8)
    mean, log_variance = alone.moments(images)
    assert mean.shape == log_variance.shape == (1, 3, 4, 4)
    half = load_autoencoder(model_files["class"], device="cpu", dtype="bfloat16")
    assert half.moments(images.bfloat16())[0].dtype == torch.bfloat16
    with pytest.raises(ModelFileError, match="works on pixels, it has no first stage"):
        load_autoencoder(model_files["pixels"])


@torch.no_grad()
def test_a_network_alone(model_files: dict[str, Path]) -> None:
    network = load_network(model_files["class"], device="cpu")
    assert isinstance(network, UNet)
    assert not network.training
    model = load(model_files["class"], device="cpu")
    conditions = model.condition(label=[1])
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([30])
    torch.testing.assert_close(network(x, t, conditions), model.network(x, t, conditions))
    half = load_network(model_files["class"], device="cpu", dtype="bfloat16")
    assert half(x.bfloat16(), t, conditions.map(torch.Tensor.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(ModelFileError, match="a first stage alone, it has no U-Net"):
        load_network(model_files["first-stage"])


@pytest.fixture
def original(parity: Path, tmp_path: Path) -> Path:
    """An original class-conditional checkpoint with its YAML beside it."""
    for name in ("model.ckpt", "config.yaml"):
        shutil.copy(parity / "d_class_cond" / name, tmp_path / name)
    return tmp_path / "model.ckpt"


def test_an_original_checkpoint_finds_its_config(original: Path, tmp_path: Path) -> None:
    model = load(original, device="cpu")
    assert model.fields == ("label",)
    assert model.schedule.steps == 1000
    one, again = (model.sample(label=3, steps=2, size=8) for _ in range(2))
    assert isinstance(one[0], Image.Image)
    assert one[0].tobytes() == again[0].tobytes()
    given = load(original, config=tmp_path / "config.yaml", device="cpu")
    assert given.card["spec_hash"] == model.card["spec_hash"]
    network = load_network(original, device="cpu")
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([5])
    conditions = model.condition(label=3)
    torch.testing.assert_close(network(x, t, conditions).detach(), model.network(x, t, conditions))
    with pytest.raises(InputError, match="tokens"):
        network(x, t, Conditions())


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin", "MODEL.CKPT"])
def test_a_checkpoint_that_was_renamed(original: Path, tmp_path: Path, name: str) -> None:
    """What a file is its bytes say; torch's own under the name of another format is read, and told about."""
    known = load(original, device="cpu").card["spec_hash"]
    original.rename(tmp_path / name)
    assert load(tmp_path / name, device="cpu").card["spec_hash"] == known
    assert look(str(tmp_path / name))["kind"] == "original model"


def test_two_configs_beside_a_checkpoint_leave_a_question(original: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "config.yaml", tmp_path / "second.yaml")
    with pytest.raises(ModelFileError, match=r"needs its YAML.*beside it lie config\.yaml, second\.yaml"):
        load(original, device="cpu")
    (tmp_path / "second.ckpt").touch()  # the second is that one's
    assert load(original, device="cpu").fields == ("label",)
    (tmp_path / "second.ckpt").unlink()
    shutil.copy(tmp_path / "config.yaml", tmp_path / "model.yaml")  # of the same name: that one is meant
    assert load(original, device="cpu").fields == ("label",)


def test_a_vocabulary_beside_a_model_is_used(model_files: dict[str, Path], tmp_path: Path) -> None:
    from dataclasses import replace

    from darkroom.checkpoint.store import load_model, save_model

    stored: Any = load_model(model_files["text"])
    path = save_model(tmp_path / "mute.safetensors", replace(stored, tokenizer=None))
    assert load(path, device="cpu").tokenizer is None
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\n")
    assert load(path, device="cpu").words.caption_ids("a red")[0, :4].tolist() == [2, 1, 4, 3]
    known = stored.spec.conditioners[0].encoder.vocabulary
    with (tmp_path / "vocab.txt").open("a") as file:
        file.writelines(f"w{number}\n" for number in range(known))
    with pytest.raises(ModelFileError, match=rf"vocab.txt: has {known + 5} pieces, its text encoder knows {known}"):
        load(path, device="cpu")

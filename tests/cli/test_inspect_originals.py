"""`darkroom inspect` on checkpoints of the original code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from darkroom.checkpoint.unpickle import read_checkpoint
from darkroom.diffusion.model import ModelSpec
from originals import KL, SPATIAL, averages, both, checkpoint, config, described, state_of, written

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(say: Say) -> Callable[..., dict[str, Any]]:
    """The facts of one file."""

    def facts(*words: object) -> dict[str, Any]:
        code, out, complaint = say("inspect", *words, "--json")
        assert code == 0, complaint
        return json.loads(out)

    return facts


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_checkpoints_of_the_original_code(
    told: Callable[..., dict[str, Any]], parity: Path, tmp_path: Path, suffix: str
) -> None:
    shutil.copy(parity / "d_class_cond" / "config.yaml", tmp_path)
    path = tmp_path / f"model{suffix}"
    shutil.copy(parity / "d_class_cond" / "model.ckpt", tmp_path / "model.ckpt")
    if suffix == ".safetensors":
        save_file(dict(read_checkpoint(tmp_path / "model.ckpt").state_dict), path)
    found = told(path)
    assert (found["kind"], found["family"], found["task"]) == ("original model", "LatentDiffusion", "class")
    assert (found["fields"], found["conditioning"], found["factor"]) == (["label"], {"label": "by tokens"}, 1)
    assert (found["precision"], found["averages"], found["weights"]) == (["float32"], "none", "raw")
    assert found["missing"] == found["strays"] == []


def test_what_is_odd_is_told_by_name(told: Callable[..., dict[str, Any]], say: Say, tmp_path: Path) -> None:
    found = described(tmp_path, config())
    assert isinstance(found.spec, ModelSpec)
    state = {name: tensor.half() for name, tensor in state_of(found).items()}
    lost = "model.diffusion_model.out.2.bias"
    mean = averages(state, found.spec)
    del state[lost]
    path = checkpoint(tmp_path, {**state, **mean, "ddim_sigmas": torch.zeros(2)})
    facts = told(path)
    assert (facts["averages"], facts["weights"], facts["missing"]) == ("complete", "ema", [])
    assert facts["strays"] == ["ddim_sigmas"]
    assert "noise levels differ" in " ".join(facts["odd"])
    assert facts["precision"] == ["float16", "float32"]
    del mean["model_ema.diffusion_modelout2bias"]
    facts = told(checkpoint(tmp_path, {**state, **mean}))
    assert (facts["averages"], facts["weights"], facts["missing"]) == ("incomplete", "raw", [lost])
    assert lost in say("inspect", path)[1]


def test_first_stages(told: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = told(both(tmp_path, KL)[0])
    assert (found["kind"], found["family"], found["factor"]) == ("original first stage", "AutoencoderKL", 2)
    assert set(found["parameters"]) == {"first_stage"}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_without_its_yaml(told: Callable[..., dict[str, Any]], say: Say, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    state = state_of(described(tmp_path / "elsewhere", config()))
    path = tmp_path / f"model{suffix}"
    torch.save({"state_dict": state}, path) if suffix == ".ckpt" else save_file(state, path)
    found = told(path)
    assert (found["kind"], found["config"]) == ("checkpoint without its YAML", None)
    assert set(found["numbers"]) == {"model", "first_stage_model", "buffers"}
    assert "--config FILE" in found["odd"][-1]
    assert say("inspect", path)[0] == 0
    whole = told(path, "--config", tmp_path / "elsewhere" / "config.yaml")
    assert whole["kind"] == "original model"
    written(tmp_path, KL)
    assert told(path)["kind"] == "original first stage"


CLIP = {"target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"}
REFUSED = {
    "planned": (yaml.safe_dump({"model": config(CLIP, unet=SPATIAL, concat_mode=False)}), "FrozenOpenCLIPEmbedder"),
    "unheard": (yaml.safe_dump({"model": {"target": "mine.Model", "params": {}}}), "unknown target 'mine.Model'"),
    "other": ("name: environment\n", "it has no 'model:'"),
    "broken": ("model: [", "not valid YAML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_yaml_leaves_the_outline(told: Callable[..., dict[str, Any]], tmp_path: Path, name: str) -> None:
    text, reason = REFUSED[name]
    state = state_of(described(tmp_path, config()))
    path = checkpoint(tmp_path, state)
    (tmp_path / "config.yaml").write_text(text)
    found = told(path)
    assert (found["kind"], found["config"]) == ("checkpoint whose YAML is refused", str(tmp_path / "config.yaml"))
    assert (found["tensors"], found["precision"], found["averages"]) == (len(state), ["float32"], False)
    assert set(found["numbers"]) == {"model", "first_stage_model", "buffers"}
    assert len(found["odd"]) == 1
    assert reason in found["odd"][0]


def test_a_given_yaml_that_is_none_is_refused(say: Say, tmp_path: Path) -> None:
    """One that describes what is not read here leaves the outline, though."""
    path = checkpoint(tmp_path, state_of(described(tmp_path, config())))
    for name, code in (("planned", 0), ("unheard", 0), ("other", 2), ("broken", 2)):
        (tmp_path / "other.yaml").write_text(REFUSED[name][0])
        answer, out, complaint = say("inspect", path, "--config", tmp_path / "other.yaml")
        assert answer == code
        assert REFUSED[name][1] in (complaint if code else out)


def test_the_folder_of_a_checkpoint_is_not_taken_for_pictures(refused: Callable[..., str], tmp_path: Path) -> None:
    both(tmp_path, config())
    assert refused("inspect", tmp_path).endswith("; name one of its files itself: model.ckpt\n")


def test_several_yaml_files_are_named(told: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    path = checkpoint(tmp_path, state_of(described(tmp_path, config())))
    (tmp_path / "other.yaml").write_text("")
    assert told(path)["odd"][-1].endswith("--config FILE (beside it lie config.yaml, other.yaml)")


def test_a_yaml_alone_says_what_it_is_good_for(refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text, words in (
        ("model:\n  target: ldm.models.autoencoder.AutoencoderKL\n", "darkroom inspect FILE.ckpt --config"),
        ("name: mine\nfirst_stage: {recipe: vq-f4}\n", "darkroom train"),
        ("a: 1\n", "neither the YAML of an original checkpoint"),
    ):
        path.write_text(text, encoding="utf-8")
        assert words in refused("inspect", path)

"""`darkroom convert`: what is written, what is said, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from first_stages import store_first_stage

from darkroom.checkpoint.compvis import load_original
from darkroom.checkpoint.store import load_model, read_header
from darkroom.checkpoint.unpickle import read_checkpoint
from darkroom.core.record import write_yaml
from darkroom.diffusion.model import ModelSpec
from originals import CONFIGS, KL, averages, both, checkpoint, config, described, state_of

Say = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
HEAD = "model.diffusion_model.out.2.bias"


@pytest.fixture
def told(say: Say) -> Callable[..., dict[str, Any]]:
    """The report of one conversion."""

    def report(*words: object) -> dict[str, Any]:
        code, out, complaint = say("convert", *words, "--json")
        assert (code, complaint) == (0, "")
        return json.loads(out)

    return report


@pytest.fixture
def averaged(tmp_path: Path) -> Path:
    """An original checkpoint with moving averages, a stray and losses, in half precision, and its YAML."""
    found = described(tmp_path, config())
    assert isinstance(found.spec, ModelSpec)
    state = state_of(found)
    extra = {"ddim_sigmas": torch.zeros(2), "first_stage_model.loss.logvar": torch.zeros(())}
    return checkpoint(tmp_path, {**state, **averages(state, found.spec), **extra})


def test_to_ours_and_back(told: Callable[..., dict[str, Any]], averaged: Path, tmp_path: Path) -> None:
    ours, back = tmp_path / "new" / "ours.safetensors", tmp_path / "back" / "model.ckpt"
    report = told(averaged, ours)
    read = report["read"]
    assert (read["kind"], read["family"], read["task"]) == ("original model", "LatentDiffusion", "unconditional")
    assert (read["factor"], read["averages"], read["weights"], read["strays"]) == (
        2,
        "complete",
        "ema",
        ["ddim_sigmas"],
    )
    assert report["written"]["to"] == "darkroom"
    assert report["written"]["paths"] == [str(ours)]
    count = sum("diffusion_model." in name for name in read_checkpoint(averaged).state_dict)
    assert report["dropped"] == [
        f"the raw weights of {count} tensors",
        "1 tensors of its losses, which only train",
        "what nothing explains: ddim_sigmas",
    ]
    report = told(ours, back)
    assert report["written"]["paths"] == [str(back), str(back.with_suffix(".yaml"))]
    assert (report["read"]["kind"], report["read"]["task"]) == ("model", "unconditional")
    assert report["dropped"] == []
    state, mean = read_checkpoint(back).state_dict, read_checkpoint(averaged).state_dict
    assert torch.equal(state[HEAD], mean["model_ema.diffusion_modelout2bias"])
    again = load_original(back, back.with_suffix(".yaml"))
    assert again.spec == load_model(ours).spec
    assert told(back, tmp_path / "other.safetensors", "--to", "compvis")["written"]["to"] == "compvis"


def test_raw_weights_and_other_types(told: Callable[..., dict[str, Any]], averaged: Path, tmp_path: Path) -> None:
    report = told(averaged, tmp_path / "raw.safetensors", "--weights", "raw", "--dtype", "bfloat16")
    assert report["read"]["weights"] == "raw"
    assert report["dropped"][0].startswith("the moving averages of")
    header = read_header(tmp_path / "raw.safetensors")
    assert (header.card["weights"], header.tensors["network.head.bias"].dtype) == ("raw", torch.bfloat16)
    told(averaged, tmp_path / "half.ckpt", "--dtype", "float16")
    assert read_checkpoint(tmp_path / "half.ckpt").state_dict.dtype(HEAD) == torch.float16
    told(averaged, tmp_path / "small.safetensors", "--dtype", "int8")
    assert read_header(tmp_path / "small.safetensors").tensors["network.stem.weight"].dtype == torch.int8


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_every_tensor_is_kept(told: Callable[..., dict[str, Any]], averaged: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / "kept" / f"all{suffix}"
    report = told(averaged, target, "--to", "compvis", "--keep-all")
    assert report["dropped"] == []
    before, after = (read_checkpoint(path).state_dict for path in (averaged, target))
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "kept" / "all.yaml").exists()
    (tmp_path / "config.yaml").unlink()
    alone = told(averaged, tmp_path / "alone.ckpt", "--keep-all")
    assert alone["written"]["paths"] == [str(tmp_path / "alone.ckpt")]
    assert alone["read"]["kind"] == "checkpoint without its YAML"


def test_every_tensor_is_kept_whatever_the_yaml_says(
    told: Callable[..., dict[str, Any]], refused: Refused, averaged: Path, tmp_path: Path
) -> None:
    """It is copied as it is, understood or not, but when there is a choice, or when it is none."""
    yaml = tmp_path / "config.yaml"
    for number, text in enumerate(("model: {target: mine.Model}\n", "model: [")):
        yaml.write_text(text)
        report = told(averaged, tmp_path / f"{number}.ckpt", "--keep-all")
        assert report["read"]["kind"] == "checkpoint whose YAML is refused"
        assert report["dropped"] == ["what config.yaml means: it is copied as it is, not understood"]
        assert (tmp_path / f"{number}.yaml").read_text() == text
        assert set(read_checkpoint(tmp_path / f"{number}.ckpt").state_dict) == set(read_checkpoint(averaged).state_dict)
    assert "not valid YAML" in refused("convert", averaged, tmp_path / "x.safetensors")
    yaml.write_text("#" * 2**18)
    report = told(averaged, tmp_path / "large.ckpt", "--keep-all")
    assert report["dropped"] == ["config.yaml, which is too large for a YAML"]
    (tmp_path / "another.yaml").write_text("")
    report = told(averaged, tmp_path / "several.ckpt", "--keep-all")
    beside = "another.yaml, config.yaml lie beside it"
    assert report["dropped"] == [f"every YAML: {beside}, and none is copied (--config chooses)"]
    assert not list(tmp_path.glob("large.y*")) + list(tmp_path.glob("several.y*"))


def test_a_yaml_of_the_same_name_serves_both(told: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    path = both(tmp_path, KL)[0]
    yaml = (tmp_path / "config.yaml").rename(tmp_path / "model.yaml").read_bytes()
    report = told(path, tmp_path / "model.safetensors", "--to", "compvis", "--keep-all")
    assert report["written"]["paths"][1] == str(tmp_path / "model.yaml")
    assert (tmp_path / "model.yaml").read_bytes() == yaml


def test_a_first_stage_of_two_kinds_is_told(told: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    name = "cond_stage_model.quant_conv.bias"
    path, _ = both(tmp_path, CONFIGS["masked"][0], **{name: torch.zeros(8)})
    report = told(path, tmp_path / "m.safetensors")
    assert f"{name!r} is not equal to the first stage's of that name" in report["read"]["odd"][-1]


def test_first_stages_and_words(say: Say, told: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    report = told(both(tmp_path, KL)[0], tmp_path / "stage.safetensors")
    assert report["read"]["kind"] == "original first stage"
    code, out, _ = say("convert", tmp_path / "stage.safetensors", tmp_path / "stage.ckpt")
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["kind"] == "first stage"
    assert lines["written"].startswith(f"{tmp_path}/stage.ckpt, {tmp_path}/stage.yaml (compvis, ")
    small = store_first_stage(tmp_path / "small.safetensors")
    assert say("convert", small, tmp_path / "small2.safetensors", "--dtype", "bfloat16")[0] == 0


def test_a_tokenizer_beside_the_checkpoint_comes_along(told: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    path, _ = both(tmp_path, CONFIGS["text"][0])
    report = told(path, tmp_path / "mute" / "a.safetensors")
    assert report["read"]["conditioning"] == {"caption": "by tokens"}
    assert report["dropped"][-1].startswith("the tokenizer: no vocab.txt lies beside")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\n")
    assert told(path, tmp_path / "b.safetensors")["dropped"] == []
    assert load_model(tmp_path / "b.safetensors").tokenizer is not None
    lost = told(tmp_path / "b.safetensors", tmp_path / "b.ckpt")["dropped"]
    assert lost == ["its tokenizer (the original fetches BERT's own)"]


def test_what_does_not_go_together(refused: Refused, averaged: Path, tmp_path: Path) -> None:
    ours = store_first_stage(tmp_path / "ours.safetensors")
    cases = [
        ((averaged, tmp_path / "m.bin"), "its name does not say a format"),
        ((averaged, tmp_path / "m.safetensors", "--to", "darkrom"), "(did you mean 'darkroom'?)"),
        ((averaged, tmp_path / "m.ckpt", "--to", "darkroom"), "is called NAME.safetensors"),
        ((averaged, tmp_path / "m", "--to", "compvis"), "is called NAME.ckpt or NAME.safetensors"),
        ((averaged, tmp_path / "m", "--to", "compvis", "--keep-all"), "is called NAME.ckpt or NAME.safetensors"),
        ((averaged, tmp_path / "m.ckpt", "--to", "diffusers"), "diffusers models are folders"),
        ((averaged, tmp_path / "m.ckpt", "--dtype", "float61"), "did you mean 'float16'"),
        ((averaged, tmp_path / "m.ckpt", "--dtype", "int8"), "dtype 'int8' does not fit"),
        ((averaged, tmp_path / "m", "--dtype", "float16"), "diffusers folders are written in float32"),
        ((averaged, tmp_path / "m.ckpt", "--weights", "rwa"), "did you mean 'raw'"),
        ((averaged, tmp_path / "m.safetensors", "--keep-all"), "a file of darkroom holds one set of weights"),
        ((averaged, tmp_path / "m", "--keep-all"), "a diffusers folder holds one set of weights"),
        ((averaged, tmp_path / "m.ckpt", "--keep-all", "--weights", "raw"), "leave out --weights"),
        ((ours, tmp_path / "m.ckpt", "--keep-all"), "--keep-all is for original checkpoints"),
        ((ours, tmp_path / "m.ckpt", "--weights", "raw"), "it holds one set of weights"),
        ((ours, tmp_path / "m.ckpt"), "no words for norms of 4 groups"),
        ((tmp_path / "absent.ckpt", tmp_path / "m.ckpt"), "no such file"),
        ((averaged, averaged), "this is there already"),
        ((averaged, tmp_path / "config.ckpt"), "config.yaml: this is there already"),
        ((averaged, ours), "this is there already"),
        ((averaged, tmp_path), "this is there already"),
        ((averaged, tmp_path / "m.ckpt", "--samples", "5"), "--samples does not fit: it is for --to shards"),
        ((tmp_path, tmp_path / "m", "--to", "shards", "--dtype", "float16"), "--dtype does not fit"),
        ((tmp_path, tmp_path / "m", "--to", "shards", "--keep-all"), "--keep-all does not fit"),
    ]
    before = sorted(tmp_path.iterdir())
    for words, sentence in cases:
        assert sentence in refused("convert", *words), words
    assert sorted(tmp_path.iterdir()) == before
    write_yaml(tmp_path / "config.yaml", {"model": config(use_ema=False)})
    wanted = (averaged, tmp_path / "m.safetensors", "--weights", "ema")
    assert "moving averages cannot be taken (use_ema is false)" in refused("convert", *wanted)
    checkpoint(tmp_path, state_of(described(tmp_path, config())))
    assert "moving averages cannot be taken (there are none)" in refused("convert", *wanted)
    (tmp_path / "config.yaml").unlink()
    assert "needs its YAML" in refused("convert", averaged, tmp_path / "m.safetensors")


def test_diffusers_folders(told: Callable[..., dict[str, Any]], refused: Refused, tmp_path: Path) -> None:
    """There and back by the verb alone: the same tensors; what diffusers has no words for is refused by name."""
    one_head = config(unet={"num_heads": -1, "num_head_channels": 8})
    source = checkpoint(tmp_path, state_of(described(tmp_path, one_head)))
    (tmp_path / "empty").mkdir()
    for target in ("new", "empty"):
        report = told(source, tmp_path / target)
        assert report["written"]["to"] == "diffusers"
        assert (tmp_path / target / "model_index.json").exists()
    told(tmp_path / "new", tmp_path / "back.safetensors")
    before, after = load_original(source, tmp_path / "config.yaml"), load_model(tmp_path / "back.safetensors")
    assert before.state.keys() == after.state.keys()
    assert all(torch.equal(before.state[name], after.state[name]) for name in before.state)
    report = told(tmp_path / "new", tmp_path / "again.ckpt")
    assert (report["read"]["kind"], report["read"]["task"]) == ("diffusers pipeline", "unconditional")
    again, first = (read_checkpoint(path).state_dict for path in (tmp_path / "again.ckpt", source))
    assert all(torch.equal(again[name], first[name]) for name in again)
    write_yaml(tmp_path / "config.yaml", {"model": config()})
    assert "heads at levels of different widths" in refused("convert", source, tmp_path / "other")
    assert not (tmp_path / "other").exists()

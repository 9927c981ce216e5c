"""What an original checkpoint holds is told without reading its weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from darkroom.checkpoint.archive import Archive
from darkroom.checkpoint.compvis import convert_original
from darkroom.checkpoint.inventory import describe_original, outline, precisions
from darkroom.checkpoint.unpickle import read_checkpoint
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import ModelSpec, count_parameters
from originals import CONFIGS, KL, averages, both, checkpoint, config, described, state_of, written


@pytest.fixture
def storages_read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Which storages are read. The first one always is: the shape checks of a test run look at it."""
    seen: set[str] = set()
    plain = Archive.read

    def counted(self: Archive, key: str, *, begin: int, count: int) -> bytearray:
        seen.add(key)
        return plain(self, key, begin=begin, count=count)

    monkeypatch.setattr(Archive, "read", counted)
    return seen


@pytest.mark.parametrize("name", CONFIGS)
def test_only_the_noise_levels_are_read(tmp_path: Path, name: str, storages_read: set[str]) -> None:
    files = both(tmp_path, CONFIGS[name][0])
    found = describe_original(*files)
    noise_levels = list(read_checkpoint(files[0]).state_dict).index("alphas_cumprod")
    assert storages_read <= {"0", str(noise_levels)}
    assert (found.missing, found.misshapen, found.strays, found.left_out) == ((), (), (), ())
    spec = found.described.spec
    assert isinstance(spec, ModelSpec)
    assert found.parameters == count_parameters(spec)
    converted = convert_original(*files)
    assert (converted.stored.spec, converted.odd, converted.strays) == (spec, found.odd, found.strays)
    assert not any(name.startswith("model_ema.") for name in found.names.values())


def test_all_that_is_amiss_is_told_at_once(tmp_path: Path) -> None:
    state = state_of(described(tmp_path, config()))
    stem, norm = "model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.0.weight"
    bias = "model.diffusion_model.out.2.bias"
    state |= {
        stem: torch.zeros(4, 4),
        bias: state[bias].int(),
        "ddim_sigmas": torch.zeros(2),
        "loss.logvar": torch.zeros(()),
    }
    del state[norm]
    found = describe_original(checkpoint(tmp_path, state), tmp_path / "config.yaml")
    assert found.missing == (norm,)
    assert found.misshapen == (
        f"tensor {stem!r} has shape (4, 4), the configuration needs (32, 4, 3, 3)",
        f"tensor {bias!r} is of type torch.int32, weights are floating point",
    )
    assert found.strays == ("ddim_sigmas",)
    assert found.left_out == ("1 tensors of its losses, which only train",)


NAMED = {
    "conditioner.embedders.1.model.ln_final.weight": "is a name of Stable Diffusion XL, which is not read",
    "cond_stage_model.model.ln_final.weight": "is a name of Stable Diffusion 2, which is not read",
    "lora_unet_mid_block.alpha": "is a name of a LoRA, which changes a model and is none",
    "module.model.diffusion_model.out.0.weight": "DataParallel gives them: save the state_dict of its .module",
    "diffusion_model.out.0.weight": "'diffusion_model.out.0.weight' is there and not known",
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_there_instead_is_told(tmp_path: Path, name: str) -> None:
    state = state_of(described(tmp_path, config()))
    taken = "model.diffusion_model.out.0.weight"
    path = checkpoint(tmp_path, {each: state[each] for each in state if each != taken} | {name: torch.zeros(1)})
    with pytest.raises(ModelFileError, match=rf"'{taken}' is missing, .*; .*{NAMED[name]}$"):
        convert_original(path, tmp_path / "config.yaml")
    odd = describe_original(path, tmp_path / "config.yaml").odd
    assert (odd[-1].endswith(NAMED[name])) == ("is a name" in NAMED[name] or "module" in name)
    if name[:5] == "lora_":
        with pytest.raises(ModelFileError, match=rf"more layers than it has tensors; {name!r} {NAMED[name]}"):
            convert_original(checkpoint(tmp_path, {name: torch.zeros(1)}), tmp_path / "config.yaml")
        whole = describe_original(checkpoint(tmp_path, {**state, name: torch.zeros(1)}), tmp_path / "config.yaml")
        assert (whole.strays, NAMED[name] in " ".join(whole.odd)) == ((name,), False)


def test_averages_and_what_is_left_for_them(tmp_path: Path) -> None:
    found = described(tmp_path, config())
    assert isinstance(found.spec, ModelSpec)
    state, mean = state_of(found), averages(state_of(found), found.spec)
    path, file = checkpoint(tmp_path, state | mean), tmp_path / "config.yaml"
    both_ways = [describe_original(path, file, ema=ema) for ema in (True, False)]
    assert [(each.averages, each.ema) for each in both_ways] == [("complete", True), ("complete", False)]
    assert both_ways[0].left_out == (f"the raw weights of {len(mean)} tensors",)
    assert both_ways[1].left_out == (f"the moving averages of {len(mean)} tensors",)
    assert set(both_ways[0].names.values()) >= set(mean)
    mean.popitem()
    partial = describe_original(checkpoint(tmp_path, state | mean), file)
    assert (partial.averages, partial.ema) == ("incomplete", False)


def test_a_first_stage_out_of_a_whole_model(tmp_path: Path) -> None:
    state = state_of(described(tmp_path, config()))
    found = describe_original(checkpoint(tmp_path, state), written(tmp_path, KL))
    inside = [name for name in state if name.startswith("first_stage_model.")]
    assert sorted(found.names.values()) == sorted(inside)
    assert found.parameters == {"first_stage": sum(state[name].numel() for name in inside)}
    rest = len(state) - len(inside)
    assert found.left_out == (f"the rest of the model that the first stage is taken from, {rest} tensors",)
    alone = checkpoint(tmp_path, {name: state[name] for name in inside})
    assert describe_original(alone, tmp_path / "config.yaml").left_out == ()


def test_what_lies_beside_the_weights_is_told(tmp_path: Path) -> None:
    state = state_of(described(tmp_path, config()))
    value = {"state_dict": state, "global_step": 7, "epoch": 1, "optimizer_states": [{"state": {}}], 3: "odd"}
    torch.save(value, tmp_path / "model.ckpt")
    found = describe_original(tmp_path / "model.ckpt", tmp_path / "config.yaml")
    assert found.checkpoint.global_step == 7
    assert found.left_out == ("what lies beside the weights: epoch, optimizer_states",)


def test_without_a_yaml_names_and_shapes_are_told(tmp_path: Path, storages_read: set[str]) -> None:
    found = described(tmp_path, config())
    assert isinstance(found.spec, ModelSpec)
    state = state_of(found)
    path = checkpoint(tmp_path, state | averages(state, found.spec))
    told = outline(read_checkpoint(path))
    assert storages_read <= {"0"}
    counts = count_parameters(found.spec)
    assert (told["steps"], told["averages"], told["precision"]) == (5, True, ["float32"])
    assert told["numbers"] == {
        "model": counts["network"],
        "first_stage_model": counts["first_stage"],
        "buffers": 13 * 50,
        "model_ema": counts["network"],
    }
    many = {f"{place}.weight": torch.zeros(1) for place in range(30)}
    told = outline(read_checkpoint(checkpoint(tmp_path, many)))
    assert (len(told["numbers"]), told["numbers"]["others"]) == (21, 10)


def test_precision_is_of_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.zeros(1).half(), "b": torch.zeros(1), "c": torch.zeros(1, dtype=torch.int64)}
    save_file(tensors, path, metadata={"global_step": "12"})
    found = read_checkpoint(path)
    assert precisions(found.state_dict) == ["float16", "float32"]
    assert found.global_step == 12
    save_file(tensors, path, metadata={"global_step": "9" * 5000})
    assert read_checkpoint(path).global_step is None

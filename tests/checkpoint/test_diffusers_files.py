"""Files of diffusers folders: shards, variants, older forms; and those that an attacker wrote."""

import os
import shutil
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import crafted
from darkroom.checkpoint.diffusers import load_folder
from darkroom.checkpoint.diffusers_files import MOST_JSON, MOST_SHARDS
from darkroom.core.errors import InputError
from pipelines import change, unconditional, write

WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines") / "plain"
    unconditional().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "plain")


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "400KB"}, {"max_shard_size": "400KB", "variant": "fp16"}])
def test_every_form_holds_the_same(safe: bool, options: dict[str, Any], saved: Path, tmp_path: Path) -> None:
    unconditional().save_pretrained(tmp_path, safe_serialization=safe, **options)
    stored = load_folder(tmp_path)
    assert equal(stored.state, load_folder(saved).state)
    about = ("vqvae: only variants of the weights are there, fp16 is taken",)
    assert stored.odd[:1] == (about if "variant" in options else ())


def test_half_precision_is_widened_and_full_precision_preferred(folder: Path, saved: Path, tmp_path: Path) -> None:
    half = unconditional().to(torch.float16)
    half.save_pretrained(tmp_path / "half", variant="fp16")
    stored, full = load_folder(tmp_path / "half"), load_folder(saved)
    for name, tensor in stored.state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, full.state[name] if name == "scale" else full.state[name].half().float())
    half.save_pretrained(folder, variant="fp16")
    half.unet.save_pretrained(folder / "unet", variant="non_ema")
    both = load_folder(folder)
    assert equal(both.state, full.state)
    assert both.odd == (
        "vqvae: the weights in full precision are taken; beside it lie fp16, which are not taken",
        "unet: the weights in full precision are taken; beside it lie fp16, non_ema, which are not taken",
    )
    (folder / "unet" / f"{WEIGHTS}.safetensors").unlink()
    assert load_folder(folder).odd[1] == (
        "unet: only variants of the weights are there, fp16 is taken; beside it lie non_ema, which are not taken"
    )


def test_older_names_are_read(folder: Path, saved: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for part in ("unet", "vqvae"):
        path = folder / part / f"{WEIGHTS}.safetensors"
        state = load_file(path)
        for now, before in old.items():
            state = {name.replace(f".{now}.", f".{before}."): tensor for name, tensor in state.items()}
        assert any(".query." in name for name in state)
        save_file(state, path)
    change(folder / "unet" / "config.json", down_block_types=["UNetResDownBlock2D", "UNetResAttnDownBlock2D"])
    assert equal(load_folder(folder).state, load_folder(saved).state)


def test_memory_stays_near_the_files(tmp_path: Path) -> None:
    from pipelines import ATTEND, network

    pipeline = unconditional()
    pipeline.unet = network(**ATTEND, attention_head_dim=32, block_out_channels=(128, 256))
    pipeline.save_pretrained(tmp_path / "full", safe_serialization=False)
    size = sum(path.stat().st_size for path in (tmp_path / "full").rglob("*.bin"))
    tracemalloc.start()
    stored = load_folder(tmp_path / "full")  # reading .bin asks Python for memory, so it is seen
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stored.kind == "model"
    assert peak < 1.3 * size


def refused(folder: Path, message: str) -> None:
    """One sentence, and no long one."""
    assert len(crafted.refused(folder, message, read=load_folder)) < 1000


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The folder with its U-Net in two shards."""
    path = folder / "unet" / f"{WEIGHTS}.safetensors"
    state = load_file(path)
    path.unlink()
    names = sorted(state)
    half = len(names) // 2
    for shard, part in (("a", names[:half]), ("b", names[half:])):
        save_file({name: state[name] for name in part}, folder / "unet" / f"{shard}.safetensors")
    places = {name: "a.safetensors" if place < half else "b.safetensors" for place, name in enumerate(names)}
    write(folder / "unet" / f"{WEIGHTS}.safetensors.index.json", {"metadata": {}, "weight_map": places})
    return folder


def points(sharded: Path, change_map: Callable[[dict[str, Any]], Any]) -> None:
    import json

    path = sharded / "unet" / f"{WEIGHTS}.safetensors.index.json"
    places = json.loads(path.read_text())["weight_map"]
    write(path, {"weight_map": change_map(places)})


@pytest.mark.parametrize(
    "name",
    [
        "../vqvae/diffusion_pytorch_model.safetensors",
        "/etc/passwd.safetensors",
        "..",
        "sub/a.safetensors",
        "sub\\a.safetensors",
        "a.bin",
        "",
        ".a.safetensors",
        "a.safetensors\n",
        "~/a.safetensors",
    ],
)
def test_shards_lie_in_the_folder(sharded: Path, name: str) -> None:
    points(sharded, lambda places: places | {"conv_in.weight": name})
    refused(sharded, "refused, the shard .* is no plain name of a .safetensors file")


def test_indices_that_lie(sharded: Path) -> None:
    points(sharded, lambda places: places | {"conv_in.weight": "c.safetensors"})
    refused(sharded, "the shard 'c.safetensors' is missing")
    points(sharded, lambda places: dict.fromkeys(places, "a.safetensors") | {"conv_in.weight": "a.safetensors"})
    refused(sharded, "a.safetensors: .* missing, which .*index.json says lies there")
    for wrong in ([], {}, {"conv_in.weight": 3}, None, "a.safetensors"):
        points(sharded, lambda _, wrong=wrong: wrong)
        refused(sharded, "damaged, its weight_map does not say")
    points(sharded, lambda _: {str(place): f"{place}.safetensors" for place in range(MOST_SHARDS + 1)})
    refused(sharded, "refused, it names 1001 shards")


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    path = sharded / "unet" / "b.safetensors"
    first = load_file(sharded / "unet" / "a.safetensors")
    name = next(iter(first))
    save_file({**load_file(path), name: first[name]}, path)
    refused(sharded, f"tensor '{name}' lies in two of its shards")


class Calls:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("part", ["unet", "vqvae"])
def test_a_pickle_that_calls(folder: Path, part: str) -> None:
    state = load_file(folder / part / f"{WEIGHTS}.safetensors")
    (folder / part / f"{WEIGHTS}.safetensors").unlink()
    torch.save({**state, "evil": Calls(f"touch {folder / 'executed'}")}, folder / part / f"{WEIGHTS}.bin")
    refused(folder, "system")


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_truncated_weights(folder: Path, safe: bool, kept: float) -> None:
    path = folder / "unet" / f"{WEIGHTS}.safetensors"
    if not safe:
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()
        path = path.with_suffix(".bin")
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    refused(folder, "empty|truncated|damaged|not a")


SIZES = {
    "wide": ({"block_out_channels": [2**20, 2**20]}, "has shape .*, its config.json needs"),
    "wider": ({"block_out_channels": [2**40, 2**40]}, "block_out_channels"),
    "many": ({"layers_per_block": 2**20}, "more layers than its weights have tensors"),
    "levels": (
        {
            "block_out_channels": [32] * 40000,
            "down_block_types": ["DownBlock2D"] * 40000,
            "up_block_types": ["UpBlock2D"] * 40000,
        },
        "block_out_channels|down_block_types|too large",
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_huge_sizes_are_not_built(folder: Path, name: str) -> None:
    values, message = SIZES[name]
    change(folder / "unet" / "config.json", **values)
    refused(folder, message)


def test_a_header_that_declares_what_is_not_there(folder: Path) -> None:
    header = b'{"conv_in.weight":{"dtype":"F32","shape":[4294967296,1048576],"data_offsets":[0,8]}}'
    path = folder / "unet" / f"{WEIGHTS}.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    refused(folder, "does not fill its 8 bytes")


def test_missing_wrong_and_stray_tensors(folder: Path) -> None:
    path = folder / "vqvae" / f"{WEIGHTS}.safetensors"
    state = load_file(path)
    save_file({**state, "loss.weight": torch.zeros(1), "x" * 5000: torch.zeros(1)}, path)
    (sentence,) = load_folder(folder).odd
    assert sentence.startswith("vqvae: 'loss.weight', 'xxx")
    assert sentence.endswith("' are in the file and not used")
    assert len(sentence) < 300
    save_file({name: tensor for name, tensor in state.items() if name != "quant_conv.bias"}, path)
    refused(folder, "vqvae: 'quant_conv.bias' is missing, which its config.json needs")
    save_file({**state, "quant_conv.bias": torch.zeros(7)}, path)
    refused(folder, r"tensor 'quant_conv.bias' has shape \(7,\), its config.json needs \(6,\)")
    save_file({**state, "quant_conv.bias": torch.zeros(6, dtype=torch.int64)}, path)
    refused(folder, "is of type torch.int64, weights are floating point")
    path.unlink()
    refused(folder, "vqvae: holds no weights")


def test_shards_without_their_index(sharded: Path) -> None:
    (sharded / "unet" / f"{WEIGHTS}.safetensors.index.json").unlink()
    for place, name in enumerate("ab", start=1):
        shard = sharded / "unet" / f"{name}.safetensors"
        shard.rename(shard.with_name(f"{WEIGHTS}-0000{place}-of-00002.safetensors"))
    refused(sharded, f"unet: holds no weights .{WEIGHTS}.safetensors.index.json is missing")


def test_notes_that_change_nothing(folder: Path, saved: Path) -> None:
    """What diffusers' EMAModel and its loader write, an offset of nothing, and a mark that some editors put first."""
    averaging = {"decay": 0.9999, "min_decay": 0.0, "optimization_step": 900, "update_after_step": 0, "power": 0.7}
    change(folder / "unet" / "config.json", **averaging, inv_gamma=1.0, use_ema_warmup=False, _commit_hash="ab")
    change(folder / "vqvae" / "config.json", shift_factor=0.0)
    index = folder / "model_index.json"
    index.write_text(index.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load_folder(folder).spec == load_folder(saved).spec


@pytest.mark.parametrize("count", ["7", 7.0])
def test_a_number_of_classes_of_another_kind(folder: Path, count: object) -> None:
    change(folder / "unet" / "config.json", num_class_embeds=count)
    refused(folder, "'class_embedding.weight' is missing")


TEXTS = {
    "nested": ("[" * 100_000, "not valid JSON"),
    "deep": ('{"a":' * 100_000 + "1" + "}" * 100_000, "not valid JSON"),
    "huge": ('{"a": "' + "x" * MOST_JSON + '"}', "too large"),
    "twice": ('{"_class_name": "LDMPipeline", "_class_name": "LDMPipeline"}', "names '_class_name' twice"),
    "list": ("[]", "no JSON object"),
    "empty": ("", "not valid JSON"),
    "bytes": ("\ud800", "not valid JSON"),
    "digits": ('{"in_channels": ' + "9" * 10_000 + "}", "not valid JSON"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("place", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_configurations_that_are_none(folder: Path, name: str, place: str) -> None:
    text, message = TEXTS[name]
    (folder / place).write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(folder, message)


CLASSES = {
    "pipeline": ("model_index.json", {"_class_name": "os.system"}, "pipelines of class 'os.system' are not read"),
    "near": ("model_index.json", {"_class_name": "LDMPipelin"}, r"did you mean 'LDMPipeline'\?"),
    "none": ("model_index.json", {"_class_name": None}, "pipelines of class 'None' are not read"),
    "list": ("model_index.json", {"_class_name": ["LDMPipeline"]}, "are not read"),
    "part": ("model_index.json", {"unet": ["os", "system"]}, "model_index.json, unet: class 'system' does not fit"),
    "other part": ("model_index.json", {"unet": ["diffusers", "UNet2DConditionModel"]}, "does not fit"),
    "no part": ("model_index.json", {"unet": None}, "does not say the class of 'unet'"),
    "null": ("model_index.json", {"vqvae": [None, None]}, "does not say the class of 'vqvae'"),
    "text": ("model_index.json", {"vqvae": "VQModel"}, "does not say the class of 'vqvae'"),
    "disagree": ("model_index.json", {"vqvae": ["diffusers", "VQModel"]}, "of class AutoencoderKL, model_index"),
    "unet": ("unet/config.json", {"_class_name": "PosixPath"}, "config.json: of class 'PosixPath'"),
    "stage": ("vqvae/config.json", {"_class_name": "AutoencoderTiny"}, "of class 'AutoencoderTiny'"),
    "scheduler": ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "is not read"),
    "latents": ("unet/config.json", {"in_channels": 4}, "conv_in.weight"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_words_of_a_list(folder: Path, name: str) -> None:
    place, values, message = CLASSES[name]
    change(folder / place, **values)
    refused(folder, message)


def test_what_is_missing_is_named(folder: Path) -> None:
    for place in ("scheduler/scheduler_config.json", "unet/config.json"):
        kept = (folder / place).read_bytes()
        (folder / place).unlink()
        refused(folder, f"{place}: no such file")
        (folder / place).write_bytes(kept)
    shutil.rmtree(folder / "vqvae")
    refused(folder, "vqvae/config.json: no such file")
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        load_folder(folder / "nowhere")

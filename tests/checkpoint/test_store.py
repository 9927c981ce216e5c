"""Our own model file: round trips, headers without weights, and files that are not what they say."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from darkroom.autoencoder.bottleneck import KLSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, PixelsSpec
from darkroom.autoencoder.statistics import LatentStatistics
from darkroom.checkpoint.rows import from_rows, in_rows
from darkroom.checkpoint.store import (
    StoredModel,
    build,
    first_stage_of,
    is_ours,
    load_model,
    read_header,
    save_model,
    spec_hash,
)
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec
from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.names import Names
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.network.unet import UNetSpec

SPEC = ModelSpec(
    image_size=16,
    first_stage=AutoencoderSpec(channels=32, multipliers=(1, 1), blocks=1, latent_channels=3),
    network=UNetSpec(
        in_channels=3,
        out_channels=3,
        channels=32,
        multipliers=(1, 2),
        blocks=1,
        heads=2,
        transformer_depth=1,
        context_width=16,
    ),
    conditioners=(TextSpec(encoder=SequenceEncoderSpec(vocabulary=20, length=6, width=16, depth=1)),),
)


@pytest.fixture(scope="module")
def stored() -> StoredModel:
    torch.manual_seed(0)
    model = LatentDiffusion(SPEC)
    model.scale.fill_(0.7316)
    model.conditioning["caption"].set_empty([2, 3, 0, 0, 0, 0])
    card = {"task": "text-to-image", "licence": "CC0", "psnr": 31.5}
    return StoredModel(
        "model", SPEC, model.state_dict(), card, Names(("a", "ü"), ("box",), ("ground", "box")), '{"version": "1.0"}'
    )


@pytest.fixture
def file(stored: StoredModel, tmp_path: Path) -> Path:
    return save_model(tmp_path / "model.safetensors", stored)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_round_trip(stored: StoredModel, tmp_path: Path, dtype: Any) -> None:
    path = save_model(tmp_path / "new" / "model.safetensors", stored, dtype=dtype)
    found = load_model(path)
    assert (found.kind, found.spec, found.card) == ("model", SPEC, stored.card)
    assert (found.names, found.tokenizer) == (stored.names, stored.tokenizer)
    kind = getattr(torch, dtype)
    for name, tensor in stored.state.items():
        exact = name in ("scale", "conditioning.by_field.caption.empty_ids")
        expected = tensor if exact or not tensor.is_floating_point() else tensor.to(kind).to(torch.float32)
        assert torch.equal(found.state[name], expected), name
    assert spec_hash(found) == spec_hash(stored) == spec_hash(SPEC) == spec_hash(read_header(path))
    assert len(spec_hash(SPEC)) == 12
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_denoiser_in_eight_bits(stored: StoredModel, tmp_path: Path) -> None:
    """Off by half a step of its row at most; the first stage, norms and buffers are what bfloat16 makes of them."""
    path = save_model(tmp_path / "model.safetensors", stored, dtype="int8")
    wide = save_model(tmp_path / "wide.safetensors", stored)
    found = load_model(path)
    assert path.stat().st_size < 0.5 * wide.stat().st_size
    rough = 0
    for name, tensor in stored.state.items():
        if tensor.ndim > 1 and name.startswith(("network.", "conditioning.")) and tensor.is_floating_point():
            step = tensor.flatten(1).abs().amax(1).reshape(-1, *[1] * (tensor.ndim - 1)) / 127
            assert ((found.state[name] - tensor).abs() <= 0.5001 * step).all(), name
            rough += 1
        elif name != "scale" and tensor.is_floating_point():
            assert torch.equal(found.state[name], tensor.bfloat16().float()), name
        else:
            assert torch.equal(found.state[name], tensor), name
    assert rough > 10
    again = load_model(save_model(tmp_path / "again.safetensors", found, dtype="int8"))
    assert all(torch.allclose(again.state[name], found.state[name], atol=1e-7) for name in found.state)
    assert spec_hash(read_header(path)) == spec_hash(SPEC)
    assert isinstance(build(found), LatentDiffusion)


def test_a_first_stage_is_never_in_eight_bits(tmp_path: Path) -> None:
    spec = AutoencoderSpec(
        channels=16, multipliers=(1, 2), blocks=1, latent_channels=3, bottleneck=KLSpec(), norm_groups=8
    )
    state = Autoencoder(spec).state_dict()
    found = load_model(save_model(tmp_path / "f2.safetensors", StoredModel("first-stage", spec, state), dtype="int8"))
    for name, tensor in state.items():
        assert torch.equal(found.state[name], tensor.bfloat16().float() if tensor.is_floating_point() else tensor), name


def test_rows_of_nothing_are_nothing() -> None:
    numbers, step = in_rows(torch.zeros(3, 4))
    assert not numbers.any()
    assert not from_rows(numbers, step).any()


@pytest.mark.parametrize("harm", ["lost", "short", "orphan"])
def test_damaged_rows_are_one_sentence(stored: StoredModel, tmp_path: Path, harm: str) -> None:
    path = save_model(tmp_path / "model.safetensors", stored, dtype="int8")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dictionary)
        metadata = file.metadata()
    name = "network.stem.weight"
    if harm == "lost":
        del tensors[name + ".steps"]
    elif harm == "short":
        tensors[name + ".steps"] = tensors[name + ".steps"][:-1].clone()
    else:
        tensors["network.head.bias.steps"] = torch.ones(3)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ModelFileError, match="network") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_built_model_computes_the_same(stored: StoredModel, file: Path) -> None:
    first, second = build(stored), build(load_model(file))
    assert isinstance(first, LatentDiffusion)
    assert isinstance(second, LatentDiffusion)
    assert not second.training
    assert all(parameter.requires_grad for parameter in second.parameters())
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 900])
    conditions = first.condition({"caption": torch.tensor([[2, 5, 3, 0, 0, 0], [2, 6, 3, 0, 0, 0]])})
    assert torch.equal(first.network(x, t, conditions), second.network(x, t, conditions))
    assert torch.equal(first.decode(x), second.decode(x))
    assert second.schedule.alpha(t).device.type == "cpu"
    assert torch.equal(first.null(conditions).tokens, second.null(conditions).tokens)


def test_building_copies_nothing(stored: StoredModel) -> None:
    model = build(stored)
    name = "network.stem.weight"
    assert model.get_parameter(name).data_ptr() == stored.state[name].data_ptr()


def test_a_scale_per_channel_and_one_that_is_unknown(stored: StoredModel, tmp_path: Path) -> None:
    state = {**stored.state, "scale": torch.tensor([0.5, 1.0, 2.0])}
    path = save_model(tmp_path / "m.safetensors", StoredModel("model", SPEC, state))
    model = build(load_model(path))
    assert isinstance(model, LatentDiffusion)
    assert model.scale.tolist() == [0.5, 1.0, 2.0]
    unknown = build(StoredModel("model", SPEC, {**stored.state, "scale": torch.tensor(float("nan"))}))
    with pytest.raises(ModelFileError, match="scale"):
        unknown.decode(torch.zeros(1, 3, 8, 8))


def test_a_first_stage_alone(stored: StoredModel, tmp_path: Path) -> None:
    part = first_stage_of(stored)
    path = save_model(tmp_path / "first.safetensors", part)
    found = load_model(path)
    assert found.kind == "first-stage"
    assert found.spec == SPEC.first_stage
    module = build(found)
    assert isinstance(module, Autoencoder)
    assert torch.equal(module.to_latent.weight, stored.state["first_stage.to_latent.weight"])
    assert first_stage_of(found) is found
    network = SPEC.network.model_copy(update={"context_width": None, "transformer_depth": 0})
    pixels = ModelSpec(image_size=16, first_stage=PixelsSpec(), network=network, scale=1.0)
    with pytest.raises(ModelFileError, match="pixels"):
        first_stage_of(StoredModel("model", pixels, {}))


def test_header_tells_all_without_the_weights(stored: StoredModel, file: Path) -> None:
    header = read_header(file)
    assert header.spec == SPEC
    assert header.card == stored.card
    assert {name: info.shape for name, info in header.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in stored.state.items()
    }
    assert header.tensors["conditioning.by_field.caption.empty_ids"].dtype == torch.int64
    assert is_ours(file)
    weights = sum(end - begin for begin, end in (info.span for info in header.tensors.values()))
    cut = file.with_name("cut.safetensors")  # the same header before a hole instead of weights
    start = file.stat().st_size - weights
    with cut.open("wb") as sparse:
        sparse.write(file.read_bytes()[:start])
        sparse.truncate(start + weights)
    assert read_header(cut) == header


def rewritten(file: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The same bytes behind a changed header."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path = file.with_name("changed.safetensors")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    return path


def metadata(**values: str | None) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        for key, value in values.items():
            header["__metadata__"].pop(f"darkroom.{key}", None)
            if value is not None:
                header["__metadata__"][f"darkroom.{key}"] = value

    return change


def spec_with(place: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        spec = json.loads(header["__metadata__"]["darkroom.spec"])
        *parents, last = place.split(".")
        inner = spec
        for key in parents:
            inner = inner[key]
        inner[last] = value
        header["__metadata__"]["darkroom.spec"] = json.dumps(spec)

    return change


def tensor_with(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["network.stem.bias"].update(values)


CHANGES = {
    "newer": (metadata(format="3"), "format 3"),
    "kind": (metadata(kind="zebra"), "zebra"),
    "no-spec": (metadata(spec=None), "spec is missing"),
    "broken-spec": (metadata(spec="{"), "spec is missing or cannot be read"),
    "deep-spec": (metadata(spec="[" * 100_000), "spec is missing or cannot be read"),
    "spec-key": (spec_with("network.chanels", 32), "did you mean 'channels'"),
    "wide-spec": (spec_with("network.channels", 64), r"shape \(32,\)|tensor"),
    "huge-spec": (spec_with("network.blocks", 10**9), "more layers"),
    "huge-width": (spec_with("conditioners", []), "tokens|unknown tensor"),
    "steps": (spec_with("schedule.steps", 10**12), "steps"),
    "card": (metadata(card="7"), "card"),
    "deep-card": (metadata(card='{"a":' * 200 + "1" + "}" * 200), "card is missing or cannot be read"),
    "long-card": (metadata(card=json.dumps({"a": [0] * 100_000})), "its card has 300007 characters"),
    "odd-card": (metadata(card='{"sample": [1]}'), "card: sample is no table"),
    "levels": (spec_with("network.multipliers", [1] * 10_000), "multipliers"),
    "size": (spec_with("image_size", 10**4000), "image_size"),
    "endless-width": (spec_with("network.channels", 2**62), "cannot be built"),
    "classes": (metadata(classes="[1]"), "class names"),
    "missing": (lambda header: header.pop("network.stem.bias"), "fill the file"),
    "offsets": (tensor_with(data_offsets=[0, 128]), "fill the file"),
    "shape": (tensor_with(shape=[10**12]), "does not fill"),
    "negative": (tensor_with(shape=[-32]), "cannot be read"),
    "dtype": (tensor_with(dtype="F4"), "type F4"),
    "metadata": (lambda header: header.update(__metadata__=7), "metadata"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_header_that_lies_is_refused_in_a_sentence(file: Path, name: str) -> None:
    change, message = CHANGES[name]
    path = rewritten(file, change)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


FILES = {
    "empty": (b"", "empty"),
    "short": (b"abc", "not a safetensors"),
    "zip": (b"PK\x03\x04" + bytes(100), "not a safetensors"),
    "huge-header": (struct.pack("<Q", 2**62) + b"{}", "not a safetensors"),
    "long-header": (struct.pack("<Q", 5000) + b"{}", "truncated"),
    "no-json": (struct.pack("<Q", 4) + b"abcd", "JSON"),
    "list": (struct.pack("<Q", 2) + b"[]", "JSON object"),
    "twice": (struct.pack("<Q", 15) + b'{"a":{},"a":{}}', "twice"),
    "foreign": (struct.pack("<Q", 2) + b"{}", "not one of darkroom's"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    data, message = FILES[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


def test_missing_truncated_and_folder(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such"):
        load_model(tmp_path / "absent.safetensors")
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_model(tmp_path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"truncated|damaged"):
        load_model(cut)


def test_tensors_of_another_model_are_named(stored: StoredModel, file: Path, tmp_path: Path) -> None:
    extra = {**stored.state, "surplus": torch.zeros(1)}
    with pytest.raises(ModelFileError, match="unknown tensor 'surplus'"):
        build(StoredModel("model", SPEC, extra))
    fewer = {name: tensor for name, tensor in stored.state.items() if name != "network.stem.bias"}
    with pytest.raises(ModelFileError, match=r"lacks tensor 'network.stem.bias'"):
        save_model(tmp_path / "m.safetensors", StoredModel("model", SPEC, fewer))
    assert not (tmp_path / "m.safetensors").exists()
    with safe_open(file, framework="pt") as opened:
        text = opened.metadata()
    save_file({name: tensor.contiguous() for name, tensor in fewer.items()}, tmp_path / "f.safetensors", text)
    with pytest.raises(ModelFileError, match=r"lacks tensor 'network.stem.bias'"):
        load_model(tmp_path / "f.safetensors")
    integers = {**stored.state, "network.stem.bias": torch.zeros(32, dtype=torch.int64)}
    with pytest.raises(ModelFileError, match=r"network.stem.bias.*int64"):
        build(StoredModel("model", SPEC, integers))


def test_unwritable_folder(stored: StoredModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_model(tmp_path / "file" / "model.safetensors", stored)


MEASURED = LatentStatistics(mean=(0.1, -2.0, 0.0), std=(1.5, 0.5, 0.0), whole=1.2, pictures=7)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_latent_statistics_travel_with_the_weights(stored: StoredModel, tmp_path: Path, dtype: Any) -> None:
    file = save_model(tmp_path / "model.safetensors", replace(stored, latents=MEASURED), dtype=dtype)
    assert read_header(file).latents == MEASURED
    loaded = load_model(file)
    assert loaded.latents == MEASURED
    alone = save_model(tmp_path / "first.safetensors", first_stage_of(loaded), dtype=dtype)
    assert load_model(alone).latents == MEASURED


def test_statistics_of_another_encoder_are_refused(stored: StoredModel, tmp_path: Path) -> None:
    file = save_model(tmp_path / "model.safetensors", replace(stored, latents=MEASURED))
    with safe_open(file, "pt") as opened:
        kept, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    tensors["first_stage.decoder.stem.weight"] += 1  # the decoder has no say in what latents are
    save_file(tensors, file, metadata=kept)
    assert load_model(file).latents == MEASURED
    tensors["first_stage.encoder.stem.weight"][0, 0, 0, 0] += 1e-3
    save_file(tensors, file, metadata=kept)
    with pytest.raises(ModelFileError, match="belong to another encoder"):
        load_model(file)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"statistics": MEASURED.plain() | {"mean": [0.0], "std": [1.0]}}, "1 latent channels of 3"),
        ({"statistics": MEASURED.plain() | {"whole": 0}}, "whole"),
        ({"statistics": MEASURED.plain() | {"mean": [0.0]}}, "do not belong together"),
        ({"statistics": 3}, "latents"),
        ([], "latents is missing or cannot be read"),
    ],
)
def test_statistics_that_cannot_be_are_refused(file: Path, values: Any, told: str) -> None:
    with pytest.raises(ModelFileError, match=told):
        read_header(rewritten(file, metadata(latents=json.dumps(values))))


@pytest.mark.parametrize(
    ("name", "digits"), [("emoji", "4d33f4278644"), ("shapes-f8", "157225b93d61"), ("shapes-vq-f4", "1895d4b108c9")]
)
def test_models_keep_the_name_that_pictures_call_them(name: str, digits: str) -> None:
    """Fields that specs got since these files were written do not rename them."""
    assert spec_hash(read_header(Path(str(files("darkroom"))) / "models" / f"{name}.safetensors")) == digits

"""What else an attacker may do to an original checkpoint or its YAML: a sentence each, no code, little memory."""

import json
import os
import pickle
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from crafted import Calls, Storage, described, good, raw, refused, saved, touch, zipped
from darkroom.checkpoint.compvis import convert_original
from darkroom.checkpoint.config import read_config
from darkroom.checkpoint.unpickle import read_checkpoint
from darkroom.cli.main import main
from originals import CLASSES, KL, SPATIAL, both, config, state_of, written
from originals import described as spec_of

HUGE = 2**100_000  # more digits than Python writes
NUMBERS: dict[str, Any] = {
    "storage": (Storage("0", HUGE), 0, (6,), (1,)),
    "offset": (Storage("0", 6), HUGE, (6,), (1,)),
    "shape": (Storage("0", 6), 0, (HUGE,), (1,)),
    "stride": (Storage("0", 6), 0, (6,), (HUGE,)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_cannot_be_written_down(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "m.ckpt", described(*NUMBERS[name]), entries={"archive/data/0": bytes(24)})
    refused(path, "a number of 100001 bits")


@pytest.mark.parametrize("value", [{HUGE: 1}, {"state_dict": {HUGE: 1}}, {"global_step": HUGE, "state_dict": {}}])
def test_such_numbers_anywhere(tmp_path: Path, value: Any) -> None:
    refused(zipped(tmp_path / "m.ckpt", pickle.dumps(value, 2)), "a number of 100001 bits")


def test_a_step_that_cannot_be_is_not_told(tmp_path: Path) -> None:
    for step in (2**63, -1, True, "7"):
        path = saved(tmp_path / "m.ckpt", {"state_dict": good(), "global_step": step})
        assert read_checkpoint(path).global_step is None


STEERING = {"escape": b"ca\x1b[2Jb\nc\n.", "surrogate": b"\x8c\x03\xed\xa0\x80\x8c\x01c\x93."}


@pytest.mark.parametrize("name", STEERING)
def test_names_that_would_steer_a_terminal(tmp_path: Path, name: str) -> None:
    refused(zipped(tmp_path / "m.ckpt", raw(STEERING[name])), "its pickle is broken")


TWICE = {
    "setitem": b"}X\x0a\x00\x00\x00state_dict}X\x01\x00\x00\x00wK\x01sX\x01\x00\x00\x00wK\x02ss.",
    "setitems": b"}(X\x0a\x00\x00\x00state_dict}X\x0a\x00\x00\x00state_dict}u.",
    "ordered": b"ccollections\nOrderedDict\n]((X\x01\x00\x00\x00wK\x01t(X\x01\x00\x00\x00wK\x02te\x85R.",
}


@pytest.mark.parametrize("name", TWICE)
def test_one_name_for_two_things(tmp_path: Path, name: str) -> None:
    refused(zipped(tmp_path / "m.ckpt", raw(TWICE[name])), "two entries|broken")


@pytest.mark.parametrize("instruction", [b"]", b"}", b"K\x01", b"ca\nb\n"])
def test_more_instructions_than_any_checkpoint_has(
    tmp_path: Path, instruction: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.checkpoint.pickled.MOST_STEPS", 2000)
    refused(zipped(tmp_path / "m.ckpt", raw(b"(" + instruction * 4000 + b"t.")), "more than 2000 instructions")


def test_a_directory_larger_than_any_archive_needs(tmp_path: Path) -> None:
    entry = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0)
    directory = b"".join(entry + b"%07d" % number for number in range(170_000))
    count, size, begin = 170_000, len(directory), 30
    large = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, begin)
    where = b"PK\x06\x07" + struct.pack("<IQI", 0, begin + size, 1)
    hidden = int.from_bytes(b"PK\x05\x06", "little")  # a second mark inside the first
    for end in (
        b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, size, begin, 0),
        b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, size, hidden, 0),
        b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, size, begin, 7) + b"comment",
        large + where + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0),
        large + where + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 22, 22, 0),
    ):
        path = tmp_path / "m.ckpt"
        path.write_bytes(b"PK\x03\x04" + bytes(26) + directory + end)
        refused(path, f"the directory of its archive has {size} bytes")


def test_few_numbers_spread_over_much(tmp_path: Path) -> None:
    """Two values each, the first and the last of the storage: reading all would read it nine times."""
    base = torch.randn(1000)
    views = {str(number): base[::999] for number in range(9)}
    refused(saved(tmp_path / "m.ckpt", {"state_dict": views}), "shows? 4000 bytes as 36000")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(2).to_sparse(),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.empty(2, device="meta"),
    ],
    ids=["sparse", "complex", "float8", "meta"],
)
def test_tensors_that_no_original_holds(tmp_path: Path, tensor: torch.Tensor) -> None:
    refused(saved(tmp_path / "m.ckpt", {"state_dict": {**good(), "odd": tensor}}), "unknown type|calls torch")


def header(text: bytes, *, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], begin: int, end: int) -> bytes:
    return json.dumps({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}).encode()


SAFE = save(good())
SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "zip": (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
    "truncated": (SAFE[:-4], "truncated"),
    "cut header": (SAFE[:20], "truncated"),
    "more": (SAFE + b"\0", "do not fill"),
    "twice": (header(b'{"a":' + entry([1], 0, 4) + b',"a":' + entry([1], 0, 4) + b"}", data=bytes(4)), "'a' twice"),
    "overlap": (header(b'{"a":' + entry([1], 0, 4) + b',"b":' + entry([1], 0, 4) + b"}", data=bytes(4)), "do not fill"),
    "gap": (header(b'{"a":' + entry([1], 0, 4) + b',"b":' + entry([1], 8, 12) + b"}", data=bytes(12)), "do not fill"),
    "huge": (header(b'{"a":' + entry([2**40, 2**40], 0, 4) + b"}", data=bytes(4)), "does not fill its 4 bytes"),
    "behind": (header(b'{"a":' + entry([1], -4, 0) + b"}"), "does not fill|damaged"),
    "declared": (struct.pack("<Q", 2**60) + b"{}", "not a safetensors file"),
    "wide": (struct.pack("<Q", 2**25) + bytes(2**25), "not a safetensors file"),
    "deep": (header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "not a safetensors file"),
    "empty side": (header(b'{"a":' + entry([2**62, 0], 0, 0) + b"}"), "does not fill"),
    "axes": (header(b'{"a":' + entry([1] * 9, 0, 4) + b"}", data=bytes(4)), "does not fill"),
    "digits": (header(b'{"a":' + entry([10**4000] * 700, 0, 4) + b"}", data=bytes(4)), "does not fill"),
    "long name": (header(b'{"' + b"a" * 2**20 + b'":' + entry([2], 0, 4) + b"}", data=bytes(4)), "does not fill"),
    "long twice": (header(b"{" + (b'"' + b"a" * 2**20 + b'":1,') * 2 + b'"b":1}'), "twice"),
    "number": (header(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}'), "safetensors"),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_original_safetensors_that_lie(tmp_path: Path, name: str) -> None:
    content, message = SAFETENSORS[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    assert len(refused(path, message)) < 1000


def yaml_refused(path: Path, message: str) -> None:
    assert len(refused(path, message, read=read_config)) < 500


def test_yaml_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    bomb = "a0: &a0 [" + "1, " * 9 + "1]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    path.write_text(bomb + f"model: {{target: {KL['target']}, params: {{embed_dim: *a9, ddconfig: *a9}}}}")
    yaml_refused(path, "more than 10000 values")
    path.write_text(f"model: &m\n  target: {KL['target']}\n  params: *m\n")
    yaml_refused(path, "more than 10000 values")
    path.write_text("model: " + "[" * 900)
    yaml_refused(path, "not valid YAML")
    path.write_text("- 1\n" * 40_000)
    yaml_refused(path, "too large")


def test_yaml_that_merges_itself(tmp_path: Path) -> None:
    """Each mapping takes in the one before ten times: 10^9 pairs of a kilobyte of text."""
    path = tmp_path / "m.yaml"
    first = f"a0: &a0 {{{', '.join(f'k{n}: 1' for n in range(10))}}}\n"
    bomb = first + "".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    path.write_text(f"{bomb}model: {{target: x, params: *a8}}\n")
    yaml_refused(path, "not valid YAML at line")
    path.write_text(f"{first}model: {{target: x, params: {{<<: *a0, k3: 2}}}}\n")
    assert read_config(path).params == {f"k{n}": 2 if n == 3 else 1 for n in range(10)}


SIZES: dict[str, tuple[dict[str, Any], str]] = {
    "blocks": (config(unet={"num_res_blocks": 10**6}), "more layers than it has tensors"),
    "width": (config(unet={"model_channels": 2**62}), "cannot be built"),
    "levels": (config(unet={"channel_mult": [1] * 500}), "channel_mult|multipliers"),
    "depth": (config(CLASSES, unet={**SPATIAL, "transformer_depth": 10**7}, concat_mode=False), "more layers than"),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_yaml_of_a_model_that_could_not_be(tmp_path: Path, name: str) -> None:
    model, message = SIZES[name]
    path = saved(tmp_path / "m.ckpt", {"state_dict": state_of(spec_of(tmp_path, config()))})
    file = written(tmp_path, model)
    read = refused(path if name != "levels" else file, message, read=lambda _: convert_original(path, file))
    assert len(read) < 500


@pytest.mark.parametrize("name", ["m.ckpt", "m.safetensors", "m.yaml"])
def test_pipes_are_not_waited_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    refused(path, "cannot be read", read=read_config if path.suffix == ".yaml" else read_checkpoint)


def test_paths_in_a_yaml_are_not_followed(tmp_path: Path) -> None:
    """`ckpt_path` may name anything; a pipe that nobody writes would keep a reader waiting for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first = {**KL, "params": {**KL["params"], "ckpt_path": str(pipe)}}
    files = both(tmp_path, config(first=first, ckpt_path="../../../etc/passwd"))
    assert convert_original(*files).strays == ()


MAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "calls": (lambda folder: Calls(os.system, touch(folder)), "system"),
    "unheard": (lambda folder: OrderedDict(a=Calls(OrderedDict, "a")), "broken"),
}


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("words", [("inspect",), ("convert", "out.safetensors"), ("convert", "out.ckpt", "--keep-all")])
def test_no_verb_is_caught(
    tmp_path: Path, name: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, config())
    make, message = MAKES[name]
    path = saved(tmp_path / "m.ckpt", {"state_dict": {**good(), "evil": make(tmp_path)}})
    before = sorted(tmp_path.iterdir())
    assert main([words[0], str(path), *words[1:]]) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert message in complaint
    assert sorted(tmp_path.iterdir()) == before


def test_a_doubled_name_among_very_many_is_found_at_once(tmp_path: Path) -> None:
    names = [f'"{number}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for number in range(8_000)]
    text = ("{" + ",".join([*names, names[-1]]) + "}").encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    began = time.process_time()
    refused(path, "names '7999' twice")
    assert time.process_time() - began < 2

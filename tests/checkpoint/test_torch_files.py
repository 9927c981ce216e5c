"""Foreign checkpoints that torch wrote: read exactly, tensor by tensor, with what is unknown left inert."""

import pickle
import tracemalloc
from collections import OrderedDict
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from crafted import Calls, good, saved
from darkroom.checkpoint.archive import open_archive
from darkroom.checkpoint.pickled import Foreign, read_pickle
from darkroom.checkpoint.unpickle import read_checkpoint
from darkroom.core.errors import ModelFileError


class Hyper(dict):
    """A class that a reader cannot know, with state and items."""


class Mode(Enum):
    FAST = 1


def unknown(*values: Any) -> None:
    raise AssertionError("called")


@pytest.mark.parametrize("name", ["m.ckpt", "m.safetensors", "M.SAFETENSORS", "m.bin", "m"])
def test_what_a_file_is_its_bytes_say(tmp_path: Path, name: str) -> None:
    path, state = tmp_path / name, good()
    for write in (lambda: saved(path, {"state_dict": state}), lambda: save_file(state, path)):
        write()
        found = read_checkpoint(path).state_dict
        assert all(torch.equal(found[each], tensor) for each, tensor in state.items())


INSTEAD: dict[str, tuple[Any, str]] = {
    "wrapped": ({"model": good(), "epoch": 3}, "a table of 'model', 'epoch' came"),
    "empty": ({}, "an empty table came"),
    "list": ([1], "a value of type list came"),
    "module": (torch.nn.Linear(1, 1), "a torch.nn.modules.linear.Linear came"),
    "tensor": (torch.zeros(2), "a tensor alone came"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", INSTEAD)
def test_what_came_instead_of_tensors(tmp_path: Path, name: str) -> None:
    value, message = INSTEAD[name]
    with pytest.raises(ModelFileError, match=f"holds no 'state_dict' with tensors; {message}"):
        read_checkpoint(saved(tmp_path / "m.ckpt", value))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_wrote_is_read_exactly(tmp_path: Path, protocol: int) -> None:
    base = torch.randn(4, 6)
    state = OrderedDict(
        float=base,
        view=base[1:3, ::2],
        transposed=base.T,
        parameter=torch.nn.Parameter(torch.randn(3)),
        half=torch.randn(5).half(),
        brain=torch.randn(5).bfloat16(),
        double=torch.randn(2, dtype=torch.float64),
        long=torch.tensor(-3),
        flags=torch.tensor([True, False]),
        empty=torch.zeros(0, 4),
    )
    state._metadata = OrderedDict(a={"version": 1})  # pyright: ignore[reportAttributeAccessIssue]
    path = saved(tmp_path / "m.ckpt", {"state_dict": state, "global_step": 12}, protocol=protocol)
    found = read_checkpoint(path)
    assert (found.global_step, found.odd, list(found.state_dict)) == (12, (), list(state))
    assert len(found.state_dict) == len(state)
    for name, tensor in state.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert torch.equal(found.state_dict[name], expected.detach()), name
        assert found.state_dict.shape(name) == tuple(tensor.shape)
        assert found.state_dict.dtype(name) == tensor.dtype


@pytest.mark.parametrize("protocol", [2, 4])
def test_unknown_things_outside_the_state_are_inert(tmp_path: Path, protocol: int) -> None:
    hyper = Hyper(rate=0.1)
    hyper.extra = Calls(unknown, 1, 2)  # pyright: ignore[reportAttributeAccessIssue]
    value = {
        "callbacks": {Hyper: {"best": torch.tensor(1.0)}},
        "hyper_parameters": hyper,
        "mode": {1, 2},
        "folder": Path("somewhere"),
        "loss": np.float64(0.5),
        "array": np.zeros(3),
        "raw": b"\xff\x00",
        (1, 2): "a key that is a tuple",
        "state_dict": good(),
        "epoch": 3,
    }
    found = read_checkpoint(saved(tmp_path / "m.ckpt", value, protocol=protocol))
    assert list(found.state_dict) == ["weight", "count"]
    assert any("Hyper" in sentence for sentence in found.odd)


def test_numpy_numbers_are_numbers() -> None:
    for protocol in (2, 4):
        data = pickle.dumps({"loss": np.float64(0.5), "step": np.int64(9), "flag": np.bool_(True)}, protocol)
        value, names = read_pickle(data, where="here")
        assert value == {"loss": 0.5, "step": 9, "flag": True}
        assert names == []
    value, names = read_pickle(pickle.dumps([Mode.FAST, np.dtype([("a", "f4")])], 4), where="here")
    assert isinstance(value[0], Foreign)
    assert any("Mode" in name for name in names)


def test_a_bare_table_and_safetensors(tmp_path: Path) -> None:
    assert read_checkpoint(saved(tmp_path / "m.pt", good())).state_dict["weight"][1, 2] == 5
    save_file({"a": torch.ones(2).half()}, tmp_path / "m.safetensors")
    found = read_checkpoint(tmp_path / "m.safetensors").state_dict
    assert found["a"].dtype == torch.float32
    assert (found.shape("a"), found.dtype("a"), len(found)) == ((2,), torch.float16, 1)
    with pytest.raises(KeyError):
        found["b"]


def test_values_that_are_no_tensors_are_reported(tmp_path: Path) -> None:
    found = read_checkpoint(saved(tmp_path / "m.ckpt", {"state_dict": {**good(), "note": "hello"}}))
    assert "note" not in found.state_dict
    assert any("'note'" in sentence for sentence in found.odd)


def test_storages_are_read_only_when_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.ckpt", {"state_dict": {str(n): torch.randn(2**18) for n in range(8)}})
    tracemalloc.start()
    found = read_checkpoint(path)
    found.state_dict["3"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2**20 + 2**19
    archive = open_archive(path)
    path.write_bytes(path.read_bytes()[: -(2**20)])
    last, (_, size) = max(archive.storages.items(), key=lambda item: item[1][0])
    with pytest.raises(ModelFileError, match="ends early"):
        archive.read(last, begin=0, count=size)

"""Small pickles that would make much of what they say once: answered in a sentence, in little memory and time."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from crafted import raw, refused, saved, zipped
from darkroom.checkpoint.pickled import Foreign, read_pickle
from darkroom.checkpoint.unpickle import read_checkpoint

STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuM\x10\x27tQ"  # 10,000 values
)
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\nq\x01"
AGAIN = b"h\x01h\x02R"  # the function and the arguments in the memo, called
ALIKE = 2**61 - 1  # multiples of it hash to 0


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def whole(number: int) -> bytes:
    digits = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(digits)]) + digits


def entries(names: Iterator[str], value: bytes) -> bytes:
    return b"(" + b"".join(text(name) + value for name in names) + b"u"


VIEW = REBUILD + b"(" + STORAGE + b"K\x00M\x10\x27\x85K\x01\x85\x89}tq\x0200"
STATE = b"}" + text("state_dict") + b"}"
GROW: dict[str, tuple[bytes, str]] = {
    "views": (VIEW + STATE + entries(map(str, range(1000)), AGAIN) + b"s.", "show 40000 bytes as 40000000"),
    "parameters": (
        b"ctorch._utils\n_rebuild_parameter\nq\x01(" + b"N" * 2000 + b"tq\x02" + (AGAIN + b"0") * 1000 + b".",
        "gives more to its calls than it holds",
    ),
    "shapes": (
        REBUILD + b"(" + STORAGE + b"K\x00(" + b"K\x01" * 2000 + b"tq\x03h\x03tq\x02" + (AGAIN + b"0") * 1000 + b".",
        "gives more to its calls than it holds",
    ),
    "sizes": (
        b"ctorch\nSize\nq\x01](" + b"K\x01" * 2000 + b"e\x85q\x02" + AGAIN * 1000 + b".",
        "gives more to its calls than it holds",
    ),
    "pairs": (
        b"ccollections\nOrderedDict\nq\x01]("
        + b"".join(text(str(number)) + b"N\x86" for number in range(1000))
        + b"e\x85q\x02"
        + AGAIN * 1000
        + b".",
        "gives more to its calls than it holds",
    ),
    "bytes": (
        b"c_codecs\nencode\nq\x01" + text("a" * 2**20) + text("latin1") + b"\x86q\x02" + AGAIN * 1000 + b".",
        "gives more to its calls than it holds",
    ),
    "lists": (b"ca\nb\nq\x01](" + b"N" * 2000 + b"eq\x02" + (AGAIN + b"0") * 1000 + b".", "broken"),
    "names": (text("a" * 2**20) + b"q\x01" + b"h\x01h\x01\x93" * 1000 + b".", "a name of more than 500 characters"),
    "places": (b"N" + b"".join(b"p%d\n" % (ALIKE * number) for number in range(1, 2000)) + b".", "broken"),
}


@pytest.mark.parametrize("name", GROW)
def test_what_is_said_once_is_not_made_many_times(tmp_path: Path, name: str) -> None:
    code, message = GROW[name]
    refused(zipped(tmp_path / "m.ckpt", raw(code), entries={"archive/data/0": bytes(40_000)}), message)


def test_calls_are_refused_at_any_depth_of_the_state_and_beside_it_are_not(tmp_path: Path) -> None:
    call, deep = b"ca\nb\n)R", 100
    inside = b"}(" + text("state_dict") + b"}(" + text("w") + b"(" * deep + call + b"t" * deep + b"uu."
    refused(zipped(tmp_path / "m.ckpt", raw(inside)), "calls a.b inside 'state_dict'")
    beside = b"}(" + text("state_dict") + b"}" + text("w") + b"Ns" + text("other") + b"(" * deep + call + b"t" * deep
    value, names = read_pickle(raw(beside + text("more") + call + b"u."), where="here")
    assert (value["state_dict"], value["more"], names) == ({"w": None}, Foreign("a.b", called=True), ["a.b"])


def test_keys_that_all_hash_alike(tmp_path: Path) -> None:
    """A dictionary of very many such would compare each with all others: it has none of them."""
    keys = b"".join(whole(ALIKE * number) + b"N" for number in range(1, 300))
    value, _ = read_pickle(raw(b"}(" + keys + whole(7) + b"Nu."), where="here")
    assert set(map(type, value)) == {int, Foreign}
    assert len(value) == 2


def test_sharing_that_real_files_have_is_read(tmp_path: Path) -> None:
    """A first stage twice, tied weights, a table cut out of a large one, many tensors of one storage."""
    base, first = torch.randn(400, 10), torch.randn(64, 64)
    state = {str(number): row for number, row in enumerate(base)}
    state |= {"first": first, "second": first, "tied": base, "transposed": first.T, "part": first[:3]}
    found = read_checkpoint(saved(tmp_path / "m.ckpt", {"state_dict": state})).state_dict
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert found.place("first") == found.place("second") != found.place("transposed")


def test_strides_that_do_not_matter_may_be_anything(tmp_path: Path) -> None:
    parts = b"K\x00K\x01K\x06\x86" + whole(2**900) + b"K\x01\x86"
    code = STATE + text("w") + REBUILD + b"(" + STORAGE.replace(b"M\x10\x27", b"K\x06") + parts + b"\x89}tRss."
    path = zipped(tmp_path / "m.ckpt", raw(code), entries={"archive/data/0": bytes(24)})
    assert read_checkpoint(path).state_dict["w"].shape == (1, 6)


def test_an_empty_tensor_of_endless_sides(tmp_path: Path) -> None:
    parts = b"K\x00" + whole(2**62) + b"K\x00\x86K\x01K\x01\x86"
    code = STATE + text("w") + REBUILD + b"(" + STORAGE + parts + b"\x89}tRss."
    path = zipped(tmp_path / "m.ckpt", raw(code), entries={"archive/data/0": bytes(40_000)})
    refused(path, "a shape that no tensor has")


def test_what_lies_among_the_tensors_is_told_in_one_sentence(tmp_path: Path) -> None:
    state = {"weight": torch.zeros(2), **dict.fromkeys(map(str, range(5000)), 1)}
    found = read_checkpoint(saved(tmp_path / "m.ckpt", {"state_dict": state}))
    assert found.odd == ("'state_dict' holds '0' and 4999 more that are no tensors",)

"""Foreign checkpoints that an attacker wrote: refused in a sentence, and never run."""

import os
import pickle
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crafted import Calls, Storage, described, good, raw, refused, saved, touch, zipped
from darkroom.checkpoint.unpickle import read_checkpoint
from darkroom.core.errors import ModelFileError

CALLS: dict[str, tuple[Callable[[str], Any], str]] = {
    "os.system": (lambda command: Calls(os.system, command), "system"),
    "eval": (lambda command: Calls(eval, f"__import__('os').system({command!r})"), "eval"),
    "exec": (lambda command: Calls(exec, f"import os; os.system({command!r})"), "exec"),
    "Popen": (lambda command: Calls(subprocess.Popen, command.split()), r"subprocess|commands"),
    "getattr": (lambda command: Calls(getattr, Path, "touch"), "getattr"),
    "import": (lambda command: Calls(__import__, "os"), "__import__"),
    "open": (lambda command: Calls(open, command.split()[1], "w"), "open"),
    "pickle": (lambda command: Calls(pickle.loads, pickle.dumps(Calls(os.system, command))), "pickle"),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("place", ["state_dict", "callbacks", "bare"])
def test_calls_are_refused_by_name(tmp_path: Path, name: str, place: str, protocol: int) -> None:
    make, message = CALLS[name]
    evil = make(touch(tmp_path))
    value = {
        "state_dict": {"state_dict": {**good(), "evil": evil}},
        "callbacks": {"callbacks": [{"deep": (evil,)}], "state_dict": good()},
        "bare": {**good(), "evil": evil},
    }[place]
    refused(saved(tmp_path / "m.ckpt", value, protocol=protocol), message)


RAW = {
    "inst": (b"(S'touch executed'\nios\nsystem\n.", "os.system"),
    "obj": (b"(cposix\nsystem\nS'touch executed'\no.", "posix.system"),
    "global-reduce": (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
    "old-builtins": (b"c__builtin__\nexecfile\n(S'x'\ntR.", "execfile"),
    "mentioned": (b"}X\x01\x00\x00\x00acsys\nmodules\ns.", "sys.modules"),
    "through-torch": (b"ctorch\nos.system\n(S'touch executed'\ntR.", "torch.os.system"),
    "stack-global": (b"\x8c\x02nt\x8c\x06system\x93.", "nt.system"),
    "memo": (b"\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93.", "os.system"),
    "newobj": (b"csubprocess\nPopen\n)\x81.", "subprocess.Popen"),
    "newobj-ex": (b"csubprocess\nPopen\n)}\x92.", "subprocess.Popen"),
    "extension": (b"\x82\x01.", "EXT1"),
    "out-of-band": (b"\x97.", "NEXT_BUFFER"),
    "persistent": (b"Psecret\n.", "refers to something outside"),
    "persistent-path": (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x09\x00\x00\x00../../etcX\x03\x00\x00\x00cpuK\x01tQ.",
        "refers to something outside",
    ),
    "foreign-in-state": (
        b"}X\x0a\x00\x00\x00state_dict}X\x01\x00\x00\x00wcsome.module\nmake\n)Rss.",
        r"calls some.module.make inside 'state_dict'",
    ),
    "popped-in-state": (
        b"}(X\x0a\x00\x00\x00state_dict}csome.module\nmake\n)R0u.",
        r"calls some.module.make inside 'state_dict'",
    ),
    "named-in-state": (
        b"}X\x0a\x00\x00\x00state_dict}X\x01\x00\x00\x00wcsome.module\nmake\nss.",
        r"names some.module.make inside 'state_dict'",
    ),
    "truncated": (b"}X\x0a\x00\x00\x00state_dict", "truncated"),
    "no-mark": (b"t.", "broken"),
    "no-memo": (b"h\x07.", "broken"),
    "cut-text": (b"X\xff\xff\xff\x7fabc.", "broken"),
    "call-text": (b"X\x01\x00\x00\x00a)R.", "broken"),
    "build-text": (b"X\x01\x00\x00\x00a}b.", "broken"),
    "number": (b"K\x07.", "no 'state_dict'"),
    "empty-state": (b"}X\x0a\x00\x00\x00state_dict}s.", "no tensors"),
    "nested": (b"(" * 5000 + b".", "nested too deeply"),
}


@pytest.mark.parametrize("name", RAW)
def test_crafted_instructions_are_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    instructions, message = RAW[name]
    refused(zipped(tmp_path / "m.ckpt", raw(instructions)), message)


def test_endless_calls_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.checkpoint.pickled.MOST_CALLS", 50)
    refused(zipped(tmp_path / "m.ckpt", raw(b"ca.b\nc\n)R0" * 51 + b"N.")), "more than 50 times")


def test_a_key_that_would_take_forever_to_hash(tmp_path: Path) -> None:
    nest = b")" + b"2\x86" * 60  # a tuple of the same tuple twice, sixty deep
    data = raw(b"}X\x0a\x00\x00\x00state_dict}" + nest + b"K\x01s" + b"s.")
    refused(zipped(tmp_path / "m.ckpt", data), "no tensors")


STORAGE = Storage("0", 6)
TENSORS: dict[str, tuple[tuple[Any, ...], str]] = {
    "huge-shape": ((STORAGE, 0, (10**6, 10**6), (10**6, 1)), "reaches beyond"),
    "huge-view": ((STORAGE, 0, (10**12,), (0,)), "reaches beyond"),
    "offset": ((STORAGE, 1, (2, 3), (3, 1)), "reaches beyond"),
    "stride": ((STORAGE, 0, (2, 3), (4, 1)), "reaches beyond"),
    "negative-stride": ((STORAGE, 5, (6,), (-1,)), "broken"),
    "negative-offset": ((STORAGE, -1, (6,), (1,)), "broken"),
    "axes": ((STORAGE, 0, (1,) * 20, (1,) * 20), "20 axes"),
    "fewer-strides": ((STORAGE, 0, (2, 3), (1,)), "broken"),
    "text-shape": ((STORAGE, 0, "23", (3, 1)), "broken"),
    "no-storage": ((7, 0, (6,), (1,)), "broken"),
    "missing-storage": ((Storage("1", 6), 0, (6,), (1,)), "lacks"),
    "large-storage": ((Storage("0", 10**12), 0, (10**12,), (1,)), "declares a storage"),
    "kind": ((Storage("0", 6, torch.UntypedStorage), 0, (6,), (1,)), "unknown type"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_lie_are_refused(tmp_path: Path, name: str) -> None:
    parts, message = TENSORS[name]
    path = zipped(tmp_path / "m.ckpt", described(*parts), entries={"archive/data/0": bytes(24)})
    refused(path, message)


def test_one_storage_shown_many_times_is_refused(tmp_path: Path) -> None:
    shared = torch.randn(1000)
    path = saved(tmp_path / "m.ckpt", {"state_dict": {str(n): shared[:] for n in range(9)}})
    refused(path, "shows? 4000 bytes as 36000")


def test_the_described_tensor_is_otherwise_fine(tmp_path: Path) -> None:
    path = zipped(tmp_path / "m.ckpt", described(STORAGE, 0, (2, 3), (3, 1)), entries={"archive/data/0": bytes(24)})
    assert torch.equal(read_checkpoint(path).state_dict["weight"], torch.zeros(2, 3))


ARCHIVES: dict[str, tuple[dict[str, bytes], str]] = {
    "leaves": ({"archive/data/../../x": b""}, "leaves the archive"),
    "absolute": ({"/etc/x": b""}, "leaves the archive"),
    "backslash": ({"archive\\data\\0": b""}, "leaves the archive"),
    "two-pickles": ({"other/data.pkl": b""}, "2 pickles"),
    "big-endian": ({"archive/byteorder": b"big"}, "big-endian"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_crafted_archives_are_refused(tmp_path: Path, name: str) -> None:
    entries, message = ARCHIVES[name]
    refused(zipped(tmp_path / "m.ckpt", pickle.dumps({}, 2), entries=entries), message)


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    data = described(Storage("0", 2**26), 0, (2**26,), (1,))
    bomb = zipped(tmp_path / "m.ckpt", data, entries={"archive/data/0": bytes(2**28)}, how=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 2**20
    refused(bomb, "compressed")


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    """The directory of the archive changed to say that an entry holds more than the file."""
    path = zipped(tmp_path / "m.ckpt", pickle.dumps({}, 2), entries={"archive/data/0": b"\x07" * 24})
    content = path.read_bytes()
    place = content.rindex(b"PK\x01\x02")
    sizes = (2**30).to_bytes(4, "little") * 2
    path.write_bytes(content[: place + 20] + sizes + content[place + 28 :])
    refused(path, "declare")


def test_a_directory_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "m.ckpt", pickle.dumps({}, 2), entries={"archive/data/0": b"\x07" * 24})
    content = path.read_bytes()
    place = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[: place + 42] + (0).to_bytes(4, "little") + content[place + 46 :])
    refused(path, "not where its directory says")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    with zipfile.ZipFile(path, "w") as file:
        for content in (pickle.dumps({}, 2), pickle.dumps(Calls(os.system, touch(tmp_path)), 2)):
            file.writestr("archive/data.pkl", content)
    refused(path, "two entries")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.98])
def test_truncated_archives_are_refused(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path / "m.ckpt", {"state_dict": {"weight": torch.randn(1000)}})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path, "truncated or damaged")


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    with pytest.raises(ModelFileError, match="no such"):
        read_checkpoint(path)
    path.write_bytes(b"")
    refused(path, "empty")
    path.write_bytes(b"<html>not found</html>")
    refused(path, "not a torch checkpoint")
    path.write_bytes(pickle.dumps(Calls(os.system, touch(tmp_path))))
    refused(path, "bare pickle")
    torch.save({"state_dict": good()}, path, _use_new_zipfile_serialization=False)
    refused(path, "before 1.6")
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("pickle"))
    refused(path, "before 1.6")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    refused(path, "0 pickles")
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_checkpoint(tmp_path)

"""From a folder to shards, and from shards to a model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_verbs import FOLDER, colours

from darkroom.core.record import read_json

Say = Callable[..., tuple[int, str, str]]


def test_a_folder_becomes_shards_and_they_train_a_model(
    say: Say, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    folder = colours(tmp_path / "cells", [f"{kind}/{number}.png" for kind in ("red", "white") for number in range(8)])
    (folder / "red" / "broken.png").write_bytes(b"none")
    code, told, _ = say("convert", folder, tmp_path / "shards", "--to", "shards", "--samples", 6, "--json")
    report = json.loads(told)
    assert (code, report["samples"], len(report["written"]["paths"])) == (0, 16, 3)
    assert report["left_out"] == [{"name": "red/broken.png", "reason": "not a picture but text"}]
    cut = tmp_path / "shards" / "000002.tar"
    cut.write_bytes(cut.read_bytes()[:700])
    pattern = f"{tmp_path}/shards/{{000000..000002}}.tar"
    found = json.loads(say("inspect", pattern, "--json")[1])
    assert (found["name"], found["count"] + found["test"], found["classes"].keys()) == ("shards", 12, {"red", "white"})
    run = tmp_path / "run"
    words = (pattern, *FOLDER, "data.crop=random", "--device", "cpu", "--out", run, "--track", "tensorboard")
    code, _, told = say("train", *words)
    assert code == 0
    assert "cut from their middle: random crops are for first stages yet" in told
    assert "left out, e.g. 000002.tar: truncated shard: its end is missing; 0 samples" in told
    assert (run / "model.safetensors").exists()
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert [each["name"] for each in read_json(run / "pictures.json")["train"]["unread"]] == ["000002.tar"]
    assert "is there already" in refused("convert", folder, tmp_path / "shards", "--to", "shards")
    assert "shards of 0 samples" in refused("convert", folder, tmp_path / "no", "--to", "shards", "--samples", 0)
    assert "a shard that cannot be read" in refused("train", tmp_path / "absent" / "{0..2}.tar")

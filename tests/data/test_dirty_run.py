"""Three hundred pictures, a fifth of them broken in fifteen ways: it trains, and the report lists every one."""

import html
import re
from pathlib import Path

import pytest
from dirty_pictures import BROKEN, scene

from darkroom.cli.main import main

WAYS = (
    "empty.png",
    "cut.png",
    "cut.jpg",
    "cut.webp",
    "capped.png",
    "capped.jpg",
    "wrong-checksum.png",
    "zeroed.jpg",
    "noise.png",
    "text.jpg",
    "archive.png",
    "dot.png",
    "bomb.png",
    "gone.png",
    "transparent.png",
)
FEW = (
    "data.size=16",
    "first_stage.train.steps=3",
    "first_stage.train.batch=2",
    "first_stage.train.warmup=1",
    "first_stage.loss.perceptual_weight=0",
    "first_stage.loss.adversary=null",
    "first_stage.model.channels=16",
    "denoiser.train.steps=2",
    "denoiser.train.batch=2",
    "denoiser.train.warmup=1",
    "denoiser.network.channels=16",
    "denoiser.network.head_channels=16",
    "denoiser.sample.count=2",
    "denoiser.sample.steps=2",
)


def test_it_trains_and_the_report_lists_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(240):
        scene(number).save(folder / f"good-{number}.png")
    broken = [(f"{copy}-{way}", way) for way in WAYS for copy in range(4)]
    for name, way in broken:
        BROKEN[way][0](folder / name)
    assert len(list(folder.iterdir())) == 300
    run = tmp_path / "run"
    assert main(["train", str(folder), *FEW, "--device", "cpu", "--out", str(run)]) == 0
    assert "60 pictures left out" in capsys.readouterr().err
    page = html.unescape((run / "report.html").read_text(encoding="utf-8"))
    for name, way in broken:
        told = re.search(rf"<b>{re.escape(name)}</b>: ([^<]*)", page)
        assert told is not None, name
        assert re.search(BROKEN[way][1], told[1]), (name, told[1])
    assert (run / "model.safetensors").exists()

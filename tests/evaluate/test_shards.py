"""Rows on disk: whole or not there, never made twice, the same for one process and for two, as reports are."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from measured import CornerJudge, first_stage
from torch import Tensor

from darkroom.autoencoder.bottleneck import VQSpec
from darkroom.core.compute import Compute
from darkroom.core.parallel import rank, together, wait_for_all
from darkroom.core.shards import Shards
from darkroom.data.sources import ShapesSource, open_data
from darkroom.data.transforms import TransformSpec
from darkroom.data.write_shards import write_shards
from darkroom.evaluate import drawing
from darkroom.evaluate.conditions import evaluate_conditions
from darkroom.evaluate.first_stage import evaluate_first_stage
from darkroom.evaluate.lots import OfSource
from darkroom.tasks.generate import Sampled
from darkroom.tasks.held_out import Spoiling
from darkroom.tasks.load import load
from warm import START


def squares(rows: range) -> dict[str, Tensor]:
    return {"value": torch.tensor([row**2 for row in rows]), "pair": torch.tensor([[row, -row] for row in rows])}


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    shards, told = Shards(tmp_path, 10, 4), []
    shards.fill(squares, on_row=lambda done, total: told.append((done, total)))
    assert len(shards) == 3
    assert torch.cat(list(shards.each("value"))).tolist() == [row**2 for row in range(10)]
    assert shards.take("value", range(3, 9)).tolist() == [9, 16, 25, 36, 49, 64]
    assert shards.take("pair", torch.tensor([0, 5, 9])).tolist() == [[0, 0], [5, -5], [9, -9]]
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    made: list[range] = []

    def make(rows: range) -> dict[str, Tensor]:
        made.append(rows)
        if len(made) == 3:
            raise KeyboardInterrupt
        return squares(rows)

    with pytest.raises(KeyboardInterrupt):
        Shards(tmp_path, 20, 4).fill(make)
    Shards(tmp_path, 20, 4).fill(make)
    assert made == [range(4), range(4, 8), range(8, 12), range(8, 12), range(12, 16), range(16, 20)]


@pytest.mark.parametrize("content", [b"", b"torn", "short"])
def test_a_file_that_is_not_whole_is_made_again(tmp_path: Path, content: bytes | str) -> None:
    shards = Shards(tmp_path, 8, 4)
    shards.fill(squares)
    if isinstance(content, bytes):
        shards.path(1).write_bytes(content)
    else:
        Shards(tmp_path, 6, 4).fill(squares)
        shards.path(1).unlink()
        Shards(tmp_path, 6, 4).fill(squares)  # two rows where four belong
    (tmp_path / f".{shards.path(1).name}.abc").touch()  # left by a killed process
    assert [shards.have(number) for number in (0, 1)] == [True, False]
    shards.fill(squares)
    assert torch.cat(list(shards.each("value"))).tolist() == [row**2 for row in range(8)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.safetensors", "000001.safetensors"]


def reports(model: Path) -> list[dict[str, Any]]:
    """On five scenes, two at a time: a first stage, and a model that fills holes."""
    source, judge = ShapesSource(seed=5, side=32, count=5), CornerJudge()
    transform, compute = TransformSpec(size=32), Compute(torch.device("cpu"))
    kept = evaluate_first_stage(
        first_stage(VQSpec(codes=16)), source, transform=transform, judge=judge, compute=compute, batch=2
    )
    filled = evaluate_conditions(
        load(model, device="cpu"), source, spoiling=Spoiling(), judge=judge, sample={"steps": 2}, batch=2
    )
    return [kept.plain(), filled.plain()]


def _rank(number: int, folder: str, model: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    torch.set_num_threads(1)
    made: list[int] = []

    def make(rows: range) -> dict[str, Tensor]:
        made.append(rows.start // 4)
        return squares(rows)

    shards = Shards(Path(folder) / "rows", 22, 4)
    with together():  # they have met already
        shards.fill(make)
        found = torch.cat(list(shards.each("value")))  # of both, as soon as either is done
        assert rank() == number
        drawn, generate = list[int](), drawing.generate

        def counted(*given: Any, **options: Any) -> Iterator[Sampled]:
            for each in generate(*given, **options):
                drawn.append(each.index)
                yield each

        drawing.generate = counted
        told = reports(model)
    torch.save({"made": made, "found": found, "drawn": drawn, "told": told}, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def test_two_ranks_share_the_work(tmp_path: Path, model_files: dict[str, Path]) -> None:
    given = (str(tmp_path), model_files["inpaint"])
    mp.start_processes(_rank, args=given, nprocs=2, start_method=START)
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in (0, 1))
    assert (first["made"], second["made"]) == ([0, 2, 4], [1, 3, 5])
    assert first["found"].tolist() == second["found"].tolist() == [row**2 for row in range(22)]
    assert first["drawn"] == [0, 1, 2, 3] * 8  # batches 0 and 1 of eight samples of each hole
    assert second["drawn"] == [4] * 8
    assert first["told"] == second["told"] == reports(model_files["inpaint"])
    assert rank() == 0
    with together():
        wait_for_all()


def test_pictures_in_shards_are_a_set_by_their_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    source = open_data("shapes", size=32, limit=4).train
    for row in range(4):
        (tmp_path / "folder").mkdir(exist_ok=True)
        source.example(row).picture.save(tmp_path / "folder" / f"{row}.png")
    (shard,) = write_shards(open_data(tmp_path / "folder"), tmp_path / "shards")

    def key() -> str:
        return OfSource(open_data(str(shard)).train, TransformSpec(size=32)).key()

    before = key()
    assert key() == before
    os.utime(shard, ns=(1, 1))
    assert key() != before

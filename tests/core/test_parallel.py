"""Ranks agree: means and rows of all of them, and what training builds on these."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from darkroom.autoencoder.adversary import adaptive_weight
from darkroom.autoencoder.revival import Revival, RevivalSpec
from darkroom.core import parallel
from darkroom.core.errors import DataError, InputError
from darkroom.core.parallel import (
    Share,
    check_together,
    is_first,
    mean_over_ranks,
    of_all,
    on_any,
    on_first,
    own_rows,
    own_share,
    rows_of_all_ranks,
    world_size,
)
from warm import START


def test_alone_everything_is_what_it_was() -> None:
    value = torch.tensor([1.0, 2.0])
    assert world_size() == 1
    assert mean_over_ranks(value) is value
    assert rows_of_all_ranks(value) is value
    assert of_all(value)[0] is value
    assert own_rows(10, batch=4) == range(10)
    assert on_first(lambda: value) is value
    assert (is_first(), on_any(True), on_any(False), own_share()) == (True, True, False, Share(0, 1))


@pytest.mark.parametrize(
    ("count", "ranks", "shares"),
    [
        (10, 2, [range(8), range(8, 10)]),
        (16, 2, [range(8), range(8, 16)]),
        (3, 3, [range(3), range(3, 3), range(3, 3)]),
        (17, 4, [range(8), range(8, 12), range(12, 16), range(16, 17)]),
        (0, 2, [range(0), range(0)]),
    ],
)
def test_rows_are_shared_in_whole_batches(
    monkeypatch: pytest.MonkeyPatch, *, count: int, ranks: int, shares: list[range]
) -> None:
    monkeypatch.setattr(parallel, "world_size", lambda: ranks)
    found = []
    for rank in range(ranks):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        found.append(own_rows(count, batch=4))
    assert [list(each) for each in found] == [list(each) for each in shares]
    assert [row for each in found for row in each] == list(range(count))


def _refused(rank: int) -> list[bool]:
    """Is an error of the first rank one of all, and told by the first alone?"""

    def work() -> None:
        raise DataError(f"found by {rank}")

    try:
        on_first(work)
    except DataError as error:
        return [str(error) == "found by 0", error.told]
    return []


def _together(rank: int, folder: Path) -> list[list[bool]]:
    """Whether each is told, and first, of work or a folder that is another one for a process."""
    (folder / "seen").mkdir(exist_ok=True)
    (folder / "apart" / str(rank) / "seen").mkdir(parents=True)
    check_together(folder / "seen", ["one recipe"])
    found: list[list[bool]] = []
    os.chdir(folder / "apart" / str(rank))  # as two machines with disks of their own
    for place, asked in ((folder / "seen", ["recipe", rank]), (Path("seen"), ["one recipe"])):
        try:
            check_together(place, asked)
        except InputError as error:
            found.append([error.told, "is not one folder" in str(error), "different work" in str(error)])
    assert not [*Path("seen").iterdir(), *(folder / "seen").iterdir()]
    return found


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    mine = torch.tensor([[1.0 + rank, 2.0]])
    last = nn.Parameter(torch.ones(2))
    made = (last * torch.ones(1, 1, 1, 2)).requires_grad_()
    table, values = torch.zeros(4, 2), torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(rank))
    revival = Revival(RevivalSpec(), codes=4, steps=10, seed=0)
    revival.watch(values, torch.full((1, 2, 2), rank))
    revival.revive(table)
    found = {
        "world": torch.tensor(world_size()),
        "mean": mean_over_ranks(mine),
        "rows": rows_of_all_ranks(mine),
        "weight": adaptive_weight(made.detach() * (1.0 + 2 * rank), made.detach(), made=made, last_layer=last),
        "table": table,
        "values": values,
        "use": revival.use,
        "all": torch.tensor([*map(sum, of_all([rank] * 3))]),
        "said": torch.tensor([on_first(lambda: 7 + rank), on_any(rank == 1), on_any(False), own_share().number]),
        "refused": torch.tensor(_refused(rank)),
        "together": torch.tensor(_together(rank, Path(folder))),
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_agree(tmp_path: Path) -> None:
    mp.start_processes(_rank, args=(str(tmp_path),), nprocs=2, start_method=START)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["world"] == 2
    assert first["mean"].tolist() == second["mean"].tolist() == [[1.5, 2.0]]
    assert first["rows"].tolist() == second["rows"].tolist() == [[1.0, 2.0], [2.0, 2.0]]
    torch.testing.assert_close(first["weight"], torch.tensor(2 * 2**0.5 / (2**0.5 + 1e-4)))
    assert torch.equal(first["weight"], second["weight"])
    assert torch.equal(first["table"], second["table"])  # revived alike on both ...
    pool = torch.cat([part["values"].permute(0, 2, 3, 1).reshape(-1, 2) for part in (first, second)])
    found = (first["table"][:, None] == pool).all(-1)
    assert found.any(1).all()
    assert {int(row) // 4 for row in found.int().argmax(1)} == {0, 1}  # ... from the latents of both
    assert torch.equal(first["use"], second["use"])
    assert first["all"].tolist() == second["all"].tolist() == [0, 3]
    assert [found["said"].tolist() for found in (first, second)] == [[7, 1, 0, 0], [7, 1, 0, 1]]
    assert [found["refused"].tolist() for found in (first, second)] == [[True, False], [True, True]]
    for number, found in enumerate((first, second)):
        assert found["together"].tolist() == [[number == 1, False, True], [number == 1, True, False]]

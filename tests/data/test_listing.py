"""Rows of shards that are read when they are wanted: what is in memory, and that nobody notices."""

import pickle
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shard_files import png, shard

from darkroom.conditioning.text import Tokenizer
from darkroom.core.errors import DataError
from darkroom.core.fetch import cache
from darkroom.core.seeds import generator
from darkroom.data import inputs
from darkroom.data.examine import PRINT, _first_of_equals
from darkroom.data.folder import Folder
from darkroom.data.inputs import Fixed, Tokenized, captions, tokenized
from darkroom.data.listing import Listing, reopen
from darkroom.data.order import Order
from darkroom.data.parts import part_of
from darkroom.data.sources import open_data
from darkroom.data.summary import summary

SAMPLES = 40


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Three shards of captions and classes."""
    for number in range(3):
        files: dict[str, bytes] = {}
        for each in range(SAMPLES * number, SAMPLES * (number + 1)):
            files |= {f"{each}.png": png(each), f"{each}.txt": b"picture %d" % each, f"{each}.cls": b"%d" % (each % 3)}
        shard(tmp_path / "many" / f"{number}.tar", files)
    return f"{tmp_path}/many/{{0..2}}.tar"


def train_of(place: str) -> tuple[Folder, Listing]:
    train, _ = open_data(place)
    assert isinstance(train, Folder)
    assert isinstance(train.rows, Listing)
    return train, train.rows


def test_a_listing_is_the_rows_it_stands_for(place: str) -> None:
    train, listing = train_of(place)
    rows = list(listing)
    assert [listing[number] for number in range(len(listing))] == rows == listing[:]
    assert [train.sizes[number] for number in range(len(train))] == [row.size for row in rows]
    assert [row.name.split("/")[0] for row in rows] == sorted(row.name.split("/")[0] for row in rows)
    for outside in (-1, len(rows)):
        with pytest.raises(IndexError):
            listing[outside]
    left_out = {0, 1, SAMPLES + 3, len(rows) - 1}
    fewer = train.without(left_out)
    kept = [row for number, row in enumerate(rows) if number not in left_out]
    assert list(fewer.rows) == kept
    again = fewer.without({2})
    assert list(again.rows) == [*kept[:2], *kept[3:]]
    assert len({each.fingerprint() for each in (train, fewer, again)}) == 3
    part = part_of(again)
    assert part is not None
    assert part.shards == [sum(row.name.startswith(f"{number}.tar/") for row in again.rows) for number in range(3)]


def test_ranks_are_sent_what_is_known_of_shards_and_a_bit_a_row(place: str) -> None:
    train, _ = train_of(place)
    sent = pickle.dumps(train)
    assert b"picture" not in sent
    assert pickle.loads(sent).fingerprint() == train.fingerprint()
    assert len(sent) < 3 * 1000


def test_an_index_that_is_not_here_is_made_anew(place: str) -> None:
    """Another machine has a cache of its own, or somebody has emptied it."""
    train, listing = train_of(place)
    rows = list(listing)
    shutil.rmtree(cache("shards"))
    reopen()
    assert list(pickle.loads(pickle.dumps(train)).rows) == rows
    assert len(list(cache("shards").iterdir())) == 3


def test_an_index_that_no_file_can_keep_stays_in_memory(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = list(train_of(place)[1])
    (tmp_path / "file").touch()
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "file" / "cache"))
    train, listing = train_of(place)
    assert list(listing) == wanted
    for path in (tmp_path / "many").iterdir():
        path.unlink()  # nothing is read again
    assert list(pickle.loads(pickle.dumps(train)).rows) == wanted


def test_a_garbled_row_is_told_and_its_index_made_anew_by_the_next_listing(place: str) -> None:
    _, listing = train_of(place)
    rows = list(listing)
    for path in cache("shards").iterdir():
        data = path.read_bytes()
        path.write_bytes(data[:-60] + b"x" * 60)
    reopen()
    with pytest.raises(DataError, match=r"2\.tar: its index is damaged; remove"):
        listing[len(listing) - 1]
    assert list(train_of(place)[1]) == rows


def eagerly(shards: list[int], *, seed: int, epoch: int, mixed: int) -> Iterator[int]:
    """The order of an epoch with all of its rows at hand."""
    draw, rows = generator(seed, epoch, purpose="order"), torch.arange(sum(shards)).split(shards)
    window, order = list[torch.Tensor](), torch.randperm(len(shards), generator=draw).tolist()
    for place, number in enumerate(order):
        window.append(rows[number])
        if sum(map(len, window)) >= mixed or place == len(order) - 1:
            whole = torch.cat(window)
            yield from whole[torch.randperm(len(whole), generator=draw)].tolist()
            window = []


@pytest.mark.parametrize("shards", [[7, 5, 9, 6, 8, 5], [40], [1] * 40])
def test_an_order_is_the_same_wherever_one_begins(shards: list[int]) -> None:
    wanted = [row for epoch in range(3) for row in eagerly(shards, seed=4, epoch=epoch, mixed=12)]
    order = Order(40, seed=4, shards=shards, mixed=12)
    assert [order.row(index) for index in range(120)] == wanted
    for index in random.Random(0).sample(range(120), 20):
        assert order.row(index) == Order(40, seed=4, shards=shards, mixed=12).row(index) == wanted[index]


@given(st.lists(st.integers(0, 5), max_size=12))
def test_the_first_of_equals(values: list[int]) -> None:
    prints = np.frombuffer(b"".join(bytes([value]) * PRINT for value in values), np.uint64).reshape(-1, PRINT // 8)
    assert _first_of_equals(prints).tolist() == [values.index(value) for value in values]


def test_captions_that_do_not_fit_into_memory_are_told_when_they_are_wanted(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = train_of(place)
    tokenizer = Tokenizer.train(captions(train), vocabulary=80, length=8)
    once = tokenized(captions(train), tokenizer, length=8)
    assert isinstance(once, Fixed)
    monkeypatch.setattr(inputs, "MEMORY", 8 * 8 * (len(train) - 1))
    anew = tokenized(captions(train), tokenizer, length=8)
    assert isinstance(anew, Tokenized)
    rows = [5, 0, len(train) - 1, 5]
    assert torch.equal(anew.take(rows, rows, seed=0), once.take(rows, rows, seed=0))
    assert captions(train, most=3)[:] == [train.caption(row) for row in range(3)]


def test_a_summary_counts_what_there_is(place: str) -> None:
    train, listing = train_of(place)
    found, labels = summary(train), [row.label for row in listing]
    assert found["captions"] == found["captioned"] == found["count"] == len(listing)
    assert found["classes"] == {name: labels.count(int(name)) for name in "012"}
    assert found["captions_of_a_class"] == max(found["classes"].values())
    assert found["width"]["min"] <= found["width"]["median"] <= found["width"]["max"]

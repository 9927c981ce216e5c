"""The order of samples, exact resume, and independence of batch size and of memory."""

import threading
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_folders import fill

from darkroom.core.errors import DataError
from darkroom.data import folder
from darkroom.data.loader import Batch, Reading, batches, estimated_bytes, still_batches
from darkroom.data.order import Order
from darkroom.data.sources import ShapesSource, open_data
from darkroom.data.transforms import TransformSpec, still, transform

SOURCE = ShapesSource(seed=1, side=32, count=11)
SPEC = TransformSpec(size=24, crop="random", flip=True, scale=(1.0, 1.3))


def taken(samples: int, *, batch_size: int, start: int = 0, memory: int = 2**30) -> Batch:
    """The next samples as one batch."""
    stream = batches(SOURCE, SPEC, batch_size=batch_size, seed=5, start=start, memory=memory)
    parts = list(islice(stream, -(-samples // batch_size)))
    return Batch(
        torch.cat([part.images for part in parts])[:samples],
        [row for part in parts for row in part.rows][:samples],
        [index for part in parts for index in part.indices][:samples],
        [text for part in parts for text in part.captions or []][:samples],
    )


WHOLE = taken(40, batch_size=8)


def test_an_epoch_is_a_permutation():
    assert WHOLE.indices == list(range(40))
    for epoch in range(3):
        assert sorted(WHOLE.rows[epoch * 11 : epoch * 11 + 11]) == list(range(11))
    assert WHOLE.rows[:11] != WHOLE.rows[11:22]
    order = Order(11, seed=5)
    assert [order.row(index) for index in (30, 2, 17)] == [WHOLE.rows[index] for index in (30, 2, 17)]


@given(start=st.integers(0, 25), batch_size=st.integers(1, 9), memory=st.sampled_from([0, 2**30]))
@settings(max_examples=20, deadline=None)
def test_resume_continues_exactly(start: int, batch_size: int, memory: int):
    rest = taken(12, batch_size=batch_size, start=start, memory=memory)
    assert rest.indices == WHOLE.indices[start : start + 12]
    assert rest.rows == WHOLE.rows[start : start + 12]
    assert rest.captions == (WHOLE.captions or [])[start : start + 12]
    assert torch.equal(rest.images, WHOLE.images[start : start + 12])


def test_samples_are_the_transform_of_their_row():
    for place in (0, 13, 39):
        example = SOURCE.example(WHOLE.rows[place])
        assert torch.equal(transform(example.picture, SPEC, seed=5, index=place), WHOLE.images[place])
        assert (WHOLE.captions or [])[place] == example.caption


def test_labels_come_as_a_tensor():
    source = ShapesSource(count=6, kind="single")
    batch = next(batches(source, TransformSpec(size=64), batch_size=6, seed=0))
    assert batch.labels is not None
    assert batch.labels.tolist() == [source.label(row) for row in batch.rows]
    assert next(batches(SOURCE, SPEC, batch_size=2, seed=0)).labels is None


def test_still_batches_pass_once_in_order():
    parts = list(still_batches(SOURCE, SPEC, batch_size=4))
    assert [len(part.rows) for part in parts] == [4, 4, 3]
    assert [row for part in parts for row in part.rows] == list(range(11))
    assert torch.equal(parts[2].images[2], still(SOURCE.example(10).picture, SPEC))
    assert next(still_batches(SOURCE, SPEC, batch_size=4, rows=[7, 3])).rows == [7, 3]


def test_pictures_are_decoded_once_when_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = open_data(fill(tmp_path, [f"{number}.png" for number in range(6)])).train
    spec = TransformSpec(size=16)
    stream = batches(source, spec, batch_size=5, seed=0)
    first = next(stream)
    monkeypatch.setattr("darkroom.data.folder.decode", None)
    again = next(stream)
    assert torch.equal(first.images[first.rows.index(2)], again.images[again.rows.index(2)])
    assert estimated_bytes(source, spec) == 5 * 3 * 16 * 16
    wide = spec.model_copy(update={"crop": "random"})
    assert estimated_bytes(source, wide) == 5 * 3 * 16 * 16 * 24 / 20


@pytest.mark.parametrize("memory", [0, 2**30])
def test_a_picture_that_breaks_is_named(tmp_path: Path, memory: int):
    source = open_data(fill(tmp_path, [f"{number}.png" for number in range(6)])).train
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"gone")
    with pytest.raises(DataError, match=r"\.png: the picture cannot be decoded"):
        next(batches(source, TransformSpec(size=16), batch_size=2, seed=0, memory=memory))


def test_leaving_early_stops_the_threads():
    stream = batches(SOURCE, SPEC, batch_size=2, seed=0, memory=0)
    next(stream)
    stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("memory", [0, 2**30])
def test_a_picture_that_does_not_come_is_known_by_name(tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch):
    source, found = open_data(fill(tmp_path, [f"{number}.png" for number in range(6)])).train, set[str | None]()
    reading, decoded = Reading(source), folder.decode

    def slowly(*given: Any, **named: Any):
        found.add(reading.longest)
        return decoded(*given, **named)

    monkeypatch.setattr(folder, "decode", slowly)
    assert reading.longest is None
    stream = batches(source, TransformSpec(size=16), batch_size=2, seed=0, memory=memory, reading=reading)
    next(stream)
    assert found & {f"{number}.png" for number in range(6)}
    assert None not in found


def test_a_machine_that_starts_no_more_threads_is_told(monkeypatch: pytest.MonkeyPatch):
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(DataError, match=r"no pictures can be read here and now \(can't start new thread\)"):
        next(batches(SOURCE, SPEC, batch_size=2, seed=0, memory=0))


def test_no_examples():
    with pytest.raises(DataError, match="no examples"):
        next(batches(ShapesSource(count=0), SPEC, batch_size=2, seed=0))
